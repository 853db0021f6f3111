"""Files whose disk hangs while they are opened, closed or deleted: nobody waits for them who has to do with others."""

import logging
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from shardfs.cache import CacheFile, DiskCache, disk
from shardfs.cache.errands import Errands
from shardfs.cache.stored import StoredFile
from shardfs.errors import CacheError
from tests.cache.samples import MIB, Sample, map_path, open_cache, sample

HUNG, WELL, NEW = sample(1, 5 * MIB), sample(2, 5 * MIB), sample(3, MIB)
LIMIT_SECONDS = 60.0
"""Never reached."""


class Hanging:
    """Calls of one method of one file stand still until `go_on`. `began`: one does."""

    def __init__(self) -> None:
        self.began, self.go_on = threading.Event(), threading.Event()
        self.threads: list[int] = []


@contextmanager
def hanging(monkeypatch: pytest.MonkeyPatch, method: str, one: Sample) -> Iterator[Hanging]:
    hang = Hanging()
    real: Callable[..., object] = getattr(StoredFile, method)

    def slow(stored: StoredFile, *args: object, **kwargs: object) -> object:
        if stored.content == one.content:
            hang.threads.append(threading.get_ident())
            hang.began.set()
            hang.go_on.wait()
        return real(stored, *args, **kwargs)

    with monkeypatch.context() as patch:
        patch.setattr(StoredFile, method, slow)
        try:
            yield hang
        finally:
            hang.go_on.set()


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """A cache that has both files."""
    cache = open_cache(tmp_path / "c")
    for one in (HUNG, WELL):
        file = cache.file(one.content)
        assert one.store(file)
        file.close()
    cache.close()
    return tmp_path / "c"


def settled(file: CacheFile) -> CacheFile:
    done = threading.Event()
    file.when_settled(done.set)
    assert done.wait(LIMIT_SECONDS)
    assert file.settled
    return file


def threads(cache: DiskCache) -> int:
    return cache._errands._threads


def test_a_map_that_does_not_come(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Opened however often it costs one thread, and its blocks are misses; then they are there."""
    cache = open_cache(folder, threads=2)
    with hanging(monkeypatch, "load", HUNG) as hang:
        files = [cache.file(HUNG.content)]
        assert hang.began.wait(LIMIT_SECONDS)
        for _ in range(5):
            cache.file(HUNG.content).close()
            files.append(cache.file(HUNG.content))
        assert not files[0].settled
        assert files[0].missing(0, 1) == 0
        assert not HUNG.holds(files[0], 0, 1)
        assert not HUNG.store(files[0], 0, 1)
        assert cache.present_bytes(HUNG.content) == HUNG.content.size
        well = settled(cache.file(WELL.content))
        assert WELL.holds(well)
        well.close()
        settled(cache.file(WELL.content)).close()
        assert len(hang.threads) == 1
        assert threading.get_ident() not in hang.threads
        hang.go_on.set()
        for file in files:
            assert HUNG.holds(settled(file))
            file.close()
    cache.settle()
    cache.check()
    cache.close()


def test_whoever_gives_up_is_not_told(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    cache = open_cache(folder, threads=1)
    told: list[int] = []
    with hanging(monkeypatch, "load", HUNG) as hang:
        file = cache.file(HUNG.content)
        assert hang.began.wait(LIMIT_SECONDS)

        def tell() -> None:
            told.append(1)

        file.when_settled(tell)
        file.forget(tell)
    settled(file)
    assert not told
    cache.close()


def test_what_needs_no_disk_takes_no_thread(folder: Path) -> None:
    cache = open_cache(folder, threads=2)
    new = cache.file(NEW.content)
    assert new.settled
    new.close()
    assert cache.statistics().files == 2
    assert threads(cache) == 0
    well = settled(cache.file(WELL.content))
    assert threads(cache) == 1
    cache.settle()  # whoever is told is told by an errand, which has then still to end
    again = cache.file(WELL.content)
    assert again.settled
    assert not cache._errands.busy(again.number)
    again.close()
    well.close()
    cache.close()


def test_closing_on_a_disk_that_hangs(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Its use is not noted, and nobody waits for that. Whoever opens it meanwhile finds all of it."""
    cache = open_cache(folder, threads=2)
    file = settled(cache.file(HUNG.content))
    assert HUNG.holds(file, 0, 1)
    before = map_path(folder, HUNG.content).stat().st_mtime_ns
    with hanging(monkeypatch, "save_use", HUNG) as hang:
        file.close()
        assert hang.began.wait(LIMIT_SECONDS)
        assert WELL.holds(settled(cache.file(WELL.content)))
        assert cache.file(HUNG.content).settled
    cache.settle()
    assert map_path(folder, HUNG.content).stat().st_mtime_ns > before
    assert HUNG.holds(cache.file(HUNG.content))
    cache.close()


def test_opened_while_it_is_being_deleted(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """It waits its turn, begins anew, and its map is charged once."""
    cache = open_cache(folder, threads=2)
    file = settled(cache.file(HUNG.content))
    assert file.evict() == HUNG.content.size
    with hanging(monkeypatch, "remove", HUNG) as hang:
        file.close()
        assert hang.began.wait(LIMIT_SECONDS)
        again = cache.file(HUNG.content)
        assert not again.settled
        assert not HUNG.store(again, 0, 1)
        assert settled(cache.file(WELL.content)).evict() == WELL.content.size
    assert HUNG.store(settled(again))
    assert HUNG.holds(again)
    cache.check()
    maps = HUNG.content.map_charge + WELL.content.map_charge
    assert cache.statistics().used_bytes == HUNG.content.size + maps
    cache.close()
    cache = open_cache(folder)
    assert HUNG.holds(cache.file(HUNG.content))
    cache.close()


def test_giving_back_does_not_wait_for_the_disk(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    cache = open_cache(folder, threads=2)
    file = settled(cache.file(HUNG.content))
    assert HUNG.holds(file)
    lents = [file.lend(), file.lend()]
    with hanging(monkeypatch, "in_use", HUNG) as hang:
        for lent in lents:
            assert lent is not None
            lent.close()
        file.close()
        assert hang.began.wait(LIMIT_SECONDS)
        assert threading.get_ident() not in hang.threads
        settled(cache.file(WELL.content)).close()
    cache.settle()
    assert cache._ledger.idle(file.number), "given back, once for each"
    assert not cache._lending.out(file.number)
    cache.check()
    cache.close()


def test_the_end_does_not_wait_for_ever(
    folder: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    """The folder stays ours, since what hangs may still be done; and is free when it has been."""
    monkeypatch.setattr(disk, "CLOSE_SECONDS", 0.0)
    cache = open_cache(folder, threads=2)
    with hanging(monkeypatch, "load", HUNG) as hang:
        cache.file(HUNG.content)
        assert hang.began.wait(LIMIT_SECONDS)
        cache.close()
        assert [record.message for record in caplog.records] == [f"cache folder {folder}: the disk does not answer"]
        with pytest.raises(CacheError, match="in use by process"):
            open_cache(folder)
    for thread in threading.enumerate():
        if thread.name == "cache close":
            thread.join()
    open_cache(folder).close()


def test_a_bug_costs_one_errand(caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.CRITICAL, "shardfs.cache.errands")
    errands = Errands(1)
    did: list[int] = []
    errands.do(1, lambda: did[0])
    errands.do(1, lambda: did.append(1))
    errands.do(2, lambda: did.append(2))
    errands.wait()
    assert did == [1, 2]
    errands.close()
    errands.do(1, lambda: did.append(threading.get_ident()))
    assert did[-1] == threading.get_ident()
