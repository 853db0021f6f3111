"""Checks of engines that look at what they store: wrong bytes do not get in."""

from collections.abc import Iterator

from shardfs.errors import StoreError
from shardfs.testing.check import Make, expect, expect_error, fetch
from shardfs.testing.samples import sample_chunk, sample_manifest, sample_ref


async def check_wrong_bytes(make: Make) -> None:
    """Bytes that do not match their name are refused, and nothing of them is ever seen."""
    async with make() as store:
        for sample in (sample_chunk(1, 700_000), sample_manifest(2), sample_ref("m", 3)):
            for what, data in _damaged(sample.data):
                with expect_error(StoreError, f"put of {sample.key} with {what}", store):
                    await store.put(sample.key, [data])
                expect(await store.size(sample.key), None, f"size after a put with {what}")
                expect(await store.list(sample.key[:7]), [], f"list after a put with {what}")
            expect(await store.put(sample.key, [sample.data]), True, "put of the right bytes")
            with expect_error(StoreError, "wrong bytes for an object that is there", store):
                await store.put(sample.key, [sample.data[:-1] + bytes([sample.data[-1] ^ 1])])
            expect(await fetch(store, sample), sample.data, "content")


def _damaged(data: bytes) -> Iterator[tuple[str, bytes]]:
    for at in (0, 5, 20, len(data) // 2, len(data) - 1):
        yield f"a flipped bit at {at}", data[:at] + bytes([data[at] ^ 1]) + data[at + 1 :]
    yield "no bytes", b""
    yield "the last byte missing", data[:-1]
    yield "a byte too many", data + b"\0"
