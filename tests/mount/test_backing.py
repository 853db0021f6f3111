"""Which files are handed over, when the cache disk takes its time over one of them or the kernel refuses."""

import math
import os
import sys
import threading
from collections import Counter
from collections.abc import Callable, Iterator
from pathlib import Path
from types import FrameType
from typing import cast

import pytest
import trio
from trio.testing import MockClock

from shardfs.cache import Lent
from shardfs.mount import backing
from shardfs.mount.backing import Backings
from shardfs.vfs import FileSystem

HUNG, WELL = 1, 2
"""Inodes, and the handles on them."""
LIMIT_SECONDS = 60.0
"""Never reached."""


def apart(job: Callable[[], None]) -> None:
    threading.Thread(target=job).start()


class Files:
    """Lends what it is told to; `HUNG` only after `go_on`. Where and how often files were lent and given back."""

    lends = True

    def __init__(self, path: Path | None = None) -> None:
        self.hangs, self.go_on = threading.Event(), threading.Event()
        self.asked: Counter[int] = Counter()
        self.lending: list[int] = []  # threads
        self.back = threading.Event()
        self._path = path

    def lend(self, handle: int) -> Lent | None:
        self.lending.append(threading.get_ident())
        self.asked[handle] += 1
        if handle == HUNG:
            self.hangs.set()
            self.go_on.wait()
        return None if self._path is None else Lent(os.open(self._path, os.O_RDONLY), self._give_back, later=apart)

    def _give_back(self) -> None:
        self.back.set()


@pytest.fixture
def device() -> Iterator[int]:
    """Knows nothing of backing files."""
    fd = os.open(os.devnull, os.O_RDWR)
    yield fd
    os.close(fd)


@pytest.fixture
def path(tmp_path: Path) -> Path:
    (tmp_path / "data").write_bytes(b"model")
    return tmp_path / "data"


@pytest.fixture
def patient(monkeypatch: pytest.MonkeyPatch) -> None:
    """However slow the machine, nobody gives up who is not told to."""
    monkeypatch.setattr(backing, "LEND_SECONDS", math.inf)


def made(files: Files, device: int) -> Backings:
    backings = Backings(cast(FileSystem, files), device)
    backings.allowed = True
    return backings


async def hangs(files: Files) -> None:
    assert await trio.to_thread.run_sync(files.hangs.wait, LIMIT_SECONDS)


@pytest.mark.usefixtures("patient")
async def test_a_file_whose_disk_hangs_holds_up_no_other(device: int) -> None:
    files = Files()
    backings = made(files, device)
    try:
        async with trio.open_nursery() as nursery:
            nursery.start_soon(backings.open, HUNG, HUNG)
            await hangs(files)
            with trio.fail_after(LIMIT_SECONDS):
                assert await backings.open(WELL, WELL) is None
            assert files.asked == {HUNG: 1, WELL: 1}
            files.go_on.set()
    finally:
        files.go_on.set()


def test_a_disk_that_hangs_takes_a_few_threads_and_fails_no_open(device: int) -> None:
    files = Files()
    everybody = 0

    async def opens() -> None:
        nonlocal everybody
        backings = made(files, device)
        try:
            with trio.fail_after(LIMIT_SECONDS):
                for _ in range(3 * backing.THREADS):
                    assert await backings.open(HUNG, HUNG) is None
                    assert backings.release(HUNG) is None
            everybody = trio.to_thread.current_default_thread_limiter().borrowed_tokens
        finally:
            files.go_on.set()

    trio.run(opens, clock=MockClock(autojump_threshold=0))
    assert everybody == 0
    assert files.asked[HUNG] <= backing.THREADS


@pytest.mark.usefixtures("patient")
@pytest.mark.parametrize("lent", ["after giving up", "in that moment"])
async def test_what_was_lent_after_all_is_given_back(device: int, path: Path, lent: str) -> None:
    """In that moment: the thread is done after the cancellation and before the task hears of it."""
    files = Files(path)
    backings = made(files, device)
    with trio.CancelScope() as scope:
        async with trio.open_nursery() as nursery:
            nursery.start_soon(backings.open, HUNG, HUNG)
            await hangs(files)
            scope.cancel()
            if lent == "in that moment":
                files.go_on.set()
                while in_backing(sys._current_frames().get(files.lending[0])):
                    pass
    files.go_on.set()
    assert await trio.to_thread.run_sync(files.back.wait, LIMIT_SECONDS)


def in_backing(frame: FrameType | None) -> bool:
    while frame is not None:
        if frame.f_code.co_filename == backing.__file__:
            return True
        frame = frame.f_back
    return False


@pytest.mark.usefixtures("patient")
async def test_what_the_kernel_does_not_take_is_given_back(device: int, path: Path) -> None:
    files = Files(path)
    backings = made(files, device)
    assert await backings.open(WELL, WELL) is None
    assert not backings.allowed
    assert await trio.to_thread.run_sync(files.back.wait, LIMIT_SECONDS)
    assert await backings.open(WELL, WELL) is None
    assert files.asked == {WELL: 1}


REFUSED = {
    "kernel": (False, 0, True, "this kernel cannot"),
    "user": (True, 1000, True, "only root"),
    "folder": (True, 0, False, "no leases there"),
}


@pytest.mark.parametrize(("offered", "user", "lends", "said"), REFUSED.values(), ids=REFUSED)
def test_whoever_cannot_do_it_is_named_once(
    device: int,
    caplog: pytest.LogCaptureFixture,
    monkeypatch: pytest.MonkeyPatch,
    offered: bool,
    user: int,
    lends: bool,
    said: str,
) -> None:
    monkeypatch.setattr(os, "geteuid", lambda: user)
    files = Files()
    files.lends = lends
    backings = made(files, device)
    backings.allow(offered)
    assert not backings.allowed
    assert [said in record.getMessage() for record in caplog.records] == [True]
