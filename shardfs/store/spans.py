"""Several spans of one object: a `get` for each where a store cannot deliver them at once, and slices of them."""

from collections.abc import Awaitable, Callable, Iterator, Sequence
from functools import partial
from typing import Protocol

import trio

from shardfs.core.keys import ObjectKey
from shardfs.store.base import SpanInto


class Get(Protocol):
    """`Store.get`."""

    def __call__(
        self, key: ObjectKey, into: memoryview, *, offset: int, arrived: Callable[[int], None] | None
    ) -> Awaitable[int]: ...


async def get_side_by_side(
    get: Get, key: ObjectKey, spans: Sequence[SpanInto], arrived: Callable[[int, int], None] | None
) -> Sequence[int]:
    """As `SpanSource.get_spans`. The first failure ends them all and comes out."""
    counts = [0] * len(spans)
    failures: list[Exception] = []

    async def one(number: int, offset: int, into: memoryview) -> None:
        tell = None if arrived is None else partial(arrived, number)
        try:
            counts[number] = await get(key, into, offset=offset, arrived=tell)
        except Exception as error:  # noqa: BLE001 - whatever `arrived` raises comes out
            failures.append(error)
            nursery.cancel_scope.cancel()

    async with trio.open_nursery() as nursery:
        for number, (offset, into) in enumerate(spans):
            nursery.start_soon(one, number, offset, into)
    if failures:
        raise failures[0]
    return counts


def slices(spans: Sequence[SpanInto], size_max: int) -> Iterator[Sequence[tuple[int, int, int]]]:
    """All of the spans in order, at most `size_max` bytes at a time: pieces, as the span's number, offset and size."""
    pieces: list[tuple[int, int, int]] = []
    room = size_max
    for number, (offset, into) in enumerate(spans):
        done = 0
        while done < len(into):
            size = min(room, len(into) - done)
            pieces.append((number, offset + done, size))
            done += size
            room -= size
            if not room:
                yield pieces
                pieces, room = [], size_max
    if pieces:
        yield pieces
