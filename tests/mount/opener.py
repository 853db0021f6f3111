"""A process of its own that has a file of a mount open, and how to find out who reads for it: daemon or kernel."""

import json
import os
import select
import signal
import subprocess
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any, Self

from tests.mount.kit import Place, connection_of, forget_pages, thread_states, until

ANSWER_SECONDS = 60.0


class Opener:
    """`opener_program.py` on one file. A context manager that ends it."""

    def __init__(self, path: Path) -> None:
        program = Path(__file__).with_name("opener_program.py")
        self._process = subprocess.Popen(
            [sys.executable, program, path], stdin=subprocess.PIPE, stdout=subprocess.PIPE, bufsize=0
        )
        try:
            self.size = self.receive()
        except BaseException:
            self._process.kill()
            raise

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.end()

    def __call__(self, *words: object) -> Any:
        """Have it do something; what came of it."""
        self.send(*words)
        return self.receive()

    def send(self, *words: object) -> None:
        assert self._process.stdin is not None
        self._process.stdin.write(json.dumps(words).encode() + b"\n")

    @property
    def answered(self) -> bool:
        return bool(select.select([self._process.stdout], [], [], 0)[0])

    def receive(self) -> Any:
        assert self._process.stdout is not None
        ready, _, _ = select.select([self._process.stdout], [], [], ANSWER_SECONDS)
        assert ready, "no answer: it waits for the mount"
        line = self._process.stdout.readline()
        assert line, f"the opener has ended: {self._process.wait()}"
        return json.loads(line)

    def end(self) -> None:
        """Gone, and with it its descriptors and maps."""
        self._process.kill()
        self._process.wait()
        for pipe in (self._process.stdin, self._process.stdout):
            assert pipe is not None
            with suppress(BrokenPipeError):
                pipe.close()


@contextmanager
def stopped(pid: int) -> Iterator[None]:
    """The process and all its threads stand still."""
    os.kill(pid, signal.SIGSTOP)
    try:
        until(lambda: set(thread_states(pid)) == {"T"}, what="its standstill")
        yield
    finally:
        os.kill(pid, signal.SIGCONT)


def waiting(place: Place) -> int:
    """How many questions of the kernel wait for their answer."""
    return int((connection_of(place.path) / "waiting").read_text())


def kernel_reads(place: Place, pid: int, opener: Opener) -> bool:
    """Whether the kernel reads for the opener, past the daemon: with this one stopped there is an answer.

    Else there is a question that waits for it. Nobody else may use the mount meanwhile.
    """
    until(lambda: waiting(place) == 0, what="the end of what is under way")
    with stopped(pid):
        opener.send("probe")
        until(lambda: opener.answered or waiting(place), what="an answer or a question")
        alone = opener.answered
    assert opener.receive() == min(opener.size, os.sysconf("SC_PAGESIZE"))
    return alone


def cached(path: Path) -> int:
    return int(os.getxattr(path, "user.shardfs.cached"))


def fill(path: Path) -> bytes:
    """Read the file until all of it lies in the disk cache, to which it is written behind the reader."""
    size = path.stat().st_size

    def whole() -> bool:
        if cached(path) == size:
            return True
        forget_pages(path)
        path.read_bytes()
        return cached(path) == size

    until(whole, what=f"all of {path.name} in the cache")
    return path.read_bytes()


def handed_over(place: Place, pid: int, path: Path, between: Callable[[], object] = lambda: None) -> Opener:
    """An opener of the file for which the kernel reads.

    More than one try, and `between` them something: the last block counts as seen a moment after it is there, and of
    the last `close` of somebody whom the daemon served the daemon hears a moment later.
    """
    found: list[Opener] = []

    def attempt() -> bool:
        opener = Opener(path)
        if kernel_reads(place, pid, opener):
            found.append(opener)
            return True
        opener.end()
        between()
        return False

    until(attempt, what=f"{path.name} handed over")
    return found[0]


def data_file(place: Place, size: int) -> Path:
    """The one file of the cache whose content has this size."""
    (found,) = [path for path in place.cache.rglob("*.data") if path.stat().st_size == size]
    return found
