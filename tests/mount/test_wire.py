"""The messages of /dev/fuse against bytes written by hand from `linux/fuse.h`, 7.40: fields at their offsets."""

import sys
from collections.abc import Mapping

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from shardfs.mount import wire
from shardfs.mount.wire import Offer, Operation

UNHURRIED = settings(deadline=None)
HEAD = 40
"""struct fuse_in_header."""
ROOM = 4096

U16 = st.integers(0, 2**16 - 1)
U32 = st.integers(0, 2**32 - 1)
U64 = st.integers(0, 2**64 - 1)

# Each field of a struct: offset and size in bytes.
IN_HEADER = {
    "len": (0, 4), "opcode": (4, 4), "unique": (8, 8), "nodeid": (16, 8), "uid": (24, 4), "gid": (28, 4),
    "pid": (32, 4), "total_extlen": (36, 2), "padding": (38, 2),
}  # fmt: skip
READ_IN = {
    "fh": (0, 8), "offset": (8, 8), "size": (16, 4), "read_flags": (20, 4), "lock_owner": (24, 8), "flags": (32, 4),
    "padding": (36, 4),
}  # fmt: skip
OPEN_IN = {"flags": (0, 4), "open_flags": (4, 4)}
RELEASE_IN = {"fh": (0, 8), "flags": (8, 4), "release_flags": (12, 4), "lock_owner": (16, 8)}
INIT_IN = {"major": (0, 4), "minor": (4, 4), "max_readahead": (8, 4), "flags": (12, 4), "flags2": (16, 4)}
INIT_OUT = {
    "major": (0, 4), "minor": (4, 4), "max_readahead": (8, 4), "flags": (12, 4), "max_background": (16, 2),
    "congestion_threshold": (18, 2), "max_write": (20, 4), "time_gran": (24, 4), "max_pages": (28, 2),
    "map_alignment": (30, 2), "flags2": (32, 4), "max_stack_depth": (36, 4),
}  # fmt: skip
INIT_OUT_BYTES = 64
OUT_HEADER_BYTES = 16

Layout = Mapping[str, tuple[int, int]]


def number(value: int, size: int) -> bytes:
    return value.to_bytes(size, sys.byteorder)


def fill(message: bytearray, at: int, layout: Layout, values: Mapping[str, int]) -> None:
    for name, value in values.items():
        offset, size = layout[name]
        message[at + offset : at + offset + size] = number(value, size)


def field(message: bytes | bytearray, at: int, layout: Layout, name: str) -> int:
    offset, size = layout[name]
    return int.from_bytes(message[at + offset : at + offset + size], sys.byteorder)


def values_of(layout: Layout) -> st.SearchStrategy[dict[str, int]]:
    by_size = {2: U16, 4: U32, 8: U64}
    return st.fixed_dictionaries({name: by_size[size] for name, (_, size) in layout.items()})


def asked(layout: Layout, values: Mapping[str, int], *, tail: bytes = b"\xee" * 64) -> bytearray:
    """A request as the kernel leaves it in a buffer, with what an earlier one left behind it."""
    message = bytearray(HEAD + max(offset + size for offset, size in layout.values()))
    fill(message, HEAD, layout, values)
    return message + tail


# ----------------------------------------------------------------------------------------------------- requests


@UNHURRIED
@given(values_of(IN_HEADER), st.binary(max_size=100))
def test_the_head_of_a_request(values, rest):
    message = bytearray(HEAD)
    fill(message, 0, IN_HEADER, values)
    assert wire.request(message + rest) == (values["opcode"], values["unique"], values["nodeid"])


def test_the_head_of_a_request_byte_by_byte():
    message = bytes.fromhex(
        "50000000 0f000000 0807060504030201 1817161514131211 e8030000 e9030000 39050000 0000 0000".replace(" ", "")
    )
    if sys.byteorder == "big":
        pytest.skip("left out: written for a machine that keeps the low byte first")
    assert wire.request(message) == (Operation.READ, 0x0102030405060708, 0x1112131415161718)


@UNHURRIED
@given(values_of(READ_IN))
def test_what_a_read_wants(values):
    assert wire.read_wanted(asked(READ_IN, values)) == (values["fh"], values["offset"], values["size"])


@UNHURRIED
@given(values_of(READ_IN), U32)
def test_the_size_of_a_listing_is_limited_and_nothing_else_of_it(values, size_max):
    message = asked(READ_IN, values)
    wire.limit_read(message, size_max)
    assert message == asked(READ_IN, {**values, "size": min(values["size"], size_max)})


@UNHURRIED
@given(values_of(OPEN_IN))
def test_the_flags_of_an_open(values):
    assert wire.open_flags(asked(OPEN_IN, values)) == values["flags"]


@UNHURRIED
@given(values_of(RELEASE_IN))
def test_what_is_released(values):
    assert wire.released(asked(RELEASE_IN, values)) == values["fh"]


def test_the_numbers_of_the_operations():
    """As in `enum fuse_opcode`."""
    assert {operation.name: operation.value for operation in Operation}.items() <= {
        "LOOKUP": 1, "FORGET": 2, "GETATTR": 3, "OPEN": 14, "READ": 15, "WRITE": 16, "STATFS": 17, "RELEASE": 18,
        "GETXATTR": 22, "LISTXATTR": 23, "FLUSH": 25, "INIT": 26, "OPENDIR": 27, "READDIR": 28, "RELEASEDIR": 29,
        "INTERRUPT": 36, "DESTROY": 38, "BATCH_FORGET": 42, "READDIRPLUS": 44,
    }.items()  # fmt: skip


# ------------------------------------------------------------------------------------------------------ answers


@UNHURRIED
@given(U64, st.integers(0, 2**20), st.integers(0, 511))
def test_the_head_of_an_answer(unique, length, error):
    head = wire.answer_head(unique, length, error)
    negative = (-error).to_bytes(4, sys.byteorder, signed=True)
    assert head == number(OUT_HEADER_BYTES + length, 4) + negative + number(unique, 8)
    assert wire.answered(head + b"rest") == unique


@UNHURRIED
@given(U64, st.integers(0, 2**31 - 1))
def test_the_answer_to_an_open(handle, backing):
    # FOPEN_KEEP_CACHE, FOPEN_NOFLUSH, FOPEN_PASSTHROUGH
    assert (wire.OPENED_KEEP_CACHE, wire.OPENED_NO_FLUSH, wire.OPENED_PASSTHROUGH) == (2, 32, 128)
    assert wire.opened(handle, 128 | 32, backing) == number(handle, 8) + number(160, 4) + number(backing, 4)
    assert wire.opened(handle, 2) == number(handle, 8) + number(2, 4) + number(0, 4)


# --------------------------------------------------------------------------------------------------------- INIT

EXTENDED = 1 << 30
PASSTHROUGH = 1 << (37 - 32)


@UNHURRIED
@given(values_of(INIT_IN))
def test_what_the_kernel_offers(values):
    message = asked(INIT_IN, values, tail=bytes(44))
    assert Offer.parse(message).passthrough == bool(values["flags"] & EXTENDED and values["flags2"] & PASSTHROUGH)


@pytest.mark.parametrize("extended", [False, True])
@pytest.mark.parametrize("offered", [False, True])
def test_the_second_word_of_flags_counts_only_when_it_is_announced(extended, offered):
    values = {"flags": ~EXTENDED & 0xFFFFFFFF, "flags2": ~PASSTHROUGH & 0xFFFFFFFF}
    values["flags"] |= EXTENDED if extended else 0
    values["flags2"] |= PASSTHROUGH if offered else 0
    assert Offer.parse(asked(INIT_IN, values)).passthrough == (extended and offered)


@pytest.mark.parametrize("length", [0, 4, 8, 12, 16, 19])
def test_an_old_kernel_says_less_and_offers_nothing(length):
    """fuse_init_in had 16 bytes before 7.36, and 8 long before that."""
    message = asked(INIT_IN, dict.fromkeys(INIT_IN, 0xFFFFFFFF), tail=b"")
    assert not Offer.parse(message[: HEAD + length]).passthrough


def init_answer(values: Mapping[str, int], rest: bytes = bytes(24)) -> bytearray:
    message = bytearray(OUT_HEADER_BYTES + 40) + rest
    message[:OUT_HEADER_BYTES] = b"head of the rest"
    fill(message, OUT_HEADER_BYTES, INIT_OUT, values)
    return message


@UNHURRIED
@given(values_of(INIT_OUT), st.binary(min_size=24, max_size=24), st.booleans())
def test_settling_leaves_all_other_fields_alone(values, rest, passthrough):
    answer = init_answer(values, rest)
    wire.settle(answer, write_bytes_max=ROOM, passthrough=passthrough)
    expected = {**values, "max_write": min(values["max_write"], ROOM)}
    if passthrough:
        expected["flags"] |= EXTENDED
        expected["flags2"] |= PASSTHROUGH
        expected["max_stack_depth"] = 1
    assert answer == init_answer(expected, rest)
    assert len(answer) == OUT_HEADER_BYTES + INIT_OUT_BYTES


@UNHURRIED
@given(st.integers(0, 39), st.booleans())
def test_a_short_answer_to_init_is_left_as_it_is(length, passthrough):
    """To kernels before 7.23 libfuse answers with 24 or 8 bytes; and a failure has none."""
    answer = init_answer(dict.fromkeys(INIT_OUT, 0xFFFF))[: OUT_HEADER_BYTES + length]
    before = bytes(answer)
    wire.settle(answer, write_bytes_max=ROOM, passthrough=passthrough)
    assert answer == before


def test_the_room_for_writes_fits_the_buffer_that_the_kernel_asks_for():
    """`fuse_dev_do_read`: at least 8192 bytes, and head, fuse_write_in and the most that a write may bring."""
    assert wire.REQUEST_BYTES_MIN >= 8192
    assert HEAD + 40 + wire.REQUEST_BYTES_MIN // 2 <= wire.REQUEST_BYTES_MIN
    assert wire.REQUEST_BYTES_MIN // 2 >= 4096  # less is taken for 4096
