"""Pointers of external chunks: what is written is read, and nothing else is."""

import contextlib
import random

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from shardfs.core.chunk import EXTERNAL, head_size_max, make_header, parse_pointer, verify_chunk
from shardfs.core.keys import chunk_key
from shardfs.core.objects import verify_object
from shardfs.core.pointer import OBJECT_BYTES_MAX, POINTER_BYTES_MAX, Pointer, decode_pointer, make_pointer
from shardfs.errors import InvalidFormat, InvalidName

PLAIN = random.Random(1).randbytes(3 * 4096 + 5)
NAME, HEADER = make_header(PLAIN, 4096)
GOOD = Pointer("s3", "llama/model.safetensors", 4096, 10**9, '"5d41402abc4b2a76b9719d911017c592"')
DATA = HEADER.as_external().encode() + GOOD.encode()


def test_an_external_chunk_has_the_name_of_the_raw_one():
    assert HEADER.as_external().codec == EXTERNAL
    header = verify_chunk(DATA, NAME)
    assert header == HEADER.as_external()
    assert parse_pointer(header, DATA, NAME) == GOOD
    verify_object(chunk_key(NAME), DATA)
    assert len(DATA) < head_size_max(len(PLAIN), 4096)


def test_every_truncation_and_every_addition_is_refused():
    for length in range(len(DATA)):
        with pytest.raises(InvalidFormat):
            verify_chunk(DATA[:length], NAME)
    for more in (b"\0", b"\xc0", GOOD.encode(), bytes(POINTER_BYTES_MAX)):
        with pytest.raises(InvalidFormat):
            verify_chunk(DATA + more, NAME)


def test_a_raw_chunk_whose_codec_says_external_is_refused():
    with pytest.raises(InvalidFormat, match="pointer"):
        verify_chunk(HEADER.as_external().encode() + PLAIN, NAME)
    with pytest.raises(InvalidFormat):
        verify_chunk(HEADER.encode() + GOOD.encode(), NAME)


HOSTILE = [
    ["../x", "a", 0, len(PLAIN), ""],
    ["", "a", 0, len(PLAIN), ""],
    ["n" * 65, "a", 0, len(PLAIN), ""],
    ["n", "", 0, len(PLAIN), ""],
    ["n", "/etc/passwd", 0, len(PLAIN), ""],
    ["n", "a/../../b", 0, len(PLAIN), ""],
    ["n", "a//b", 0, len(PLAIN), ""],
    ["n", "a\0b", 0, len(PLAIN), ""],
    ["n", "a\\b", 0, len(PLAIN), ""],
    ["n", "a\r\nHost: x", 0, len(PLAIN), ""],
    ["n", "x" * 256, 0, len(PLAIN), ""],
    ["n", "/".join("x" * 65), 0, len(PLAIN), ""],
    ["n", "a", -1, len(PLAIN), ""],
    ["n", "a", 0, len(PLAIN) - 1, ""],
    ["n", "a", 1, len(PLAIN), ""],
    ["n", "a", 2**63, 2**64 - 1, ""],
    ["n", "a", 0, OBJECT_BYTES_MAX + 1, ""],
    ["n", "a", 0, -1, ""],
    ["n", "a", 0.0, len(PLAIN), ""],
    ["n", "a", True, len(PLAIN), ""],
    ["n", "a", "0", len(PLAIN), ""],
    ["n", "a", 0, len(PLAIN), "x" * 513],
    ["n", "a", 0, len(PLAIN), "a\nb"],
    ["n", "a", 0, len(PLAIN), None],
    ["n", "a", 0, len(PLAIN)],
    ["n", "a", 0, len(PLAIN), "", ""],
    {"node": "n"},
    [],
    None,
    [[[[[]]]]],
]


@pytest.mark.parametrize("fields", HOSTILE, ids=lambda fields: repr(fields)[:50])
def test_hostile_pointers_are_refused(fields):
    data = msgspec.msgpack.encode(fields)
    with pytest.raises(InvalidFormat):
        decode_pointer(data, len(PLAIN))
    with pytest.raises(InvalidFormat):
        verify_chunk(HEADER.as_external().encode() + data, NAME)


@pytest.mark.parametrize(
    "data",
    [
        b"\x95\xd9\x01n\xa1a\x00\xcd\x30\x05\xa0",  # a string longer than need be
        b"\x95\xa1n\xa1a\x00\xce\x00\x00\x30\x05\xa0",  # so is a number
        b"\xdc\x00\x05\xa1n\xa1a\x00\xcd\x30\x05\xa0",  # and the array
        b"\x95\xa1n\xa1\xff\x00\xcd\x30\x05\xa0",  # not UTF-8
        b"\x91" * 5000,  # deep
        b"\x95\xdb\xff\xff\xff\xff",  # a length that is not there
    ],
)
def test_other_encodings_are_refused(data):
    assert decode_pointer(b"\x95\xa1n\xa1a\x00\xcd\x30\x05\xa0", len(PLAIN)) == Pointer("n", "a", 0, len(PLAIN), "")
    with pytest.raises(InvalidFormat):
        decode_pointer(data, len(PLAIN))


def test_a_pointer_is_shorter_than_what_it_stands_for():
    pointer = Pointer("n", "a", 0, 100, "")
    size = len(pointer.encode())
    assert decode_pointer(pointer.encode(), size + 1) == pointer
    with pytest.raises(InvalidFormat, match=f"{size} bytes for a chunk of {size}"):
        decode_pointer(pointer.encode(), size)


def test_the_longest_pointer_there_can_be_fits():
    path = "/".join(["é" * 126] * 15)
    long = make_pointer("n" * 64, path, 2**62 - 10, size=2**62, tag="é" * 512, length=10)
    assert len(long.encode()) <= POINTER_BYTES_MAX


@given(
    st.from_regex(r"[A-Za-z0-9][A-Za-z0-9._-]{0,63}", fullmatch=True),
    st.text(min_size=1, max_size=60),
    st.integers(-5, 2**62),
    st.integers(-5, 2**62 + 5),
    st.text(max_size=40),
    st.integers(1, 2**26),
)
def test_what_can_be_made_can_be_read(node, path, offset, size, tag, length):
    try:
        pointer = make_pointer(node, path, offset, size=size, tag=tag, length=length)
    except (InvalidFormat, InvalidName):
        return
    assert 0 <= pointer.offset <= pointer.size - length
    data = pointer.encode()
    if len(data) < length:
        assert decode_pointer(data, length) == pointer


@given(st.binary(max_size=300), st.integers(0, 2**30))
def test_arbitrary_bytes_raise_nothing_else(data, length):
    for candidate in (data, GOOD.encode()[: len(data)] + data, b"\x95" + data):
        with contextlib.suppress(InvalidFormat):
            decode_pointer(candidate, length)


@given(
    st.lists(st.tuples(st.integers(HEADER.size, len(DATA) - 1), st.integers(0, 255)), min_size=1, max_size=4),
)
def test_mutations_are_refused_or_well_formed(changes):
    bad = bytearray(DATA)
    for at, value in changes:
        bad[at] = value
    try:
        header = verify_chunk(bad, NAME)
    except InvalidFormat:
        return
    pointer = parse_pointer(header, bad, NAME)
    assert pointer.encode() == bad[header.size :]
    assert 0 <= pointer.offset <= pointer.size - len(PLAIN)
