"""The log of a daemon in the background: a file that stays small.

It is written by a thread of its own, so that a disk that is full, slow or away costs lines of the log and nothing
else. What is not a log line lands there too: stdout and stderr of the process (tracebacks of the interpreter, dumps of
a crash, what C libraries say) are descriptors of the same file, also after it was replaced by the next.
"""

import logging
import os
import queue
import stat
import sys
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from io import TextIOWrapper
from logging.handlers import QueueHandler, QueueListener, RotatingFileHandler
from pathlib import Path
from typing import Any, BinaryIO

from shardfs.cli.logs import TIMED_WITH_ORIGIN
from shardfs.errors import MountError

LOG_BYTES_MAX = 10 * 1024 * 1024
"""Of the file, and of the one older file beside it."""

LOOK_SECONDS = 10.0
"""So often the file is looked at while there is nothing to log."""

WAITING_LINES_MAX = 10_000
STOP_SECONDS = 2.0
_PIECE_BYTES = 256 * 1024
_TIMED = "%(asctime)s %(levelname)s %(message)s"


def open_log(log: Path) -> BinaryIO:
    """The file that a daemon's stdout and stderr begin with, made with its folder. MountError."""
    try:
        log.parent.mkdir(parents=True, exist_ok=True)
        return log.open("ab")
    except OSError as error:
        raise MountError(f"log of the daemon {log}: {error.strerror} (--log-file FILE for another place)") from None


@contextmanager
def log_to_file(log: Path) -> Iterator[None]:
    """Log lines with their time, stdout and stderr of this process to `log`, at most twice `LOG_BYTES_MAX` of them.

    OSError when it cannot be opened now; later that hurts nobody.
    """
    root = logging.getLogger()
    before = root.handlers[:]
    file = BoundedLog(log)
    file.setFormatter(logging.Formatter(TIMED_WITH_ORIGIN if root.isEnabledFor(logging.DEBUG) else _TIMED))
    lines: queue.Queue[Any] = queue.Queue(WAITING_LINES_MAX)
    writer = _Writer(lines, file)
    root.handlers[:] = [_Enqueue(lines)]
    writer.start()
    try:
        yield
    finally:
        root.handlers[:] = before
        writer.stop()


class _NoLock:
    """What logging takes for a lock: up to Python 3.12 it acquires one that is there, since 3.13 it enters it."""

    def acquire(self) -> None: ...

    def release(self) -> None: ...

    def __enter__(self) -> None: ...

    def __exit__(self, *_: object) -> None: ...


class BoundedLog(RotatingFileHandler):
    """A log file of at most `limit_bytes`, and one older file of as much beside it, `.1`.

    Looked after when a line is written and at each `look`: a file that was removed or moved away (logrotate) is left
    for a new one at the same place, one that is too long becomes the older one. The descriptors in `follow` go along.
    Where nothing can be renamed the file starts anew. A line that cannot be written is lost; the next one tries again.
    For one thread only: there is no lock that the end of the process could wait for.
    """

    def __init__(self, path: Path, *, limit_bytes: int = LOG_BYTES_MAX, follow: tuple[int, ...] = (1, 2)) -> None:
        self._follow = follow
        self._mode: int | None = None  # of the file when it was last looked at: the next one gets it
        super().__init__(path, maxBytes=limit_bytes, backupCount=1, encoding="utf-8", errors="backslashreplace")

    def createLock(self) -> None:  # noqa: N802 - the name that logging calls
        self.lock = _NoLock()  # type: ignore[assignment]  # typeshed wants one of threading's

    def emit(self, record: logging.LogRecord) -> None:
        self.look()
        super().emit(record)

    def look(self) -> None:
        """Go on in a new file if that is due. What hinders it is left for the next time."""
        try:
            here = None if self.stream is None else os.fstat(self.stream.fileno())
            if here is not None and stat.S_ISREG(here.st_mode):
                self._mode = stat.S_IMODE(here.st_mode)
            if here is None or self._moved(here):
                self._drop()
                self.stream = self._open()
                here = os.fstat(self.stream.fileno())
            if stat.S_ISREG(here.st_mode) and here.st_size >= self.maxBytes:
                self.doRollover()
        except OSError:
            self._drop()

    def doRollover(self) -> None:  # noqa: N802 - the name that logging calls
        self._drop()  # its close may fail on a full disk, and must not keep the file from being replaced
        older = f"{self.baseFilename}.1"
        try:
            super().doRollover()
            _keep_end(older, self.maxBytes)  # stderr asks nobody before it writes
        except OSError:
            os.truncate(self.baseFilename, 0)
            self.stream = self._open()

    def handleError(self, record: logging.LogRecord) -> None:  # noqa: N802 - the name that logging calls
        if isinstance(sys.exception(), OSError):
            self._drop()
        else:
            super().handleError(record)

    def _open(self) -> TextIOWrapper:
        os.makedirs(os.path.dirname(self.baseFilename), exist_ok=True)
        new = not os.path.exists(self.baseFilename)
        stream = super()._open()
        if new and self._mode is not None:
            with suppress(OSError):  # some disks have no modes
                os.fchmod(stream.fileno(), self._mode)
        for descriptor in self._follow:
            os.dup2(stream.fileno(), descriptor)
        return stream

    def _moved(self, here: os.stat_result) -> bool:
        """Whether the path no longer leads to the open file."""
        try:
            return not os.path.samestat(os.stat(self.baseFilename), here)
        except FileNotFoundError:
            return True

    def _drop(self) -> None:
        """Close the file, which is opened again when it is needed."""
        stream, self.stream = self.stream, None
        if stream is not None:
            with suppress(OSError):
                stream.close()


def _keep_end(path: str, bytes_max: int) -> None:
    """Shorten a file to its last `bytes_max`: what was said last says why. OSError.

    In place, because a second file may have no room on a disk that a flood has filled. What cannot be moved leaves the
    file with its beginning.
    """
    with open(path, "r+b", buffering=0) as file:
        begin = file.seek(0, os.SEEK_END) - bytes_max
        if begin <= 0:
            return
        try:
            done = 0
            while piece := os.pread(file.fileno(), min(_PIECE_BYTES, bytes_max - done), begin + done):
                done += os.pwrite(file.fileno(), piece, done)
        finally:
            file.truncate(bytes_max)


class _Enqueue(QueueHandler):
    """Never waits: what is too much is left out."""

    def enqueue(self, record: logging.LogRecord) -> None:
        with suppress(queue.Full):
            self.queue.put_nowait(record)


class _Writer(QueueListener):
    """The thread that writes the lines, and looks after the file when there are none."""

    def __init__(self, lines: "queue.Queue[Any]", file: BoundedLog) -> None:
        super().__init__(lines, file)
        self._lines = lines
        self._file = file

    def dequeue(self, block: bool) -> logging.LogRecord:  # noqa: ARG002 - logging's signature
        while True:
            try:
                record: logging.LogRecord = self._lines.get(timeout=LOOK_SECONDS)
            except queue.Empty:
                self._file.look()
            else:
                return record

    def stop(self) -> None:
        """Write what waits. For a disk that does not answer nobody waits long."""
        with suppress(queue.Full):
            self._lines.put(None, timeout=STOP_SECONDS)  # the mark of the end of a QueueListener
        if self._thread is not None:
            self._thread.join(STOP_SECONDS)
            if self._thread.is_alive():
                self._file.stream = None  # or the interpreter would wait for it at its end
        self._file.close()
