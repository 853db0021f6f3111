"""Offsets to chunks and blocks, against counting byte by byte."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from shardfs.core.ranges import block_span, chunk_count, chunk_length, clamp, spans

small = st.integers(0, 60)
unit = st.integers(1, 12)


@given(small, unit)
def test_chunks_of_a_file(size, chunk_size):
    naive = [list(range(size))[at : at + chunk_size] for at in range(0, size, chunk_size)]
    assert chunk_count(size, chunk_size) == len(naive)
    assert [chunk_length(size, chunk_size, chunk) for chunk in range(len(naive))] == [len(part) for part in naive]


@given(small, small, small)
def test_clamp(offset, length, size):
    assert clamp(offset, length, size) == len(range(size)[offset : offset + length])


@given(small, small, unit)
def test_spans(offset, length, chunk_size):
    found = list(spans(offset, length, chunk_size))
    covered = [span.chunk * chunk_size + at for span in found for at in range(span.start, span.end)]
    assert covered == list(range(offset, offset + length))
    assert all(0 <= span.start < span.end <= chunk_size for span in found)
    assert [span.chunk for span in found] == sorted({byte // chunk_size for byte in covered})


@given(small, small, unit)
def test_block_span(start, end, block_size):
    first, last = block_span(start, end, block_size)
    assert set(range(first, last)) == {byte // block_size for byte in range(start, end)}


@pytest.mark.parametrize(
    ("size", "chunk", "count", "last"),
    [
        (0, 4, 0, None),
        (1, 4, 1, 1),
        (4, 4, 1, 4),
        (5, 4, 2, 1),
        (2**62, 2**22, 2**40, 2**22),
        (2**62 - 1, 2**22, 2**40, 2**22 - 1),
    ],
)
def test_edges(size, chunk, count, last):
    assert chunk_count(size, chunk) == count
    if count:
        assert chunk_length(size, chunk, count - 1) == last


def test_a_span_far_away_costs_nothing():
    assert [(s.chunk, s.start, s.length) for s in spans(2**61 + 5, 3, 4)] == [(2**59 + 1, 1, 3)]
