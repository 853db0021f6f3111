"""Contents to cache whose every byte is known from a number, and small caches to put them in."""

import gc
import mmap
import os
import random
from dataclasses import dataclass
from pathlib import Path

from shardfs.cache import CacheFile, Content, DiskCache
from shardfs.core.digest import digest_of

KIB, MIB = 1024, 1024 * 1024
BLOCK = 64 * KIB
METADATA_SLACK = 64 * KIB
"""Extent-tree pages, which the filesystem counts with a file that has holes and the cache does not."""


def aligned(size: int) -> memoryview:
    """Zeroed memory that begins on a page, as the callers' buffers do."""
    return memoryview(mmap.mmap(-1, max(size, 1)))[:size]


@dataclass(frozen=True)
class Sample:
    content: Content
    plain: memoryview

    def part(self, first: int, end: int) -> memoryview:
        size = self.content.block_size
        return self.plain[first * size : min(end * size, self.content.size)]

    def store(self, file: CacheFile, first: int = 0, end: int | None = None) -> bool:
        end = self.content.blocks if end is None else end
        return file.write(first, self.part(first, end))

    def holds(self, file: CacheFile, first: int = 0, end: int | None = None) -> bool:
        """Whether the blocks are readable; what is read must be right."""
        end = self.content.blocks if end is None else end
        into = aligned(len(self.part(first, end)))
        if not file.read(first, into):
            return False
        assert into == self.part(first, end), f"wrong bytes in blocks [{first}, {end})"
        return True

    def held(self, file: CacheFile) -> list[int]:
        """The blocks that are readable, each asked for alone."""
        return [block for block in range(self.content.blocks) if self.holds(file, block, block + 1)]


def sample(number: int, size: int, block_size: int = BLOCK) -> Sample:
    """The same number and size give the same bytes everywhere; no two blocks are equal."""
    plain = aligned(size)
    plain[:] = random.Random(f"{number} {size}").randbytes(size)
    return Sample(Content(digest_of(plain), size, block_size), plain)


def data_path(folder: Path, content: Content) -> Path:
    name = str(content.digest)
    return folder / "files" / name[:2] / f"{name}.data"


def map_path(folder: Path, content: Content) -> Path:
    return data_path(folder, content).with_suffix(".map")


def disk_bytes(folder: Path) -> int:
    """What the cache files really take on the disk. Files may come and go meanwhile."""
    total = 0
    for path in (folder / "files").glob("??/*"):
        try:
            total += path.stat().st_blocks * 512
        except FileNotFoundError:
            continue
    return total


def descriptors() -> int:
    """How many this process has. Those of garbage are closed before, and not while somebody compares."""
    gc.collect()
    return len(os.listdir("/proc/self/fd"))


class Clock:
    """Time that stands still until told otherwise."""

    def __init__(self) -> None:
        self.now = 1000.0

    def __call__(self) -> float:
        return self.now


def open_cache(folder: Path, limit_bytes: int = 64 * MIB, clock: Clock | None = None, threads: int = 0) -> DiskCache:
    """One that does what it is asked for before it answers, unless there are threads for that."""
    return DiskCache.open(folder, limit_bytes=limit_bytes, clock=clock or Clock(), threads=threads)
