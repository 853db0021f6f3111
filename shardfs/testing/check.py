"""What a check of a store is, and what checks are made of.

A check makes an empty store, runs under trio with real time, and raises AssertionError.
"""

from collections.abc import Awaitable, Callable, Iterator, Sequence
from contextlib import AbstractAsyncContextManager, contextmanager
from itertools import pairwise

from shardfs.store.base import Store
from shardfs.testing.samples import Sample

Make = Callable[[], AbstractAsyncContextManager[Store]]
Check = Callable[[Make], Awaitable[None]]

GUARD = 0xA5
"""Every byte of memory that nobody has written to yet, or may write to any more."""


def expect(got: object, wanted: object, what: str) -> None:
    """AssertionError unless they are equal."""
    if got != wanted:
        raise AssertionError(f"{what}: {got!r:.300} instead of {wanted!r:.300}")


@contextmanager
def expect_error(kind: type[Exception], what: str, store: Store | None = None) -> Iterator[None]:
    """AssertionError unless the block raises `kind`; with `store`, the message must name the node."""
    try:
        yield
    except kind as error:
        if store is not None and store.node not in str(error):
            raise AssertionError(f"{what}: {error} does not name node {store.node}") from error
        return
    raise AssertionError(f"{what}: nothing was raised instead of {kind.__name__}")


async def fetch(store: Store, sample: Sample, offset: int = 0, length: int | None = None) -> bytes:
    """A range through `get`, into guarded memory: nothing around the buffer, or after the end in it, changes."""
    length = len(sample.data) if length is None else length
    memory = bytearray([GUARD]) * (length + 128)
    progress: list[int] = []
    count = await store.get(sample.key, memoryview(memory)[64 : 64 + length], offset=offset, arrived=progress.append)
    untouched = memory[:64] + memory[64 + count :]
    expect(untouched, bytearray([GUARD]) * len(untouched), f"bytes around a get of {length} at {offset}")
    expect(progress[-1:], [count] if count else [], "the last word of `arrived`")
    if any(a >= b for a, b in pairwise([0, *progress])):
        raise AssertionError(f"`arrived` did not grow: {progress[:20]}")
    return bytes(memory[64 : 64 + count])


def sorted_keys(samples: Sequence[Sample]) -> list[str]:
    """The keys of the samples in the order of a listing."""
    return sorted(sample.key for sample in samples)
