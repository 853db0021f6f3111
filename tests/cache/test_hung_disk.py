"""A disk that hangs under one read or write: the cache has nothing and stores nothing until it has answered."""

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
