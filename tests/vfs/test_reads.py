"""Every read gives exactly the bytes that a plain bytes object gives, whatever the boundaries and the faults."""

import random

import pytest
import trio
from hypothesis import given, settings
from hypothesis import strategies as st

from shardfs.errors import NoCopy
from shardfs.testing.memory_store import Fault
from tests.vfs.world import BLOCK, CHUNK, World, content, until, walk

SIZES = [0, 1, BLOCK - 1, BLOCK, BLOCK + 1, CHUNK - 1, CHUNK, CHUNK + 1, 3 * CHUNK, 4 * CHUNK + BLOCK + 7]


def noise(size: int, seed: int = 1) -> bytes:
    return random.Random(seed).randbytes(size)


async def compare(fs, inode: int, expected: bytes, reads) -> None:
    """All `reads` at once, each compared with the slice of `expected`."""
    handle = await fs.open(inode)

    async def one(offset: int, length: int) -> None:
        got = bytes(await fs.read(handle, offset, length))  # copied before the next checkpoint
        assert got == expected[offset : offset + length], (offset, length, len(got))

    async with trio.open_nursery() as nursery:
        for offset, length in reads:
            nursery.start_soon(one, offset, length)
    fs.release(handle)


@pytest.mark.parametrize("size", SIZES)
async def test_boundaries(size):
    """Offsets and ends on, before and behind every edge of block, chunk and file."""
    expected = noise(size)
    edges = sorted({0, 1, BLOCK, CHUNK, 2 * CHUNK, size, size + 1, size + CHUNK})
    points = sorted({max(0, edge + d) for edge in edges for d in (-1, 0, 1)})
    world = World()
    world.publish("m", expected)
    async with world.filesystem() as fs:
        inode = await walk(fs, "m")
        assert fs.getattr(inode).size == size
        await compare(fs, inode, expected, [(a, b - a) for a in points for b in points if b >= a])


@st.composite
def files(draw):
    """Chunks of noise and holes, the last one cut anywhere."""
    parts = draw(st.lists(st.sampled_from(["noise", "hole", "same"]), max_size=6))
    body = b"".join(
        bytes(CHUNK) if part == "hole" else noise(CHUNK, 0 if part == "same" else 1 + i) for i, part in enumerate(parts)
    )
    tail = draw(st.one_of(st.just(0), st.sampled_from(SIZES[:6]), st.integers(0, CHUNK)))
    return body + noise(tail, 99)


READS = st.lists(st.tuples(st.integers(0, 8 * CHUNK), st.integers(0, 3 * CHUNK)), min_size=1, max_size=12)


@settings(max_examples=120, deadline=None)
@given(expected=files(), reads=READS, slots=st.integers(4, 12), at_once=st.booleans())
def test_random_reads(expected, reads, slots, at_once):
    """Little memory, holes, repeated chunks, reads at once or one after the other."""

    async def run() -> None:
        world = World()
        world.publish("m", {"weights": expected})
        async with world.filesystem(slots=slots) as fs:
            inode = await walk(fs, "m/weights")
            for batch in [reads] if at_once else [[read] for read in reads]:
                await compare(fs, inode, expected, batch)

    trio.run(run)


@settings(max_examples=80, deadline=None)
@given(expected=files(), reads=READS, seed=st.integers(0, 2**32))
def test_one_good_copy_is_enough(expected, reads, seed):
    """Of each chunk one copy is flipped, cut, lengthened, swapped or lost: nobody sees it."""

    async def run() -> None:
        world, chance = World(), random.Random(seed)
        world.publish("m", expected)
        others = [data for store in world.stores for key, data in store.objects.items() if key.startswith("chunks/")]
        damaged = 0
        for key in world.chunks():
            holders = [store for store in world.stores if key in store.objects]
            assert len(holders) == 2
            damaged += damage(chance.choice(holders).objects, key, chance, others)
        async with world.filesystem() as fs:
            await compare(fs, await walk(fs, "m"), expected, reads)
        assert damaged == len(world.chunks())

    trio.run(run)


def damage(objects, key, chance: random.Random, others) -> bool:
    data = objects[key]
    kind = chance.choice(["flip", "cut", "longer", "swap", "lose", "empty"])
    if kind == "lose":
        del objects[key]
        return True
    at = chance.randrange(len(data))
    objects[key] = {
        "flip": data[:at] + bytes([data[at] ^ 1 << chance.randrange(8)]) + data[at + 1 :],
        "cut": data[:at],
        "longer": data + b"x",
        "swap": chance.choice(others),
        "empty": b"",
    }[kind]
    return True


async def test_flipped_on_every_node_fails_only_that_range():
    """The block that is bad everywhere is an error; every other block of the file is still served."""
    expected = noise(3 * CHUNK)
    world = World()
    world.publish("m", expected)
    flipped = 0
    bad = CHUNK + BLOCK + 5  # in block 1 of chunk 1
    for store in world.stores:
        for key, data in store.objects.items():
            at = data.find(expected[bad : bad + 64])
            if key.startswith("chunks/") and at >= 0:
                store.objects[key] = data[:at] + bytes([data[at] ^ 1]) + data[at + 1 :]
                flipped += 1
    assert flipped == 2
    async with world.filesystem() as fs:
        inode = await walk(fs, "m")
        handle = await fs.open(inode)
        for at in range(0, CHUNK + BLOCK, BLOCK):  # in order, so that whole chunks are fetched
            assert bytes(await fs.read(handle, at, BLOCK)) == expected[at : at + BLOCK]
        with pytest.raises(NoCopy, match="block 1 does not match"):
            await fs.read(handle, CHUNK + BLOCK, BLOCK)
        for at in range(0, len(expected), BLOCK):
            if at != CHUNK + BLOCK:
                assert bytes(await fs.read(handle, at, BLOCK)) == expected[at : at + BLOCK], at


async def test_copies_that_are_bad_in_different_blocks_make_one_good_copy():
    expected = noise(CHUNK)
    world = World()
    world.publish("m", expected)
    (key,) = world.chunks()
    holders = [store for store in world.stores if key in store.objects]
    for store, block in zip(holders, (1, 3), strict=True):
        data = bytearray(store.objects[key])
        data[len(data) - CHUNK + block * BLOCK] ^= 1
        store.objects[key] = bytes(data)
    async with world.filesystem() as fs:
        assert await content(fs, await walk(fs, "m")) == expected


async def test_no_copy_is_an_error_and_the_return_of_the_nodes_ends_it(autojump_clock):
    expected = noise(2 * CHUNK)
    world = World()
    world.publish("m", expected)
    async with world.filesystem(job_seconds=0.3) as fs:
        inode = await walk(fs, "m")
        handle = await fs.open(inode)
        fault = Fault(op="get", error="gone")
        for store in world.stores:
            store.faults.append(fault)
        with pytest.raises(NoCopy, match=r"node a: gone.*"):
            await fs.read(handle, 0, 10)
        assert fault.hits >= 2
        assert fs.getattr(inode).size == 2 * CHUNK
        fault.times = 0
        with trio.fail_after(2):
            while True:
                try:
                    assert bytes(await fs.read(handle, 5, 10)) == expected[5:15]
                    break
                except NoCopy:
                    await trio.sleep(0.01)


async def test_a_cancelled_read_disturbs_nobody(autojump_clock):
    """A reader that gives up leaves the fetch to the others, and the tables as they were."""
    expected = noise(CHUNK)
    world = World()
    world.publish("m", expected)
    async with world.filesystem() as fs:
        inode = await walk(fs, "m")
        handle = await fs.open(inode)
        before = fs.statistics()
        for store in world.stores:
            store.pause = lambda op, key: 0.3 if op == "get" else 0
        got = []

        async def patient() -> None:
            got.append(bytes(await fs.read(handle, 0, CHUNK)))

        async with trio.open_nursery() as nursery:
            nursery.start_soon(patient)
            for _ in range(5):
                with trio.move_on_after(0.01) as scope:
                    await fs.read(handle, 0, CHUNK)
                assert scope.cancelled_caught
        assert got == [expected]
        assert fs.statistics() == before


async def test_the_disk_cache_serves_when_no_node_does(tmp_path):
    expected = noise(4 * CHUNK + 100)
    world = World()
    world.publish("m", {"f": expected, "empty": b""})
    async with world.filesystem(cache=tmp_path / "cache") as fs:
        inode = await walk(fs, "m/f")
        assert await content(fs, inode) == expected
        while await fs.getxattr(inode, "user.shardfs.cached") != b"%d" % len(expected):  # noqa: ASYNC110 - by threads
            await trio.sleep(0.005)
        assert await fs.getxattr(await walk(fs, "m/empty"), "user.shardfs.cached") == b"0"
    for store in world.stores:
        store.faults.append(Fault(op="get", error="gone"))
    async with world.filesystem(cache=tmp_path / "cache") as fs:
        inode = await walk(fs, "m/f")
        handle = await fs.open(inode)
        await until(lambda: fs._files[handle].content._file.settled)  # an open waits for the map, but not for ever
        assert await content(fs, inode, step=1000) == expected
        fs.release(handle)


@pytest.mark.parametrize(("chunk", "block"), [(4 * CHUNK, 2 * BLOCK), (CHUNK // 2, BLOCK), (CHUNK, CHUNK)])
async def test_models_cut_with_other_settings(chunk, block):
    """The cluster file may change after a model was published: the manifest says how that one was cut."""
    expected = noise(3 * chunk + 77)
    world = World()
    world.publish("m", expected, chunk_size=chunk, block_size=block)
    async with world.filesystem() as fs:
        assert await content(fs, await walk(fs, "m"), step=3000) == expected
