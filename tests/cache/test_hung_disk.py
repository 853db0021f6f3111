"""A disk that hangs under one read or write: the cache has nothing and stores nothing until it has answered."""

import errno
import logging
import os
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from shardfs.cache import CacheFile, DiskCache, holes
from shardfs.cache.health import DiskHealthOptions
from tests.cache.samples import MIB, Clock, data_path, map_path, open_cache, sample

HUNG, WELL = sample(1, 2 * MIB), sample(2, 2 * MIB)
HANG_SECONDS = DiskHealthOptions().hang_seconds
LIMIT_SECONDS = 60.0
"""Never reached."""


@contextmanager
def hanging(monkeypatch: pytest.MonkeyPatch, call: str, path: Path) -> Iterator[threading.Event]:
    """One call of a function of `holes` on this file stands still until the end; the event says that it does."""
    began, go_on = threading.Event(), threading.Event()
    real: Callable[..., object] = getattr(holes, call)

    def slow(fd: int, *args: object) -> object:
        if not began.is_set() and Path(os.readlink(f"/proc/self/fd/{fd}")) == path:
            began.set()
            go_on.wait(LIMIT_SECONDS)
        return real(fd, *args)

    with monkeypatch.context() as patch:
        patch.setattr(holes, call, slow)
        try:
            yield began
        finally:
            go_on.set()


@pytest.fixture
def clock() -> Clock:
    return Clock()


@pytest.fixture
def cache(tmp_path: Path, clock: Clock) -> Iterator[DiskCache]:
    cache = open_cache(tmp_path, clock=clock)
    yield cache
    cache.check()
    cache.close()


def in_thread(job: Callable[[], object], began: threading.Event) -> threading.Thread:
    thread = threading.Thread(target=job, daemon=True)
    thread.start()
    assert began.wait(LIMIT_SECONDS)
    return thread


def works(file: CacheFile) -> bool:
    return file.missing(0, 8) == 8 and file.present_bytes() > 0 and not file.hangs


@pytest.mark.parametrize("what", ["read", "write", "evict"])
def test_all_is_a_miss_until_it_answers(
    cache: DiskCache,
    clock: Clock,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
    what: str,
) -> None:
    """Of all files: they lie on one disk."""
    caplog.set_level(logging.INFO)
    hung, well = cache.file(HUNG.content), cache.file(WELL.content)
    assert HUNG.store(hung, 0, 16)
    assert WELL.store(well, 0, 8)
    call, path, job = {
        "read": ("read_full", data_path(tmp_path, HUNG.content), lambda: HUNG.holds(hung, 0, 16)),
        "write": ("write_full", data_path(tmp_path, HUNG.content), lambda: HUNG.store(hung, 16, 32)),
        "evict": ("write_full", map_path(tmp_path, HUNG.content), hung.evict),
    }[what]
    with hanging(monkeypatch, call, path) as began:
        thread = in_thread(job, began)
        clock.now += HANG_SECONDS * 0.9
        assert works(well), "it may be busy"
        clock.now += HANG_SECONDS * 0.1
        assert well.hangs
        assert (well.missing(0, 8), well.present_bytes(), cache.present_bytes(WELL.content)) == (0, 0, 0)
        assert not WELL.holds(well, 0, 8)
        assert not WELL.store(well, 8, 16)
        assert not well.whole
        assert cache.statistics().bypassed
    thread.join(LIMIT_SECONDS)
    assert works(well)
    assert WELL.holds(well, 0, 8)
    assert WELL.store(well, 8, 16)
    assert HUNG.holds(hung, 16, 32) is (what == "write")
    assert HUNG.holds(hung, 0, 16) is (what != "evict")
    assert [record.message for record in caplog.records] == [
        f"cache folder {tmp_path}: the disk does not answer; going on without it",
        f"cache folder {tmp_path}: in use again",
    ]
    for file in (hung, well):
        file.close()


def test_errors_leave_nothing_under_way(cache: DiskCache, clock: Clock, tmp_path: Path) -> None:
    """An operation that fails has answered."""
    file = cache.file(HUNG.content)
    assert HUNG.store(file, 0, 1)
    data_path(tmp_path, HUNG.content).rename(tmp_path / "away")
    cache._pool.forget(data_path(tmp_path, HUNG.content))
    assert not HUNG.holds(file, 0, 1)
    clock.now += 2 * HANG_SECONDS
    assert not file.hangs
    file.close()


def test_a_file_of_which_nothing_is_there_is_closed_without_the_disk(
    cache: DiskCache, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The event loop closes it, and would stand still with the disk; and one that is read-only gives an error."""
    called: list[Path] = []

    def unlink(path: Path, missing_ok: bool = False) -> None:
        called.append(path)
        raise OSError(errno.EROFS, "read-only")

    with monkeypatch.context() as patch:
        patch.setattr(Path, "unlink", unlink)
        for seed in range(10, 20):
            cache.file(sample(seed, MIB).content).close()
        cache.settle()
    assert called == []
    assert (cache.statistics().files, cache.statistics().write_errors) == (0, 0)


def test_a_map_that_cannot_be_made_leaves_no_data_file(
    cache: DiskCache, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    real: Callable[..., object] = holes.write_full

    def fails(fd: int, *args: object) -> object:
        if Path(os.readlink(f"/proc/self/fd/{fd}")) == map_path(tmp_path, HUNG.content):
            raise OSError(errno.EIO, "broken")
        return real(fd, *args)

    file = cache.file(HUNG.content)
    with monkeypatch.context() as patch:
        patch.setattr(holes, "write_full", fails)
        assert not HUNG.store(file, 0, 1)
    assert not data_path(tmp_path, HUNG.content).exists()
    assert not map_path(tmp_path, HUNG.content).exists()
    assert HUNG.store(file, 0, 1)
    file.close()


@pytest.mark.parametrize("what", ["read", "write"])
def test_the_last_operation_puts_away_a_file_that_was_closed_meanwhile(
    cache: DiskCache, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, what: str
) -> None:
    file = cache.file(HUNG.content)
    assert HUNG.store(file, 0, 8)
    call, job = {
        "read": ("read_full", lambda: HUNG.holds(file, 0, 8)),
        "write": ("write_full", lambda: HUNG.store(file, 8, 16)),
    }[what]
    with hanging(monkeypatch, call, data_path(tmp_path, HUNG.content)) as began:
        thread = in_thread(job, began)
        file.close()
        cache.settle()
        assert file.settled
        assert file._presence.words is not None
    thread.join(LIMIT_SECONDS)
    cache.settle()
    assert file._presence.words is None


def test_a_disk_that_comes_and_goes_is_not_spoken_of_each_time(
    cache: DiskCache, clock: Clock, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.INFO)
    file = cache.file(HUNG.content)
    assert HUNG.store(file, 0, 8)

    def come_and_go() -> None:
        with hanging(monkeypatch, "read_full", data_path(tmp_path, HUNG.content)) as began:
            thread = in_thread(lambda: HUNG.holds(file, 0, 8), began)
            clock.now += HANG_SECONDS
            assert file.hangs
        thread.join(LIMIT_SECONDS)
        assert not file.hangs

    for _ in range(20):
        come_and_go()
    lines = [record.message.partition(": ")[2] for record in caplog.records]
    assert lines == ["the disk does not answer; going on without it", "in use again"] * 5
    caplog.clear()
    clock.now += 60
    come_and_go()
    lines = [record.message.partition(": ")[2] for record in caplog.records]
    assert lines == [
        "and did not answer 15 times more",
        "the disk does not answer; going on without it",
        "in use again",
    ]
    file.close()
