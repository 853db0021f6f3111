"""All that a cache does, in any order and at once, while others have files of it in hand: their bytes stay right."""

import math
import mmap
import os
import random
import subprocess
import threading
from collections import Counter
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path

import pytest

from shardfs.cache import CacheFile, DiskCache, Lent, disk
from shardfs.cache.folder import CacheFolder
from shardfs.cache.health import DiskHealthOptions
from tests.cache.samples import BLOCK, KIB, METADATA_SLACK, MIB, Sample, disk_bytes, sample
from tests.cache.test_threads import run_threads

SAMPLES = [sample(1, MIB + 1), sample(2, 700 * KIB), sample(3, 3 * BLOCK - 5), sample(4, 1536 * KIB)]
LIMIT = 2 * MIB + 256 * KIB
"""Enough for any of the samples, and not for all."""

NEVER_HANGS = DiskHealthOptions(hang_seconds=math.inf)
"""Where time passes with every look, an operation with many looks takes long."""


class Ticking:
    """Time that passes with every look."""

    def __init__(self) -> None:
        self.now = 0.0

    def __call__(self) -> float:
        self.now += 0.1
        return self.now


@pytest.fixture(autouse=True)
def small_granules(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(disk, "GRANULE_BYTES", 4 * BLOCK)


@pytest.fixture
def ramfs(tmp_path: Path) -> Iterator[Path]:
    """A filesystem that cannot punch holes."""
    at = tmp_path / "disk"
    at.mkdir()
    subprocess.run(["mount", "-t", "ramfs", "none", at], check=True)
    yield at
    subprocess.run(["umount", "--lazy", at], check=True)


def cache_in(folder: Path, *, punches: bool, threads: int = 0) -> DiskCache:
    claimed = CacheFolder.claim(folder)
    medium = replace(claimed.medium(), punches=punches)
    cache = DiskCache(claimed, medium, limit_bytes=LIMIT, clock=Ticking(), threads=threads, health=NEVER_HANGS)
    cache._restore()
    return cache


class Hands:
    """One who opens files, has them lent, maps them and lets go, in any order. What it has in hand must be right."""

    def __init__(self, cache: DiskCache, seed: int) -> None:
        self.cache = cache
        self.chance = random.Random(seed)
        self.files: list[tuple[Sample, CacheFile]] = []
        self.lents: list[tuple[Sample, Lent]] = []
        self.maps: list[tuple[Sample, mmap.mmap]] = []
        self.did: Counter[str] = Counter()
        self.ways: dict[str, Callable[[], bool]] = {
            "open": self.open,
            "close": self.close,
            "store": self.store,
            "read": self.read,
            "evict": self.evict,
            "lend": self.lend,
            "give back": self.give_back,
            "map": self.map,
            "unmap": self.unmap,
        }

    def step(self) -> None:
        what = self.chance.choice([*self.ways, "store", "lend"])
        self.did[what] += self.ways[what]()

    def has_done_everything(self) -> bool:
        return all(self.did[what] for what in (*self.ways, "restart"))

    def compare(self) -> None:
        for one, lent in self.lents:
            assert os.pread(lent.fd, one.content.size + 1, 0) == one.plain
        for one, memory in self.maps:
            assert memory[:] == one.plain

    def let_go(self) -> None:
        while self.unmap() or self.give_back() or self.close():
            self.compare()

    def open(self) -> bool:
        one = self.chance.choice(SAMPLES)
        self.files.append((one, self.cache.file(one.content)))
        return True

    def close(self) -> bool:
        if self.files:
            self.files.pop(self.chance.randrange(len(self.files)))[1].close()
            return True
        return False

    def store(self) -> bool:
        return any(one.store(file) for one, file in self.chance.sample(self.files, min(1, len(self.files))))

    def read(self) -> bool:
        for one, file in self.chance.sample(self.files, min(1, len(self.files))):
            first = self.chance.randrange(one.content.blocks)
            return one.holds(file, first, self.chance.randrange(first, one.content.blocks) + 1)
        return False

    def evict(self) -> bool:
        return any(file.evict() for _, file in self.chance.sample(self.files, min(1, len(self.files))))

    def lend(self) -> bool:
        for one, file in self.chance.sample(self.files, min(1, len(self.files))):
            lent = file.lend()
            if lent is not None:
                self.lents.append((one, lent))
                return True
        return False

    def give_back(self) -> bool:
        if self.lents:
            self.lents.pop(self.chance.randrange(len(self.lents)))[1].close()
            return True
        return False

    def map(self) -> bool:
        for one, lent in self.chance.sample(self.lents, min(1, len(self.lents))):
            self.maps.append((one, mmap.mmap(lent.fd, one.content.size, prot=mmap.PROT_READ)))
            return True
        return False

    def unmap(self) -> bool:
        if self.maps:
            self.maps.pop(self.chance.randrange(len(self.maps)))[1].close()
            return True
        return False


def check_all_can_go(cache: DiskCache, folder: Path) -> None:
    for one in SAMPLES:
        file = cache.file(one.content)
        cache.settle()
        file.evict()
        assert file.present_bytes() == 0
        file.close()
    cache.settle()
    cache.check()
    statistics = cache.statistics()
    assert (statistics.used_bytes, statistics.files, disk_bytes(folder)) == (0, 0, 0)
    assert (statistics.corrupt_blocks, statistics.read_errors, statistics.write_errors) == (0, 0, 0)


@pytest.mark.parametrize("punches", [True, False])
@pytest.mark.parametrize("seed", range(5))
def test_in_any_order(tmp_path: Path, seed: int, punches: bool) -> None:
    cache = cache_in(tmp_path, punches=punches)
    hands = Hands(cache, seed)
    for steps in range(3000):
        if steps >= 300 and hands.has_done_everything():
            break
        hands.step()
        hands.compare()
        cache.check()
        assert disk_bytes(tmp_path) <= cache.statistics().used_bytes + METADATA_SLACK
        if hands.chance.random() < 0.02:
            # A daemon that ends, by whatever means; what others have in hand stays in their hands.
            cache.close()
            hands.files.clear()
            hands.cache = cache = cache_in(tmp_path, punches=punches)
            hands.did["restart"] += 1
    assert hands.has_done_everything(), hands.did
    hands.let_go()
    check_all_can_go(cache, tmp_path)
    cache.close()


def hammer(cache: DiskCache, folder: Path, *, steps: int) -> None:
    """Six at once, with one more who watches the limit by our count and by the disk's."""
    hands = [Hands(cache, seed) for seed in range(6)]
    playing = len(hands)
    lock = threading.Lock()

    def play(one: Hands) -> None:
        nonlocal playing
        try:
            for _ in range(steps):
                one.step()
                one.compare()
            one.let_go()
        finally:
            with lock:
                playing -= 1

    def watch() -> None:
        while playing:
            cache.check()
            with cache._books.changed:
                assert disk_bytes(folder) <= cache._books.used_bytes + METADATA_SLACK

    run_threads(*[lambda one=one: play(one) for one in hands], watch)
    did = sum((one.did for one in hands), Counter())
    assert all(did[what] for what in ("store", "lend", "map", "give back", "evict")), did
    assert cache.statistics().evicted_bytes
    check_all_can_go(cache, folder)


@pytest.mark.parametrize("punches", [True, False])
def test_all_at_once(tmp_path: Path, punches: bool) -> None:
    cache = cache_in(tmp_path, punches=punches, threads=3)
    hammer(cache, tmp_path, steps=120)
    cache.close()


@pytest.mark.skipif(os.geteuid() != 0, reason="mounts")
def test_all_at_once_on_a_disk_without_holes(ramfs: Path) -> None:
    cache = DiskCache.open(ramfs, limit_bytes=LIMIT, clock=Ticking(), threads=0, health=NEVER_HANGS)
    assert not cache._medium.punches
    hammer(cache, ramfs, steps=80)
    cache.close()


def test_a_lent_file_beside_busy_writers(tmp_path: Path) -> None:
    """One file in hand all the time; the others come and go in what room there is besides."""
    cache = cache_in(tmp_path, punches=True)
    one = SAMPLES[0]
    file = cache.file(one.content)
    assert one.store(file)
    lent = file.lend()
    assert lent is not None
    writers = threading.Semaphore(0)

    def write(seed: int) -> None:
        chance = random.Random(seed)
        try:
            for _ in range(100):
                other = chance.choice(SAMPLES[1:])
                there = cache.file(other.content)
                other.store(there)
                there.close()
        finally:
            writers.release()

    def compare() -> None:
        ended = 0
        while ended < 3:
            assert os.pread(lent.fd, one.content.size, 0) == one.plain
            cache.check()
            ended += writers.acquire(blocking=False)

    run_threads(*[lambda seed=seed: write(seed) for seed in range(3)], compare)
    assert cache.statistics().evicted_bytes
    assert file.evict() == 0
    lent.close()
    file.close()
    check_all_can_go(cache, tmp_path)
    cache.close()
