"""One object on its way into a folder: a temp file that becomes visible whole, verified and durable, or not at all.

    with Upload(folder, key, size) as upload:
        upload.write(...)            # as often as needed, `size` bytes in all
        created = upload.publish()

`publish` reads back what was written and checks it against the name, syncs the file, links it to its final name (which
fails when there is one: of two racing uploads exactly one creates) and syncs the folder. Leaving the block removes the
temp file in every case; what a killed process leaves behind is removed by a later one when it is an hour old.

Blocking code, to be run in a thread. Memory: the read-back needs the size of the object, in at most `_CHECKS_AT_ONCE`
buffers that are kept and used again. It reads and does not map, because a bad disk must be an error here, not a SIGBUS.
"""

import errno
import logging
import os
import secrets
import stat
import threading
import time
from collections.abc import Callable
from contextlib import suppress
from types import TracebackType
from typing import Self

from shardfs.core.digest import Bytes
from shardfs.core.keys import ObjectKey
from shardfs.core.objects import size_limit, verify_object
from shardfs.errors import InvalidFormat
from shardfs.store.folder import TEMP, Folder, read_full

logger = logging.getLogger(__name__)

TEMP_SECONDS_MAX = 3600.0
_CHECKS_AT_ONCE = 4
_WRITE_BYTES = 1024 * 1024
_NO_LINKS = (errno.EPERM, errno.ENOSYS, errno.EOPNOTSUPP, errno.EMLINK)

_check_slots = threading.BoundedSemaphore(_CHECKS_AT_ONCE)
_check_buffers: list[bytearray] = []  # at most _CHECKS_AT_ONCE: one is appended by the holder of a slot


def nothing() -> None:
    """The `check` of callers that never give up."""


class Upload:
    """`size` bytes on their way to `key`. InvalidFormat at once when no object of that kind is that large."""

    def __init__(self, folder: Folder, key: ObjectKey, size: int) -> None:
        if size > size_limit(key):
            raise InvalidFormat(f"{key}: {size} bytes is more than the {size_limit(key)} such an object may have")
        self._folder = folder
        self._key = key
        self._size = size
        self._written = 0
        self._name = f"{os.getpid()}-{secrets.token_hex(8)}"
        with folder.open_folder(TEMP, create=True) as at:
            flags = os.O_RDWR | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC
            self._file = os.open(self._name, flags, 0o644, dir_fd=at)

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, where: TracebackType | None
    ) -> None:
        self.close()

    def close(self) -> None:
        """Remove the temp file. Harmless a second time."""
        if self._file >= 0:
            file, self._file = self._file, -1
            os.close(file)
            with suppress(OSError), self._folder.open_folder(TEMP) as at:
                os.unlink(self._name, dir_fd=at)

    def write(self, data: Bytes, check: Callable[[], None] = nothing) -> None:
        """Append `data`. `check` is called from time to time and may raise, to give up."""
        view = memoryview(data).cast("B")
        if self._written + len(view) > self._size:
            raise InvalidFormat(f"{self._key}: more than the announced {self._size} bytes")
        while view:
            check()
            count = os.write(self._file, view[:_WRITE_BYTES])
            self._written += count
            view = view[count:]

    def publish(self, check: Callable[[], None] = nothing) -> bool:
        """Make the object visible; False when it was there. InvalidFormat when the bytes do not match the name."""
        if self._written != self._size:
            raise InvalidFormat(f"{self._key}: {self._written} bytes instead of {self._size}")
        _verify_file(self._file, self._key, self._size)
        check()
        os.fsync(self._file)
        check()
        path, _, name = self._key.rpartition("/")
        with self._folder.open_folder(TEMP) as temp, self._folder.open_folder(path, create=True) as at:
            created = self._place(temp, at, name)
            os.fsync(at)  # also when it was there: whoever made it may not have come this far yet
        return created

    def _place(self, temp: int, at: int, name: str) -> bool:
        try:
            os.link(self._name, name, src_dir_fd=temp, dst_dir_fd=at, follow_symlinks=False)
            return True
        except FileExistsError:
            if self._is_sound(at, name):
                return False
        except OSError as error:  # a disk without hard links: two processes may then both say "created"
            if error.errno not in _NO_LINKS:
                raise
            if self._is_sound(at, name):
                return False
        os.rename(self._name, name, src_dir_fd=temp, dst_dir_fd=at)
        return True

    def _is_sound(self, at: int, name: str) -> bool:
        """Whether the object that is there can stay. One of our size is believed, any other has to verify."""
        try:
            status = os.stat(name, dir_fd=at, follow_symlinks=False)
        except FileNotFoundError:
            return False
        if not stat.S_ISREG(status.st_mode) or status.st_size > size_limit(self._key):
            return False
        if status.st_size == self._size:
            return True
        file = os.open(name, os.O_RDONLY | os.O_NOFOLLOW | os.O_CLOEXEC, dir_fd=at)
        try:
            _verify_file(file, self._key, status.st_size)
        except InvalidFormat:
            return False
        finally:
            os.close(file)
        return True


def sweep(folder: Folder, older_than_seconds: float = TEMP_SECONDS_MAX) -> int:
    """Remove temp files that nobody has written to for so long; return how many.

    What cannot be removed (a folder that somebody put there, say) stays, and one line in the log says so: it is in
    nobody's way, and a disk that has gone is for the next call to report.
    """
    oldest = time.time() - older_than_seconds
    removed = 0
    failures: list[str] = []
    try:
        with folder.open_folder(TEMP) as at, os.scandir(at) as entries:
            for entry in entries:
                try:
                    if entry.stat(follow_symlinks=False).st_mtime < oldest:
                        os.unlink(entry.name, dir_fd=at)
                        removed += 1
                except FileNotFoundError:
                    pass  # somebody else swept it, or its upload has ended
                except OSError as error:
                    failures.append(f"{entry.name!a}: {error.strerror}")
    except FileNotFoundError:
        pass
    except OSError as error:
        failures.append(str(error.strerror))
    if failures:
        logger.warning("%s: %d left behind, first %s", folder.root / TEMP, len(failures), failures[0])
    return removed


def _verify_file(file: int, key: ObjectKey, size: int) -> None:
    with _check_slots:
        buffer = _check_buffers.pop() if _check_buffers else bytearray()
        if len(buffer) < size:
            buffer = bytearray(size)
        try:
            view = memoryview(buffer)[:size]
            if read_full(file, view, 0) != size:
                raise InvalidFormat(f"{key}: the file is shorter than what was written to it")
            verify_object(key, view)
        finally:
            _check_buffers.append(buffer)
