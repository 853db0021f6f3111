"""The exam that every engine passes: `shardfs.store.base`, sentence by sentence, as code.

A new engine's own test is a function that makes an empty store, and a loop:

    @pytest.mark.parametrize("check", EXAM, ids=lambda check: check.__name__)
    async def test_exam(check):
        await check(make)            # make() is an async context manager around a fresh, empty Store

Each check runs under trio, with real time, and raises AssertionError. `REFUSING` is for engines that look at what they
store (the local folder, the chunk server): they refuse bytes that do not match their name.
"""

from collections.abc import Awaitable, Callable, Iterator, Sequence
from contextlib import AbstractAsyncContextManager, contextmanager
from itertools import pairwise

import trio

from shardfs.core.keys import ref_prefix
from shardfs.errors import NotFound, StoreError, Unavailable
from shardfs.store.base import Store
from shardfs.testing.samples import Sample, sample_chunk, sample_external, sample_manifest, sample_ref

Make = Callable[[], AbstractAsyncContextManager[Store]]
Check = Callable[[Make], Awaitable[None]]

_MIB = 1024 * 1024
_GUARD = 0xA5


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
    memory = bytearray([_GUARD]) * (length + 128)
    progress: list[int] = []
    count = await store.get(sample.key, memoryview(memory)[64 : 64 + length], offset=offset, arrived=progress.append)
    untouched = memory[:64] + memory[64 + count :]
    expect(untouched, bytearray([_GUARD]) * len(untouched), f"bytes around a get of {length} at {offset}")
    expect(progress[-1:], [count] if count else [], "the last word of `arrived`")
    if any(a >= b for a, b in pairwise([0, *progress])):
        raise AssertionError(f"`arrived` did not grow: {progress[:20]}")
    return bytes(memory[64 : 64 + count])


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


class _Stop(Exception):
    pass


async def check_arrived_raises(make: Make) -> None:
    """What `arrived` raises ends the call and comes out unchanged; the store works on."""
    sample = sample_chunk(1, 4 * _MIB)
    raised = _Stop()

    def arrived(_: int) -> None:
        raise raised

    async with make() as store:
        await store.put(sample.key, [sample.data])
        for _ in range(3):
            try:
                await store.get(sample.key, memoryview(bytearray(len(sample.data))), arrived=arrived)
            except _Stop as error:
                expect(error is raised, True, "the exception is the one that was raised")
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
            memory[:] = bytes([_GUARD]) * len(memory)
            # Every byte of the next answer passes through whatever the cancelled call has left behind.
            expect(await fetch(store, sample) == sample.data, True, "the next get")
            expect(memory.count(_GUARD), len(memory), "bytes of the buffer that nobody wrote to afterwards")


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


async def check_list(make: Make) -> None:
    """Keys by prefix, sorted as strings; a model's refs and no other model's."""
    models = ("a", "a-b", "a.b", "a/b", "ab", "Z", "ä")
    refs = [sample_ref(model, generation, seed) for model in models for generation, seed in ((1, 0), (1, 1), (20, 0))]
    chunks = [sample_chunk(seed) for seed in range(40)]
    manifests = [sample_manifest(seed) for seed in range(3)]
    async with make() as store:
        for prefix in ("chunks/", "chunks/00/", "manifests/", "refs/", ref_prefix("a")):
            expect(await store.list(prefix), [], f"list {prefix} of an empty store")
        for sample in (*refs, *chunks, *manifests):
            await store.put(sample.key, [sample.data])
        expect(await store.list("chunks/"), _keys(chunks), "list chunks/")
        expect(await store.list("manifests/"), _keys(manifests), "list manifests/")
        expect(await store.list("refs/"), _keys(refs), "list refs/")
        for prefix in {sample.key[:10] for sample in chunks} | {"chunks/zz/"}:
            expect(await store.list(prefix), [k for k in _keys(chunks) if k.startswith(prefix)], f"list {prefix}")
        for model in (*models, "b"):
            wanted = [k for k in _keys(refs) if k.startswith(ref_prefix(model))]
            expect(await store.list(ref_prefix(model)), wanted, f"list the refs of {model}")
        await store.delete(chunks[0].key)
        expect(await store.list("chunks/"), _keys(chunks[1:]), "list after a delete")


async def check_list_pages(make: Make) -> None:
    """`after` and `limit` cut the listing anywhere, also at keys that do not exist."""
    samples = [*(sample_chunk(seed) for seed in range(25)), *(sample_ref("m/n", g) for g in range(1, 8))]
    samples += [sample_ref(model, 1) for model in ("m", "m-n", "m.n")]
    async with make() as store:
        for sample in samples:
            await store.put(sample.key, [sample.data])
        for prefix in ("chunks/", "refs/", ref_prefix("m/n")):
            every = [key for key in _keys(samples) if key.startswith(prefix)]
            for limit in (1, 2, 7, len(every), len(every) + 1):
                after, found = "", list[str]()
                while page := await store.list(prefix, after=after, limit=limit):
                    expect(page, every[len(found) : len(found) + limit], f"page of {limit} after {after}")
                    found += page
                    after = page[-1]
                expect(found, every, f"all pages of {limit}")
            for after in (prefix, every[3] + "x", every[3][:-1], "zzz", "chunks/" + "9" * 20, "refs/m.", "refs/m-"):
                wanted = [key for key in every if key > after]
                expect(await store.list(prefix, after=after), wanted, f"list {prefix} after {after}")


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
        expect(await store.list("chunks/"), _keys(samples), "list")


async def check_stat(make: Make) -> None:
    """Space, where the engine can say it, is a number that can be."""
    async with make() as store:
        stat = await store.stat()
        for size in (stat.capacity_bytes, stat.free_bytes):
            if size is not None and size < 0:
                raise AssertionError(f"stat: {stat}")
        if stat.capacity_bytes is not None and stat.free_bytes is not None and stat.free_bytes > stat.capacity_bytes:
            raise AssertionError(f"stat: more free than there is: {stat}")


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


def _keys(samples: Sequence[Sample]) -> list[str]:
    return sorted(sample.key for sample in samples)


EXAM: tuple[Check, ...] = (
    check_put_and_get,
    check_parts,
    check_second_put,
    check_racing_puts,
    check_ranges,
    check_empty_buffer,
    check_missing,
    check_read_limit,
    check_arrived_raises,
    check_cancel_get,
    check_cancel_put,
    check_cancelled_before,
    check_list,
    check_list_pages,
    check_delete,
    check_parallel,
    check_stat,
)

REFUSING: tuple[Check, ...] = (check_wrong_bytes,)
