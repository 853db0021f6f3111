"""A chunk as stored: a header that its name verifies, then blocks that the header verifies.

    offset  size  field
    0       4     magic "SHFC"
    4       1     version, 1
    5       1     codec of the blocks: 0 = raw, 1 = external
    6       2     zero
    8       4     block size in bytes, little endian (all fields are)
    12      4     plain size in bytes: the span of the file that this chunk holds
    16      36*n  per block: stored size (u32), BLAKE3-256 of the plain bytes (32)
    16+36*n       the stored blocks, one after the other

n = ceil(plain size / block size); each block but the last has `block size` plain bytes. The chunk's name is
the BLAKE3-256 of the domain tag, block size, plain size and the plain digests of its blocks. So the name
verifies the header, the header verifies each block as soon as that block is there, and equal content
has one name whatever codec stored it (a Merkle tree of depth two, as in BLAKE3 and BitTorrent v2).

With codec 1 a pointer stands in the place of the blocks (`shardfs.core.pointer`): the plain bytes are a span of an
object that was there before. The header is the one that a raw copy would have, but for the codec.
"""

import struct
from dataclasses import dataclass, replace

from blake3 import blake3

from shardfs.core.digest import DIGEST_BYTES, Bytes, Digest, digest_of
from shardfs.core.pointer import POINTER_BYTES_MAX, Pointer, decode_pointer
from shardfs.errors import InvalidFormat

BLOCK_SIZE = 256 * 1024
BLOCK_SIZE_MIN = 4 * 1024
BLOCK_SIZE_MAX = 4 * 1024 * 1024
CHUNK_SIZE = 4 * 1024 * 1024
CHUNK_SIZE_MAX = 64 * 1024 * 1024
RAW, EXTERNAL = 0, 1

_MAGIC, _VERSION = b"SHFC", 1
_HEAD = struct.Struct("<4sBBHII")
_ENTRY = struct.Struct(f"<I{DIGEST_BYTES}s")
_DOMAIN = b"shardfs chunk 1\0"


@dataclass(frozen=True, slots=True)
class ChunkHeader:
    """A verified header. `digests` are the plain digests of the blocks, packed, 32 bytes each."""

    codec: int
    block_size: int
    plain_size: int
    stored_sizes: tuple[int, ...]
    digests: bytes

    @property
    def blocks(self) -> int:
        return len(self.stored_sizes)

    @property
    def size(self) -> int:
        """Bytes of the encoded header."""
        return header_size(self.plain_size, self.block_size)

    @property
    def stored_size(self) -> int:
        """Bytes of header and stored blocks: the whole object, unless the blocks are external."""
        return self.size + sum(self.stored_sizes)

    def as_external(self) -> "ChunkHeader":
        """The same chunk's header in an object with a pointer instead of blocks."""
        return replace(self, codec=EXTERNAL)

    def block_digest(self, block: int) -> bytes:
        return self.digests[block * DIGEST_BYTES : (block + 1) * DIGEST_BYTES]

    def block_range(self, first: int, end: int) -> tuple[int, int]:
        """Start and end, in the stored object, of the stored bytes of blocks [first, end)."""
        start = self.size + sum(self.stored_sizes[:first])
        return start, start + sum(self.stored_sizes[first:end])

    def encode(self) -> bytes:
        head = [_HEAD.pack(_MAGIC, _VERSION, self.codec, 0, self.block_size, self.plain_size)]
        head += (_ENTRY.pack(stored, self.block_digest(block)) for block, stored in enumerate(self.stored_sizes))
        return b"".join(head)


def block_count(plain_size: int, block_size: int) -> int:
    return -(-plain_size // block_size)


def block_length(plain_size: int, block_size: int, block: int) -> int:
    """Plain bytes of `block`, counted from 0."""
    return min(block_size, plain_size - block * block_size)


def header_size(plain_size: int, block_size: int) -> int:
    """Bytes of the header of a chunk, known before anything is fetched."""
    return _HEAD.size + _ENTRY.size * block_count(plain_size, block_size)


def chunk_digest(block_size: int, plain_size: int, digests: Bytes) -> Digest:
    """The name of a chunk from the packed plain digests of its blocks."""
    hasher = blake3(_DOMAIN)
    hasher.update(struct.pack("<II", block_size, plain_size))
    hasher.update(digests)
    return Digest(hasher.digest())


def make_header(plain: Bytes, block_size: int = BLOCK_SIZE) -> tuple[Digest, ChunkHeader]:
    """Name and raw header of the chunk that holds `plain` (1 byte to CHUNK_SIZE_MAX)."""
    view = memoryview(plain)
    size = len(view)
    if not 0 < size <= CHUNK_SIZE_MAX:
        raise ValueError(f"a chunk holds 1 to {CHUNK_SIZE_MAX} bytes, not {size}")
    lengths = tuple(block_length(size, block_size, b) for b in range(block_count(size, block_size)))
    digests = b"".join(digest_of(view[b * block_size : b * block_size + length]) for b, length in enumerate(lengths))
    return chunk_digest(block_size, size, digests), ChunkHeader(RAW, block_size, size, lengths, digests)


def parse_header(data: Bytes, name: Digest, plain_size: int | None = None) -> ChunkHeader:
    """The header at the start of `data`, verified against the chunk's name.

    `plain_size` is what the manifest says, where the caller knows it. Raises InvalidFormat for
    anything that is not a complete header of exactly this chunk; declared sizes are bounded before use.
    """
    if len(data) < _HEAD.size:
        raise InvalidFormat(f"chunk {name}: {len(data)} bytes are no header")
    magic, version, codec, zero, block_size, size = _HEAD.unpack_from(data)
    if magic != _MAGIC or zero != 0:
        raise InvalidFormat(f"chunk {name}: not a shardfs chunk")
    if version != _VERSION:
        raise InvalidFormat(f"chunk {name}: format version {version} is newer than this program")
    if codec not in (RAW, EXTERNAL):
        raise InvalidFormat(f"chunk {name}: unknown codec {codec}")
    if not BLOCK_SIZE_MIN <= block_size <= BLOCK_SIZE_MAX or not 0 < size <= CHUNK_SIZE_MAX:
        raise InvalidFormat(f"chunk {name}: block size {block_size} or size {size} out of range")
    if plain_size is not None and size != plain_size:
        raise InvalidFormat(f"chunk {name}: holds {size} bytes, expected {plain_size}")
    count = block_count(size, block_size)
    end = _HEAD.size + count * _ENTRY.size
    if len(data) < end:
        raise InvalidFormat(f"chunk {name}: header cut short")
    stored, digests = zip(*_ENTRY.iter_unpack(memoryview(data)[_HEAD.size : end]), strict=True)
    packed = b"".join(digests)
    if chunk_digest(block_size, size, packed) != name:
        raise InvalidFormat(f"chunk {name}: header does not match the name")
    if stored != (block_size,) * (count - 1) + (block_length(size, block_size, count - 1),):
        raise InvalidFormat(f"chunk {name}: stored sizes do not fit the codec")
    return ChunkHeader(codec, block_size, size, stored, packed)


def matching_until(header: ChunkHeader, first: int, end: int, plain: memoryview) -> int:
    """The first block of [first, end) that is not what the header says, else `end`; `plain` is their plain bytes.

    Runs for every 256 KiB that are received: the comparison is of plain bytes, without a `Digest` for each.
    """
    size, digests = header.block_size, header.digests
    for block in range(first, end):
        at = (block - first) * size
        name = digests[block * DIGEST_BYTES : (block + 1) * DIGEST_BYTES]
        if blake3(plain[at : at + size]).digest() != name:
            return block
    return end


def head_size_max(plain_size: int, block_size: int) -> int:
    """Bytes that surely hold the header and, of an external chunk, the pointer."""
    return header_size(plain_size, block_size) + POINTER_BYTES_MAX


def parse_pointer(header: ChunkHeader, data: Bytes, name: Digest) -> Pointer:
    """The pointer in the whole external chunk `data`, which begins with `header`; InvalidFormat."""
    try:
        return decode_pointer(memoryview(data)[header.size :], header.plain_size)
    except InvalidFormat as error:
        raise InvalidFormat(f"chunk {name}: {error}") from None


def verify_chunk(data: Bytes, name: Digest) -> ChunkHeader:
    """Check a whole stored chunk, byte for byte; InvalidFormat names what is wrong.

    Of an external one that is the header and the form of the pointer: where it leads nobody can know here.
    """
    header = parse_header(data, name)
    view = memoryview(data)
    if header.codec == EXTERNAL:
        parse_pointer(header, data, name)
        return header
    if len(view) != header.stored_size:
        raise InvalidFormat(f"chunk {name}: {len(view)} bytes instead of {header.stored_size}")
    good = matching_until(header, 0, header.blocks, view[header.size :])
    if good < header.blocks:
        raise InvalidFormat(f"chunk {name}: block {good} does not match its digest")
    return header
