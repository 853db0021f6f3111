"""The map of a cache file: which blocks of the data file are there, and what each must hash to.

    offset  size   field (little endian)
    0       8      magic "SHFSMAP1"
    8       4      block size in bytes
    12      4      zero
    16      32     digest of the file content, the same as in the name
    48      8      size of the file content in bytes
    56      8      number of blocks
    64      8      XXH3-64 of bytes 0 to 63
    4096    8*n    per block: 0 = absent, else XXH3-64 of its plain bytes (a hash of 0 is stored as 1)

One word says presence and checksum at once and is written after the data: a crash in between leaves an absent
block, and a word that survived a power failure which its data did not fails verification. XXH3 is no
proof against an attacker with access to the folder; the folder is 0700 for that.

Reading and writing go through `pread`/`pwrite` and an array in memory, not `mmap`: a mapped hole on a full or failing
disk is SIGBUS for the whole daemon.
"""

import errno
import os
import struct
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
import xxhash

from shardfs.cache.holes import PAGE_BYTES, read_full, round_up
from shardfs.core.digest import Bytes, Digest
from shardfs.errors import InvalidFormat

HEADER_BYTES = 4096
WORD_BYTES = 8
BLOCKS_MAX = 2**24
"""The largest file that is cached: 4 TiB of 256 KiB blocks, whose map takes 128 MiB."""
_HEAD = struct.Struct("<8sII32sQQ")
_CHECK = struct.Struct("<Q")
_MAGIC = b"SHFSMAP1"

Words = npt.NDArray[np.uint64]
Flags = npt.NDArray[np.bool_]


@dataclass(frozen=True, slots=True)
class Content:
    """What one cache file holds. `digest` identifies the file content; sizes are bytes."""

    digest: Digest
    size: int
    block_size: int

    def __post_init__(self) -> None:
        if self.size < 0 or self.block_size < 1:
            raise ValueError(f"content {self.digest}: size {self.size}, block size {self.block_size}")

    @property
    def blocks(self) -> int:
        return -(-self.size // self.block_size)

    @property
    def cacheable(self) -> bool:
        """Whether blocks begin on page boundaries, which alone can be given back one by one."""
        return 0 < self.blocks <= BLOCKS_MAX and self.block_size > 0 and self.block_size % PAGE_BYTES == 0

    @property
    def map_bytes(self) -> int:
        return HEADER_BYTES + WORD_BYTES * self.blocks

    @property
    def map_charge(self) -> int:
        """Bytes of disk that the map may come to need."""
        return round_up(self.map_bytes)

    def length(self, first: int, end: int) -> int:
        """Bytes of blocks [first, end)."""
        return min(end * self.block_size, self.size) - min(first * self.block_size, self.size)

    def charge(self, first: int, end: int) -> int:
        """Bytes of disk that blocks [first, end) need."""
        return round_up(self.length(first, end))


def encode_header(content: Content) -> bytes:
    """The first `HEADER_BYTES` of a map."""
    head = _HEAD.pack(_MAGIC, content.block_size, 0, content.digest, content.size, content.blocks)
    return (head + _CHECK.pack(xxhash.xxh3_64_intdigest(head))).ljust(HEADER_BYTES, b"\0")


def parse_header(data: Bytes, digest: Digest) -> Content:
    """The content that a map describes; InvalidFormat unless it is a whole header of just `digest`."""
    if len(data) < HEADER_BYTES:
        raise InvalidFormat(f"cache map {digest}: {len(data)} bytes are no header")
    magic, block_size, zero, name, size, blocks = _HEAD.unpack_from(data)
    check = _CHECK.unpack_from(data, _HEAD.size)[0]
    if magic != _MAGIC or zero or not block_size or check != xxhash.xxh3_64_intdigest(bytes(data[: _HEAD.size])):
        raise InvalidFormat(f"cache map {digest}: damaged header")
    content = Content(Digest(name), size, block_size)
    if content.digest != digest or not content.cacheable or content.blocks != blocks:
        raise InvalidFormat(f"cache map {digest}: header describes something else")
    return content


def block_words(plain: memoryview, block_size: int) -> Words:
    """The words of consecutive blocks; the last may be short. Releases the GIL for large blocks."""
    return np.array(
        [xxhash.xxh3_64_intdigest(plain[at : at + block_size]) or 1 for at in range(0, len(plain), block_size)],
        dtype=np.uint64,
    )


def load_words(fd: int, content: Content) -> Words:
    """All words of an open map. Holes of the file stay untouched memory. OSError, InvalidFormat, MemoryError."""
    if os.fstat(fd).st_size != content.map_bytes:
        raise InvalidFormat(f"cache map {content.digest}: wrong length")
    words = np.zeros(content.blocks, dtype="<u8")
    raw = words.view(np.uint8).data
    at = HEADER_BYTES
    while at < content.map_bytes:
        try:
            at = os.lseek(fd, at, os.SEEK_DATA)
            end = os.lseek(fd, at, os.SEEK_HOLE)
        except OSError as error:
            if error.errno == errno.ENXIO:
                break  # nothing but a hole up to the end
            raise
        if not read_full(fd, at, raw[at - HEADER_BYTES : end - HEADER_BYTES]):
            raise InvalidFormat(f"cache map {content.digest}: cut short")
        at = end
    return words.astype(np.uint64, copy=False)


def granule_charges(content: Content, present: Flags, granule_blocks: int) -> npt.NDArray[np.int64]:
    """Bytes of disk that the present blocks of each granule need."""
    padded = np.zeros(-(-content.blocks // granule_blocks) * granule_blocks, dtype=np.bool_)
    padded[: content.blocks] = present
    counts = padded.reshape(-1, granule_blocks).sum(axis=1, dtype=np.int64)
    charges: npt.NDArray[np.int64] = counts * content.block_size
    if present[-1]:
        charges[-1] -= content.blocks * content.block_size - round_up(content.size)
    return charges


def runs(flags: Flags) -> list[tuple[int, int]]:
    """The maximal runs [first, end) of true flags, in order."""
    edges = np.flatnonzero(np.diff(flags.astype(np.int8), prepend=0, append=0))
    return [(int(a), int(b)) for a, b in edges.reshape(-1, 2)]
