"""What lies in a cache folder at the start, brought in order: whole and plausible, or deleted.

A file is kept when its map has a whole header of just this name, map and data have exactly the lengths that follow
from it, and at least one block is there. Bytes are not read: each block is verified when somebody reads it. Space that
no word speaks of (a crash came between data and word, or between clearing and freeing) is given back.
"""

import os
import stat
from collections.abc import Callable, Iterator
from contextlib import nullcontext, suppress
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from shardfs.cache.block_map import HEADER_BYTES, Content, granule_charges, parse_header, runs
from shardfs.cache.folder import CacheFolder
from shardfs.cache.holes import PAGE_BYTES
from shardfs.cache.stored import StoredFile
from shardfs.core.digest import Digest
from shardfs.errors import InvalidFormat

_METADATA_BYTES_MAX = 64 * PAGE_BYTES
"""What a filesystem may need beside the data; only for those without hole punching, where an excess costs the file."""


@dataclass(frozen=True, slots=True)
class Found:
    """A file to take over: `charges` are the bytes of disk of each granule, `whole` says that no block is absent."""

    stored: StoredFile
    charges: npt.NDArray[np.int64]
    whole: bool


def scan(folder: CacheFolder, make: Callable[[Content], StoredFile]) -> Iterator[Found]:
    """All files worth keeping, the least recently used first. OSError when the folder cannot be listed."""
    found: list[Found] = []
    for digest in folder.pairs():
        kept = None
        with suppress(OSError, InvalidFormat, MemoryError):  # doubtful: deleted below
            kept = _recover(folder, digest, make)
        if kept is None:
            for kind in ("map", "data"):
                folder.file(digest, kind).unlink(missing_ok=True)
        else:
            found.append(kept)
    yield from sorted(found, key=lambda item: item.stored.used_ns)


def _recover(folder: CacheFolder, digest: Digest, make: Callable[[Content], StoredFile]) -> Found | None:
    with folder.file(digest, "map").open("rb") as file:
        content = parse_header(file.read(HEADER_BYTES), digest)
        mtime_ns = os.fstat(file.fileno()).st_mtime_ns
    data = folder.file(digest, "data").lstat()
    if not stat.S_ISREG(data.st_mode) or data.st_size != content.size:
        return None
    stored = make(content)
    stored.adopt(mtime_ns, data.st_ino)
    stored.load()
    words = stored.presence.words
    if words is None or not words.any():
        return None
    present = words != 0
    charges = granule_charges(content, present, stored.granule_blocks)
    excess = data.st_blocks * 512 - int(charges.sum())
    if excess > 0 and stored.punches:
        for first, end in runs(~present):
            stored.free(first, end)
    elif excess > _METADATA_BYTES_MAX:
        return None
    stored.unload(nullcontext(), lambda: True)  # nobody else has it yet
    return Found(stored, charges, bool(present.all()))
