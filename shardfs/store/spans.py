"""Several spans of one object from a store that cannot deliver them in one answer: a `get` for each, side by side."""

from collections.abc import Awaitable, Callable, Sequence
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
