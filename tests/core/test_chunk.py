"""The chunk format: the name verifies the header, the header verifies each block, nothing else gets through."""

import contextlib
import random
import struct
import tracemalloc

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from shardfs.core.chunk import (
    BLOCK_SIZE,
    BLOCK_SIZE_MIN,
    CHUNK_SIZE_MAX,
    block_count,
    block_length,
    chunk_digest,
    header_size,
    make_header,
    matching_until,
    parse_header,
    verify_chunk,
)
from shardfs.core.digest import Digest, digest_of
from shardfs.core.keys import chunk_key
from shardfs.core.objects import size_limit, verify_object
from shardfs.errors import InvalidFormat

BLOCK = BLOCK_SIZE_MIN


def matches(header, block: int, plain: bytes) -> bool:
    return matching_until(header, block, block + 1, memoryview(plain)) == block + 1


sizes = st.sampled_from([1, BLOCK - 1, BLOCK, BLOCK + 1, 3 * BLOCK, 5 * BLOCK + 77]) | st.integers(1, 6 * BLOCK)


def stored(plain: bytes, block_size: int = BLOCK) -> tuple[Digest, bytes]:
    name, header = make_header(plain, block_size)
    return name, header.encode() + plain


@given(sizes, st.integers(0, 2**32))
@settings(max_examples=60)
def test_roundtrip(size, seed):
    plain = random.Random(seed).randbytes(size)
    name, data = stored(plain)
    header = verify_chunk(data, name)
    assert header.plain_size == size
    assert header.blocks == block_count(size, BLOCK)
    assert header.size == header_size(size, BLOCK) == len(data) - size
    assert header.stored_size == len(data)
    assert header.encode() == data[: header.size]
    pieces = []
    for block in range(header.blocks):
        start, end = header.block_range(block, block + 1)
        assert end - start == block_length(size, BLOCK, block)
        assert matches(header, block, data[start:end])
        pieces.append(data[start:end])
    assert b"".join(pieces) == plain
    assert header.block_range(0, header.blocks) == (header.size, len(data))
    assert parse_header(memoryview(data), name, size) == header
    verify_object(chunk_key(name), data)
    assert len(data) <= size_limit(chunk_key(name))


def test_the_name_depends_on_content_and_sizes_only():
    plain = bytes(3 * BLOCK)
    names = {stored(plain)[0], stored(plain, 2 * BLOCK)[0], stored(plain[:-1])[0], stored(plain[:-1] + b"x")[0]}
    assert len(names) == 4
    assert stored(plain)[0] == stored(bytearray(plain))[0]


def test_every_flipped_bit_of_the_header_is_refused():
    name, data = stored(random.Random(1).randbytes(3 * BLOCK + 5))
    size = header_size(3 * BLOCK + 5, BLOCK)
    for at in range(size):
        for bit in range(8):
            bad = bytearray(data)
            bad[at] ^= 1 << bit
            if (at, bit) == (5, 0):  # the other codec, of which only the whole object tells
                parse_header(bad, name)
            else:
                with pytest.raises(InvalidFormat):
                    parse_header(bad, name)
            with pytest.raises(InvalidFormat):
                verify_chunk(bad, name)


def test_every_truncation_is_refused():
    name, data = stored(random.Random(2).randbytes(BLOCK + 9))
    size = header_size(BLOCK + 9, BLOCK)
    for length in [*range(size + 2), *range(size, len(data), 61), len(data) - 1]:
        if length < size:
            with pytest.raises(InvalidFormat):
                parse_header(data[:length], name)
        with pytest.raises(InvalidFormat):
            verify_chunk(data[:length], name)
    with pytest.raises(InvalidFormat, match="instead of"):
        verify_chunk(data + b"x", name)


@given(st.integers(0, 3 * BLOCK + 4), st.integers(0, 7))
@settings(max_examples=40)
def test_every_flipped_bit_of_a_block_is_refused(at, bit):
    name, data = stored(random.Random(3).randbytes(3 * BLOCK + 5))
    bad = bytearray(data)
    bad[header_size(3 * BLOCK + 5, BLOCK) + at] ^= 1 << bit
    with pytest.raises(InvalidFormat, match=f"block {at // BLOCK} "):
        verify_chunk(bad, name)
    parse_header(bad, name)  # the header is still right


def test_blocks_of_another_place_do_not_verify():
    plain = random.Random(4).randbytes(3 * BLOCK)
    _, header = make_header(plain, BLOCK)
    for block in range(3):
        for other in range(3):
            assert matches(header, block, plain[other * BLOCK : (other + 1) * BLOCK]) == (block == other)
    assert not matches(header, 3, b"")
    assert not matches(header, 10**9, plain[:BLOCK])
    assert not matches(header, 0, b"")


def test_the_first_block_that_does_not_match_ends_it():
    plain = bytearray(random.Random(5).randbytes(4 * BLOCK - 7))
    _, header = make_header(bytes(plain), BLOCK)
    assert matching_until(header, 0, 4, memoryview(plain)) == 4
    assert matching_until(header, 1, 4, memoryview(plain)[BLOCK:]) == 4
    assert matching_until(header, 2, 2, memoryview(b"")) == 2
    plain[2 * BLOCK] ^= 1
    assert matching_until(header, 0, 4, memoryview(plain)) == 2
    assert matching_until(header, 3, 4, memoryview(plain)[3 * BLOCK :]) == 4


def forged(
    block_size: int, size: int, *, codec: int = 0, version: int = 1, sizes: list[int] | None = None
) -> tuple[Digest, bytes]:
    """A header whose name is right and whose fields lie."""
    count = min(block_count(size, block_size) if block_size else 0, 2000)
    digests = b"".join(digest_of(bytes([i % 256])) for i in range(count))
    name = chunk_digest(block_size, size, digests)
    lengths = sizes if sizes is not None else [max(0, block_length(size, block_size, b)) % 2**32 for b in range(count)]
    entries = b"".join(struct.pack("<I", lengths[b]) + digests[b * 32 : b * 32 + 32] for b in range(count))
    return name, struct.pack("<4sBBHII", b"SHFC", version, codec, 0, block_size, size) + entries


@pytest.mark.parametrize(
    ("block_size", "size"),
    [
        (BLOCK, 0),
        (0, BLOCK),
        (1, 1),
        (BLOCK - 1, BLOCK),
        (2**32 - 1, 2**32 - 1),
        (BLOCK, 2**32 - 1),
        (2**31, 10),
        (BLOCK, CHUNK_SIZE_MAX + 1),
    ],
)
def test_sizes_out_of_range_are_refused_though_the_name_is_right(block_size, size):
    name, data = forged(block_size, size)
    with pytest.raises(InvalidFormat, match="out of range"):
        parse_header(data, name)


def test_what_the_name_says_nothing_about_is_refused_too():
    name, data = forged(BLOCK, 2 * BLOCK)
    parse_header(data, name)
    for codec, version, lengths in [
        (2, 1, None),
        (255, 1, None),
        (0, 2, None),
        (0, 0, None),
        (0, 1, [BLOCK, BLOCK - 1]),
        (0, 1, [2**32 - 1, 0]),
    ]:
        name, data = forged(BLOCK, 2 * BLOCK, codec=codec, version=version, sizes=lengths)
        with pytest.raises(InvalidFormat):
            parse_header(data, name)
    name, data = forged(BLOCK, 2 * BLOCK)
    with pytest.raises(InvalidFormat, match="expected"):
        parse_header(data, name, 2 * BLOCK + 1)


def test_nothing_is_allocated_from_a_declared_size():
    name, data = forged(BLOCK, CHUNK_SIZE_MAX)
    tracemalloc.start()
    with pytest.raises(InvalidFormat):
        parse_header(data[:100], name)
    assert tracemalloc.get_traced_memory()[1] < 20_000
    tracemalloc.stop()


NAME, VALID = stored(random.Random(5).randbytes(2 * BLOCK + 3))


@given(st.binary(max_size=200), st.none() | st.integers(0, 2**33))
def test_arbitrary_bytes_raise_nothing_else(data, plain_size):
    for candidate in (data, b"SHFC\1\0\0\0" + data, VALID[: len(data)] + data):
        with contextlib.suppress(InvalidFormat):
            parse_header(candidate, NAME, plain_size)
        with pytest.raises(InvalidFormat):
            verify_chunk(candidate, NAME)


@given(
    st.lists(st.tuples(st.integers(0, len(VALID) - 1), st.integers(0, 255)), min_size=1, max_size=5),
    st.integers(0, len(VALID)),
)
def test_mutations_raise_nothing_else(changes, cut):
    bad = bytearray(VALID)
    for at, value in changes:
        bad[at] = value
    del bad[cut:]
    if bytes(bad) != VALID:
        with pytest.raises(InvalidFormat):
            verify_chunk(bad, NAME)


@pytest.mark.parametrize("size", [0, CHUNK_SIZE_MAX + 1])
def test_chunks_that_cannot_be(size):
    with pytest.raises(ValueError, match="a chunk holds"):
        make_header(memoryview(bytearray(size)), BLOCK_SIZE)
