"""Many threads on few granules: bytes are right or a miss, and the limit holds at every sample."""

import random
import threading
from collections.abc import Callable
from pathlib import Path

import pytest

from shardfs.cache import CacheFile, DiskCache
from tests.cache.samples import BLOCK, METADATA_SLACK, MIB, Sample, aligned, data_path, disk_bytes, open_cache, sample


def run_threads(*bodies: Callable[[], None]) -> None:
    """Run all at once; the first exception comes out. They are daemons, so that one that hangs fails only this test."""
    failures: list[BaseException] = []

    def guarded(body: Callable[[], None]) -> None:
        try:
            body()
        except BaseException as error:  # noqa: BLE001 - shown below
            failures.append(error)

    threads = [threading.Thread(target=guarded, args=(body,), daemon=True) for body in bodies]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    if failures:
        raise failures[0]


class Players:
    """Threads that do random things to a cache; each read compares every byte."""

    def __init__(self, cache: DiskCache, samples: list[Sample], steps: int) -> None:
        self.cache = cache
        self.samples = samples
        self.steps = steps
        self.hits = 0
        self.stored = 0
        self.playing = 0
        self._lock = threading.Lock()

    def player(self, seed: int) -> Callable[[], None]:
        self.playing += 1

        def body() -> None:
            chance = random.Random(seed)
            try:
                for _ in range(self.steps):
                    self.step(chance)
            finally:
                with self._lock:  # one that is not counted out would keep the watchers at work for ever
                    self.playing -= 1

        return body

    def step(self, chance: random.Random) -> None:
        one = chance.choice(self.samples)
        file = self.cache.file(one.content)
        for _ in range(chance.randrange(1, 6)):
            first = chance.randrange(one.content.blocks)
            end = min(one.content.blocks, first + chance.choice([1, 1, 2, 16, 90]))
            what = chance.random()
            if what < 0.45:
                self.stored += one.store(file, first, end)
            elif what < 0.9:
                self.hits += one.holds(file, first, end)
            elif what < 0.95:
                file.touch()
            elif what < 0.97:
                file.evict()
            else:
                assert first <= file.missing(first, end) <= end
                assert 0 <= file.present_bytes() <= one.content.size
        file.close()

    def watch(self, folder: Path) -> None:
        """The limit, by our count and by the disk's, as often as it can be looked at.

        Under the lock of the books, since files are looked at one after the other: nothing new is charged meanwhile, so
        what lies there may not exceed the count.
        """
        books = self.cache._books
        while self.playing:
            self.cache.check()
            with books.changed:
                assert disk_bytes(folder) <= books.used_bytes + METADATA_SLACK
                assert books.used_bytes <= books.limit_bytes


SAMPLES = [sample(1, 5 * MIB), sample(2, 12 * MIB + 1), sample(3, 3 * BLOCK - 5), sample(4, 9 * MIB - 4096)]


@pytest.mark.parametrize("limit", [2 * MIB, 7 * MIB, 15 * MIB])
def test_right_bytes_or_a_miss_and_never_over_the_limit(tmp_path: Path, limit: int) -> None:
    cache = open_cache(tmp_path, limit, threads=3)
    players = Players(cache, SAMPLES, steps=120)
    bodies = [players.player(seed) for seed in range(6)]
    run_threads(*bodies, lambda: players.watch(tmp_path))
    cache.settle()
    cache.check()
    statistics = cache.statistics()
    assert players.hits
    assert players.stored
    assert statistics.evicted_bytes
    assert (statistics.corrupt_blocks, statistics.read_errors, statistics.write_errors) == (0, 0, 0)
    last = cache.file(SAMPLES[2].content)
    cache.settle()
    assert SAMPLES[2].store(last)  # what they did last may have been to evict all
    cache.close()
    # What is left is as good as what was there.
    cache = open_cache(tmp_path, limit)
    assert sum(len(one.held(cache.file(one.content))) for one in SAMPLES)
    assert cache.statistics().corrupt_blocks == 0
    cache.close()


def test_right_bytes_or_a_miss_while_the_files_are_damaged(tmp_path: Path) -> None:
    cache = open_cache(tmp_path, 15 * MIB)
    players = Players(cache, SAMPLES, steps=120)
    bodies = [players.player(seed) for seed in range(4)]

    def vandal() -> None:
        chance = random.Random(0)
        while players.playing:
            one = chance.choice(SAMPLES)
            try:
                with data_path(tmp_path, one.content).open("r+b") as file:
                    file.seek(chance.randrange(one.content.size))
                    file.write(chance.randbytes(1))
            except FileNotFoundError:
                continue

    run_threads(*bodies, vandal)
    cache.check()
    assert players.hits
    assert cache.statistics().corrupt_blocks
    cache.close()


def test_two_writers_of_the_same_blocks_are_charged_once(tmp_path: Path) -> None:
    one = SAMPLES[1]
    cache = open_cache(tmp_path)
    file = cache.file(one.content)
    run_threads(*[lambda: one.store(file) or pytest.fail("not stored")] * 4)
    assert cache.statistics().used_bytes == 12 * MIB + 4096 + one.content.map_charge
    assert one.holds(file)
    cache.check()
    cache.close()


def test_a_granule_that_is_read_stays_until_it_has_been_read(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A reader stands still in the middle of its read; the writer that needs the room goes without."""
    one, two = sample(5, 4 * MIB), sample(6, 4 * MIB)
    cache = open_cache(tmp_path, 4 * MIB + 3 * 8192)
    file, other = cache.file(one.content), cache.file(two.content)
    assert one.store(file)
    reading, go_on = threading.Event(), threading.Event()
    read = file.stored.read

    def slow_read(first: int, into: memoryview) -> None:
        reading.set()
        go_on.wait()
        read(first, into)

    monkeypatch.setattr(file.stored, "read", slow_read)
    into = aligned(4 * MIB)
    answers: list[bool] = []
    reader = threading.Thread(target=lambda: answers.append(file.read(0, into)), daemon=True)
    reader.start()
    reading.wait()
    assert not two.store(other)
    assert file.evict() == 0
    go_on.set()
    reader.join()
    assert answers == [True]
    assert into == one.plain
    assert two.store(other)
    assert file.missing(0, 1) == 0
    cache.check()
    cache.close()


def test_a_granule_that_is_being_evicted_is_a_miss_and_its_writer_waits(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    one = sample(5, 4 * MIB)
    cache = open_cache(tmp_path)
    file = cache.file(one.content)
    assert one.store(file)
    evicting, go_on = threading.Event(), threading.Event()
    evict = file.stored.evict

    def slow_evict(granule: int) -> None:
        evicting.set()
        go_on.wait()
        evict(granule)

    monkeypatch.setattr(file.stored, "evict", slow_evict)
    evictor = threading.Thread(target=file.evict, daemon=True)
    evictor.start()
    evicting.wait()
    assert not one.holds(file, 0, 1)
    answers: list[bool] = []
    writer = threading.Thread(target=lambda: answers.append(one.store(file)), daemon=True)
    writer.start()
    assert not answers
    go_on.set()
    evictor.join()
    writer.join()
    assert answers == [True]
    assert one.holds(file)
    cache.check()
    cache.close()


def test_close_waits_for_what_runs(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    one = sample(5, 4 * MIB)
    cache = open_cache(tmp_path)
    file: CacheFile = cache.file(one.content)
    writing, go_on = threading.Event(), threading.Event()
    write = file.stored.write

    def slow_write(first: int, data: memoryview) -> None:
        writing.set()
        go_on.wait()
        write(first, data)

    monkeypatch.setattr(file.stored, "write", slow_write)
    writer = threading.Thread(target=lambda: one.store(file), daemon=True)
    writer.start()
    writing.wait()
    closer = threading.Thread(target=cache.close, daemon=True)
    closer.start()
    go_on.set()
    writer.join()
    closer.join()
    cache = open_cache(tmp_path)
    assert one.holds(cache.file(one.content))
    cache.close()
