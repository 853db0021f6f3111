"""The exam of `SpanSource`: a store that can deliver several spans of an object in one answer.

    @pytest.mark.parametrize("check", SPAN_EXAM, ids=lambda check: check.__name__)
    async def test_span_exam(check):
        await check(make)            # make() is an async context manager around a fresh, empty Store

The store must really do it: an answer that has to be put together from several is a failure here.
"""

from collections.abc import Sequence
from itertools import pairwise

import trio

from shardfs.errors import NotFound
from shardfs.store.base import SPANS_MAX, SpanSource, Store
from shardfs.testing.check import GUARD, Check, Make, expect, expect_error, fetch
from shardfs.testing.samples import Sample, sample_chunk

_MIB = 1024 * 1024
_MARGIN = 64


def _source(store: Store) -> SpanSource:
    if not isinstance(store, SpanSource) or not store.has_spans:
        raise AssertionError(f"node {store.node} cannot deliver several spans in one answer")
    return store


async def fetch_spans(store: Store, sample: Sample, *spans: tuple[int, int]) -> Sequence[bytes]:
    """Spans (start, end) through `get_spans`, each into guarded memory; the bytes that there were of each."""
    memories = [bytearray([GUARD]) * (end - start + 2 * _MARGIN) for start, end in spans]
    told: dict[int, list[int]] = {number: [0] for number in range(len(spans))}
    counts = await _source(store).get_spans(
        sample.key,
        [(start, memoryview(memory)[_MARGIN:-_MARGIN]) for (start, _), memory in zip(spans, memories, strict=True)],
        arrived=lambda number, count: told[number].append(count),
    )
    if counts is None:
        raise AssertionError("the store could not deliver several spans in one answer")
    expect(len(counts), len(spans), "counts")
    for number, (memory, count) in enumerate(zip(memories, counts, strict=True)):
        around = memory[:_MARGIN] + memory[_MARGIN + count :]
        expect(around, bytearray([GUARD]) * len(around), f"bytes around span {spans[number]}")
        expect(told[number][-1], count, f"the last word of `arrived` about span {number}")
        if any(a >= b for a, b in pairwise(told[number])):
            raise AssertionError(f"`arrived` did not grow: {told[number][:20]}")
    return [bytes(memory[_MARGIN : _MARGIN + count]) for memory, count in zip(memories, counts, strict=True)]


async def check_spans(make: Make) -> None:
    """Small and large spans, adjacent and apart, at the beginning and up to the end, two to SPANS_MAX at a time."""
    sample = sample_chunk(1, 5 * _MIB)
    size = len(sample.data)
    cases: list[list[tuple[int, int]]] = [
        [(0, 1), (1, 2)],
        [(0, 1), (size - 1, size)],
        [(0, 8784), (_MIB, _MIB + 256 * 1024)],
        [(5, 100_000), (100_000, 3 * _MIB + 7)],
        [(0, 2 * _MIB), (2 * _MIB + 1, size)],
        [(0, 64 * 1024), (_MIB, _MIB + 64 * 1024 + 1), (2 * _MIB, 2 * _MIB + 10)],
        [(number * _MIB + 3, number * _MIB + 300_000) for number in range(SPANS_MAX)],
        [(number * 10, number * 10 + 1) for number in range(SPANS_MAX)],
    ]
    async with make() as store:
        await store.put(sample.key, [sample.data])
        for spans in cases:
            for _ in range(2):  # what one answer leaves behind must not reach the next
                got = await fetch_spans(store, sample, *spans)
                expect(got == [sample.data[start:end] for start, end in spans], True, f"bytes of {spans}")
        expect(await fetch(store, sample, 10, 1000), sample.data[10:1010], "a get afterwards")


async def check_spans_beyond_the_end(make: Make) -> None:
    """Fewer bytes than asked only where the object ends: in the last span, in an earlier one, before all of them."""
    sample = sample_chunk(1, 100_000)
    size = len(sample.data)
    async with make() as store:
        await store.put(sample.key, [sample.data])
        for spans in (
            [(0, 10), (size - 5, size + 5)],
            [(0, 10), (size, size + 5)],
            [(0, size + 10), (size + 10, size + 20)],
            [(0, size), (size + _MIB, size + 2 * _MIB)],
            [(0, 10), (20, 30), (size - 1, size + _MIB), (size + _MIB, size + 2 * _MIB)],
            [(size, size + 1), (size + 1, size + 2)],
            [(size + 100, size + 101), (size + 200, size + 300)],
        ):
            got = await fetch_spans(store, sample, *spans)
            expect(got == [sample.data[start:end] for start, end in spans], True, f"bytes of {spans} of {size}")


async def check_spans_missing(make: Make) -> None:
    """An object that does not exist is NotFound, and the store works on."""
    sample = sample_chunk(1)
    async with make() as store:
        for _ in range(3):
            with expect_error(NotFound, "spans of a missing object"):
                await fetch_spans(store, sample, (0, 10), (20, 30))
        await store.put(sample.key, [sample.data])
        expect(await fetch_spans(store, sample, (0, 10), (20, 30)), [sample.data[:10], sample.data[20:30]], "spans")


class _Stop(Exception):
    pass


async def check_spans_arrived_raises(make: Make) -> None:
    """What `arrived` raises, about either span, ends the call and comes out unchanged; the store works on."""
    sample = sample_chunk(1, 4 * _MIB)
    spans = [(0, 9000), (_MIB, 3 * _MIB)]
    async with make() as store:
        await store.put(sample.key, [sample.data])
        for about in (0, 1):
            raised = _Stop()

            def arrived(number: int, _: int, about: int = about, raised: _Stop = raised) -> None:
                if number == about:
                    raise raised

            views = [(start, memoryview(bytearray(end - start))) for start, end in spans]
            try:
                await _source(store).get_spans(sample.key, views, arrived=arrived)
            except _Stop as error:
                expect(error is raised, True, "the exception is the one that was raised")
            else:
                raise AssertionError("what `arrived` raised did not come out")
            got = await fetch_spans(store, sample, *spans)
            expect(got == [sample.data[start:end] for start, end in spans], True, "the next spans")


async def check_spans_cancelled(make: Make) -> None:
    """A cancelled call leaves nobody who writes into the buffers, and a store that works on."""
    sample = sample_chunk(1, 8 * _MIB)
    spans = [(0, _MIB), (2 * _MIB, 8 * _MIB)]
    async with make() as store:
        await store.put(sample.key, [sample.data])
        for at in ((0, 1), (0, _MIB), (1, 1), (1, 3 * _MIB), (1, 6 * _MIB)):
            memories = [bytearray(end - start) for start, end in spans]
            with trio.CancelScope() as scope:

                def arrived(number: int, count: int, scope: trio.CancelScope = scope, at: tuple[int, int] = at) -> None:
                    if (number, count) >= at:
                        scope.cancel()

                views = [(start, memoryview(memory)) for (start, _), memory in zip(spans, memories, strict=True)]
                await _source(store).get_spans(sample.key, views, arrived=arrived)
            for memory in memories:
                memory[:] = bytes([GUARD]) * len(memory)
            got = await fetch_spans(store, sample, *spans)
            expect(got == [sample.data[start:end] for start, end in spans], True, "the next spans")
            for memory in memories:
                expect(memory.count(GUARD), len(memory), "bytes of the buffer that nobody wrote to afterwards")
        returned = False
        with trio.CancelScope() as scope:
            scope.cancel()
            await fetch_spans(store, sample, *spans)
            returned = True
        expect(returned, False, "get_spans returned in a cancelled scope")


SPAN_EXAM: tuple[Check, ...] = (
    check_spans,
    check_spans_beyond_the_end,
    check_spans_missing,
    check_spans_arrived_raises,
    check_spans_cancelled,
)
