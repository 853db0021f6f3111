"""JSON from servers: whatever is wrong with it is InvalidFormat."""

from contextlib import suppress

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from shardfs.errors import InvalidFormat
from shardfs.store.json_answer import read_json


class _Row(msgspec.Struct):
    name: str
    size: int = 0


WRONG = {
    "nothing": b"",
    "half": b'{"name": "a"',
    "another type": b"[]",
    "no name": b"{}",
    "a number": b'{"name": 1}',
    "no UTF-8": b'{"name": "\xff"}',
    "half of a pair": rb'{"name": "\ud800"}',
    "deep": b'{"x": ' + b"[" * 100_000,
    "deep objects": b'{"x": ' + b'{"a":' * 100_000,
    "a huge number": b'{"name": "a", "size": ' + b"9" * 10_000 + b"}",
}


@pytest.mark.parametrize("case", WRONG)
def test_wrong(case: str) -> None:
    with pytest.raises(InvalidFormat, match="not the JSON that was expected: "):
        read_json(WRONG[case], _Row)


def test_right() -> None:
    assert read_json(b'{"name": "\xc3\xa4", "size": 3, "x": [[1]]}', _Row) == _Row("ä", 3)


@given(st.binary(max_size=60) | st.text(alphabet='{}[]":,name\\ud80size1', max_size=40).map(str.encode))
def test_any_bytes(data: bytes) -> None:
    with suppress(InvalidFormat):
        read_json(data, _Row)
