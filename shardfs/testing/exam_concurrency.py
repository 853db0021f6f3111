"""Checks of many calls at a time: puts that race for one key, and calls that have nothing to do with each other."""

import trio

from shardfs.testing.check import Make, expect, fetch, sorted_keys
from shardfs.testing.samples import Sample, sample_chunk

_MIB = 1024 * 1024


async def check_racing_puts(make: Make) -> None:
    """Of many puts of one key at the same time exactly one creates, and the object is whole."""
    async with make() as store:
        for seed in range(4):
            sample = sample_chunk(seed, _MIB)
            results: list[bool] = []

            async def put(sample: Sample = sample, results: list[bool] = results) -> None:
                results.append(await store.put(sample.key, [sample.data]))

            async with trio.open_nursery() as nursery:
                for _ in range(8):
                    nursery.start_soon(put)
            expect(sorted(results), [False] * 7 + [True], "results of racing puts")
            expect(await fetch(store, sample) == sample.data, True, "content after racing puts")


async def check_parallel(make: Make) -> None:
    """Many calls at a time do not disturb each other."""
    samples = [sample_chunk(seed, 300_000 + seed) for seed in range(24)]
    async with make() as store:

        async def work(sample: Sample) -> None:
            expect(await store.put(sample.key, [sample.data]), True, "put")
            for start in (0, 1000, 299_000):
                got = await fetch(store, sample, start, 200_000)
                expect(got == sample.data[start : start + 200_000], True, f"bytes of {sample.key} from {start}")
            expect(await store.size(sample.key), len(sample.data), "size")

        async with trio.open_nursery() as nursery:
            for sample in samples:
                nursery.start_soon(work, sample)
        expect(await store.list("chunks/"), sorted_keys(samples), "list")
