"""Checks of one object at a time: put, asked for whole and in ranges, missing, deleted; and of the node's space."""

from itertools import pairwise

from shardfs.errors import NotFound, Unavailable
from shardfs.testing.check import Make, expect, expect_error, fetch
from shardfs.testing.samples import sample_chunk, sample_external, sample_manifest, sample_ref

_MIB = 1024 * 1024


async def check_put_and_get(make: Make) -> None:
    """Every kind and size comes back as it was, by `get`, `read` and `size`."""
    samples = [
        sample_chunk(1, 1),
        sample_chunk(2, 256 * 1024),
        sample_chunk(3, 4 * _MIB),
        sample_chunk(4, 16 * _MIB + 12345),
        sample_chunk(5, 64 * 1024 + 1, block_size=4096),
        sample_external(8),
        sample_manifest(6),
        sample_ref("team/bert.pt", 7),
    ]
    async with make() as store:
        for sample in samples:
            expect(await store.size(sample.key), None, "size before the put")
            expect(await store.put(sample.key, [sample.data]), True, "first put")
            expect(await store.size(sample.key), len(sample.data), "size")
            expect(await fetch(store, sample) == sample.data, True, f"content of {sample.key}")
            expect(await store.read(sample.key, limit=len(sample.data)) == sample.data, True, "content by read")


async def check_parts(make: Make) -> None:
    """`put` stores the concatenation of its parts, whatever they are made of and wherever they are cut."""
    async with make() as store:
        for seed, cuts in enumerate([[0], [1], [16, 52], [0, 0, 100, 100], list(range(1, 200)), [4 * _MIB]]):
            sample = sample_chunk(seed, 4 * _MIB)
            edges = [0, *cuts, len(sample.data)]
            kinds = (bytes, bytearray, lambda part: memoryview(bytearray(part)))
            parts = [kinds[i % 3](sample.data[a:b]) for i, (a, b) in enumerate(pairwise(edges))]
            expect(await store.put(sample.key, parts), True, f"put cut at {cuts[:5]}")
            expect(await fetch(store, sample) == sample.data, True, f"content after a put cut at {cuts[:5]}")


async def check_second_put(make: Make) -> None:
    """A second put of the same key changes nothing and says so."""
    async with make() as store:
        for sample in (sample_chunk(1, _MIB), sample_manifest(2), sample_ref("m", 3)):
            expect(await store.put(sample.key, [sample.data]), True, "first put")
            expect(await store.put(sample.key, [sample.data]), False, "second put")
            expect(await fetch(store, sample), sample.data, "content after the second put")


async def check_ranges(make: Make) -> None:
    """Ranges at every edge; fewer bytes than asked only where the object ends, none beyond."""
    sample = sample_chunk(1, 3 * 256 * 1024 + 100)
    size = len(sample.data)
    edges = sorted({0, 1, 16, 52, 64 * 1024, 256 * 1024, size - 1, size, size + 1, size + 5 * _MIB})
    async with make() as store:
        await store.put(sample.key, [sample.data])
        for start in edges:
            for end in edges:
                if end > start:
                    got = await fetch(store, sample, start, end - start)
                    expect(got == sample.data[start:end], True, f"bytes {start} to {end} of {size}")


async def check_empty_buffer(make: Make) -> None:
    """A get of nothing is nothing, but it still knows whether the object exists."""
    sample = sample_chunk(1)
    async with make() as store:
        with expect_error(NotFound, "empty get of a missing object"):
            await store.get(sample.key, memoryview(bytearray()))
        await store.put(sample.key, [sample.data])
        expect(await store.get(sample.key, memoryview(bytearray())), 0, "empty get")


async def check_missing(make: Make) -> None:
    """What does not exist is NotFound, None or False; never an empty object."""
    async with make() as store:
        await store.put(sample_chunk(1).key, [sample_chunk(1).data])
        for sample in (sample_chunk(2), sample_manifest(3), sample_ref("no/such", 4)):
            with expect_error(NotFound, "get"):
                await fetch(store, sample)
            with expect_error(NotFound, "get beyond the start"):
                await fetch(store, sample, offset=100, length=10)
            with expect_error(NotFound, "read"):
                await store.read(sample.key, limit=1000)
            expect(await store.size(sample.key), None, "size")
            expect(await store.delete(sample.key), False, "delete")


async def check_read_limit(make: Make) -> None:
    """`read` takes objects up to its limit and no longer ones."""
    sample = sample_manifest(1)
    async with make() as store:
        await store.put(sample.key, [sample.data])
        expect(await store.read(sample.key, limit=len(sample.data) + 1), sample.data, "read below the limit")
        expect(await store.read(sample.key, limit=len(sample.data)), sample.data, "read at the limit")
        with expect_error(Unavailable, "read above the limit", store):
            await store.read(sample.key, limit=len(sample.data) - 1)


async def check_delete(make: Make) -> None:
    """Removed once, gone for every call, and free to be put again."""
    async with make() as store:
        for sample in (sample_chunk(1, _MIB), sample_manifest(2), sample_ref("m/n", 3)):
            await store.put(sample.key, [sample.data])
            expect(await store.delete(sample.key), True, "first delete")
            expect(await store.delete(sample.key), False, "second delete")
            expect(await store.size(sample.key), None, "size of a deleted object")
            expect(await store.list(sample.key[:7]), [], "list without the deleted object")
            with expect_error(NotFound, "get of a deleted object"):
                await fetch(store, sample)
            expect(await store.put(sample.key, [sample.data]), True, "put after the delete")
            expect(await fetch(store, sample), sample.data, "content after the second put")


async def check_stat(make: Make) -> None:
    """Space, where the engine can say it, is a number that can be."""
    async with make() as store:
        stat = await store.stat()
        for size in (stat.capacity_bytes, stat.free_bytes):
            if size is not None and size < 0:
                raise AssertionError(f"stat: {stat}")
        if stat.capacity_bytes is not None and stat.free_bytes is not None and stat.free_bytes > stat.capacity_bytes:
            raise AssertionError(f"stat: more free than there is: {stat}")
