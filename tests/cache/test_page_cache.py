"""What passes through the disk cache does not stay in the page cache: the mounted file has its pages there."""

import ctypes
import mmap
import random
import subprocess
from pathlib import Path

import numpy as np
import pytest

from shardfs.cache import CacheFile
from tests.cache.samples import MIB, Sample, data_path, open_cache, sample

_libc = ctypes.CDLL(None)
READ_AHEAD_BYTES = 12 * MIB


def resident_bytes(path: Path) -> int:
    with path.open("rb") as file, mmap.mmap(file.fileno(), 0, prot=mmap.PROT_READ) as mapped:
        view = np.frombuffer(mapped, dtype=np.uint8)
        pages = np.zeros(-(-len(view) // mmap.PAGESIZE), dtype=np.uint8)
        address, into = ctypes.c_void_p(view.ctypes.data), ctypes.c_void_p(pages.ctypes.data)
        assert _libc.mincore(address, ctypes.c_size_t(len(view)), into) == 0
        del view
        return int(np.count_nonzero(pages & 1)) * mmap.PAGESIZE


def kind_of(folder: Path) -> str:
    return subprocess.run(["stat", "-f", "-c", "%T", folder], check=True, capture_output=True, text=True).stdout.strip()


def read_all(one: Sample, file: CacheFile, step: int, *, shuffled: bool) -> None:
    firsts = list(range(0, one.content.blocks, step))
    if shuffled:
        random.Random(3).shuffle(firsts)
    for first in firsts:
        assert one.holds(file, first, min(first + step, one.content.blocks))


@pytest.mark.parametrize("step", [1, 4, 16])
@pytest.mark.parametrize("shuffled", [False, True])
def test_pages_are_dropped(tmp_path: Path, step: int, shuffled: bool) -> None:
    one = sample(1, 64 * MIB + 5, block_size=256 * 1024)
    cache = open_cache(tmp_path, 256 * MIB)
    file = cache.file(one.content)
    if not cache._medium.direct or kind_of(tmp_path) in {"tmpfs", "ramfs"}:
        pytest.skip("needs a disk with direct IO")
    for first in range(0, one.content.blocks, 16):
        assert one.store(file, first, min(first + 16, one.content.blocks))
    path = data_path(tmp_path, one.content)
    assert resident_bytes(path) <= MIB
    read_all(one, file, step, shuffled=shuffled)
    assert resident_bytes(path) <= READ_AHEAD_BYTES
    cache.close()
