"""Checks of calls that end early: `arrived` raises, or the caller is cancelled. The store works on afterwards."""

from collections.abc import Awaitable, Callable

import trio

from shardfs.errors import InvalidFormat, ShardfsError
from shardfs.testing.check import GUARD, Make, expect, fetch
from shardfs.testing.samples import sample_chunk

_MIB = 1024 * 1024


class _Stop(Exception):
    pass


async def check_arrived_raises(make: Make) -> None:
    """What `arrived` raises ends the call and comes out unchanged; the store works on."""
    sample = sample_chunk(1, 4 * _MIB)
    # One that no store knows, and the one that verifying raises: stores know it, too, from answers that they read.
    exceptions = (_Stop(), InvalidFormat("block 0 does not match"))

    async with make() as store:
        await store.put(sample.key, [sample.data])
        for raised in exceptions * 2:

            def arrived(_: int, raised: Exception = raised) -> None:
                raise raised

            try:
                await store.get(sample.key, memoryview(bytearray(len(sample.data))), arrived=arrived)
            except (_Stop, ShardfsError) as error:
                expect(error is raised, True, f"the exception is the one that was raised, not {error!r}")
            else:
                raise AssertionError("what `arrived` raised did not come out")
            expect(await fetch(store, sample) == sample.data, True, "the next get")


async def check_cancel_get(make: Make) -> None:
    """A cancelled get leaves nobody who writes into the buffer, and a store that works on."""
    sample = sample_chunk(1, 8 * _MIB)
    async with make() as store:
        await store.put(sample.key, [sample.data])
        for limit in (1, 1 * _MIB, 5 * _MIB, 8 * _MIB):
            memory = bytearray(len(sample.data))
            with trio.CancelScope() as scope:

                def arrived(count: int, scope: trio.CancelScope = scope, limit: int = limit) -> None:
                    if count >= limit:
                        scope.cancel()

                await store.get(sample.key, memoryview(memory), arrived=arrived)
            memory[:] = bytes([GUARD]) * len(memory)
            # Every byte of the next answer passes through whatever the cancelled call has left behind.
            expect(await fetch(store, sample) == sample.data, True, "the next get")
            expect(memory.count(GUARD), len(memory), "bytes of the buffer that nobody wrote to afterwards")


async def check_cancel_put(make: Make) -> None:
    """A cancelled put has made the object visible, whole, or not at all; it can be put again."""
    async with make() as store:
        for checkpoints in (0, 1, 2, 3, 5, 8, 13):
            sample = sample_chunk(checkpoints, 4 * _MIB)
            async with trio.open_nursery() as nursery:
                nursery.start_soon(store.put, sample.key, [sample.data])
                for _ in range(checkpoints):
                    await trio.lowlevel.checkpoint()
                nursery.cancel_scope.cancel()
            size = await store.size(sample.key)
            if size is not None:
                expect(size, len(sample.data), "size of what a cancelled put left")
            await store.put(sample.key, [sample.data])
            expect(await fetch(store, sample) == sample.data, True, "content after a cancelled put and another")


async def check_cancelled_before(make: Make) -> None:
    """Every call has a checkpoint: in a cancelled scope it does not return."""
    sample = sample_chunk(1)
    buffer = memoryview(bytearray(10))
    async with make() as store:
        await store.put(sample.key, [sample.data])
        calls: dict[str, Callable[[], Awaitable[object]]] = {
            "get": lambda: store.get(sample.key, buffer),
            "read": lambda: store.read(sample.key, limit=10_000),
            "put": lambda: store.put(sample_chunk(2).key, [sample_chunk(2).data]),
            "size": lambda: store.size(sample.key),
            "list": lambda: store.list("chunks/"),
            "delete": lambda: store.delete(sample.key),
            "stat": store.stat,
        }
        for name, call in calls.items():
            returned = False
            with trio.CancelScope() as scope:
                scope.cancel()
                await call()
                returned = True
            expect(returned, False, f"{name} returned in a cancelled scope")
        expect(await fetch(store, sample), sample.data, "content afterwards")
