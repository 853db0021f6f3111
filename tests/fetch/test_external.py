"""Chunks that are parts of objects elsewhere: read like all others, whatever happens to the object or to its node."""

import random
import re
from functools import partial

import pytest
import trio

from shardfs.core.chunk import header_size, make_header
from shardfs.core.keys import chunk_key
from shardfs.errors import NoCopy
from shardfs.testing.faults import Kind, OneGoodCopy, always, first
from tests.fetch.world import BLOCK, HEADER, RUN, World, simulate

PATH = "llama/model.safetensors"

spans = pytest.mark.parametrize("spans", [True, False], ids=["one answer", "two answers"])


def imported(*, size: int = 2 * RUN, pad: int = 777, path: str = PATH, **about) -> World:
    """A world of nodes n0 to n2 whose chunk 0 is a part of an object of the node that owns no copy of it."""
    world = World(sizes=[size, size], **about)
    server = server_of(world)
    for holder in world.owners(0):
        world.point(0, holder, server, path, offset=pad)
    world.nodes[server].externals[path] += b"more"
    for holder in world.owners(0):
        world.point(0, holder, server, path, offset=pad)
    return world


def server_of(world: World) -> str:
    (server,) = set(world.names) - set(world.owners(0))
    return server


def make_raw(world: World, holder: str) -> None:
    digest = world.digests[0]
    world.nodes[holder].objects[chunk_key(digest)] = (
        make_header(world.chunks[digest], BLOCK)[1].encode() + (world.chunks[digest])
    )


def asked_there(world: World) -> int:
    return world.nodes[server_of(world)].asked[PATH]


@pytest.mark.parametrize("size", [BLOCK, BLOCK + 1, RUN, 2 * RUN, 2 * RUN + 5 * BLOCK + 9])
@spans
async def test_a_chunk_is_read_from_the_object_it_is_a_part_of(autojump_clock, size, spans):
    world = imported(size=size, spans=spans)
    async with world.running():
        for run in range(world.runs(0)):
            await world.read(world.place(0, run))
    assert asked_there(world) == world.runs(0)
    assert world.asked(0) <= 2 * world.runs(0)  # the small object, and with it in vain the blocks
    fetched = world.metrics.fetched_bytes.labels(server_of(world))._value.get()
    assert fetched == size


@spans
async def test_a_small_read_in_the_middle_costs_the_pointer_and_a_block(autojump_clock, spans):
    world = imported(spans=spans)
    async with world.running():
        await world.read(world.place(0, run=1), 5 * BLOCK + 9, 10, whole=False)
        await world.read(world.place(0, run=1), 3 * BLOCK, 10, whole=False)
    there = [span for span in world.nodes[server_of(world)].ranges if span[0] == PATH]
    assert there == [(PATH, 777 + RUN + 5 * BLOCK, BLOCK), (PATH, 777 + RUN + 3 * BLOCK, BLOCK)]
    # Of each holder the small object, and in vain the block.
    assert world.asked(0) <= (2 if spans else 4)


async def test_an_object_that_comes_slowly_is_not_asked_for_twice(autojump_clock):
    """The other holder answers quickly and would lead to the same node: it is no way round it."""
    world = imported(size=RUN)
    server = server_of(world)
    async with world.running():
        for name in world.names:
            world.fleet[name].health.answered(trio.current_time(), 0.001, pace=1e-9)
        world.nodes[server].bandwidth = BLOCK / 0.03  # 0.24 s in all, and never silent for long
        assert await world.read(world.place(0)) > 0.2
    assert asked_there(world) == 1
    assert world.metrics.total(world.metrics.hedges) == 0


async def test_the_pointer_is_remembered_when_memory_was_given_back(autojump_clock):
    world = imported(slots=2)
    async with world.running():
        for _ in range(3):
            for chunk in (0, 1):
                for run in (0, 1):
                    await world.read(world.place(chunk, run))
    assert world.asked(0) <= 4
    assert asked_there(world) == 6


@pytest.mark.parametrize("run", [0, 1])
@spans
async def test_raw_and_external_copies_stand_for_each_other(autojump_clock, run, spans):
    """The header came from the raw copy; the other holder turns out to have a pointer instead of blocks."""
    world = imported(spans=spans)
    raw, other = world.owners(0)
    make_raw(world, raw)
    async with world.running():
        world.nodes[other].up = False
        await world.read(world.place(0, run), 0, 10, whole=False)
        assert asked_there(world) == 0
        world.nodes[other].up, world.nodes[raw].up = True, False
        await trio.sleep(2)  # until a probe has seen it
        await world.read(world.place(0, run))
        assert asked_there(world) == 1
    assert world.hits(Kind.REFUSE) >= 1
    assert sum(store.health.corruptions for store in world.fleet.stores) == 0


@spans
async def test_a_long_pointer_is_not_taken_for_blocks(autojump_clock, spans):
    """With small blocks it is longer than one."""
    path = "/".join(["x" * 250] * 16)
    world = imported(path=path, spans=spans)
    raw, other = world.owners(0)
    make_raw(world, raw)
    assert len(world.nodes[other].objects[chunk_key(world.digests[0])]) > HEADER + BLOCK
    async with world.running():
        world.nodes[other].up = False
        await world.read(world.place(0), 3 * BLOCK, 10, whole=False)
        world.nodes[other].up, world.nodes[raw].up = True, False
        await trio.sleep(2)
        await world.read(world.place(0))
    assert sum(store.health.corruptions for store in world.fleet.stores) == 0


@spans
@pytest.mark.parametrize("block", range(8))
async def test_a_long_pointer_that_reaches_into_what_was_asked_for(autojump_clock, block, spans):
    path = "/".join(["x" * 250] * 16)
    world = imported(path=path, spans=spans)
    for holder in world.owners(0):
        world.point(0, holder, server_of(world), path, offset=777, tag="t" * 512)
        assert len(world.nodes[holder].objects[chunk_key(world.digests[0])]) > header_size(2 * RUN, BLOCK) + BLOCK
    async with world.running():
        await world.read(world.place(0), block * BLOCK, 10, whole=False)
    assert sum(store.health.corruptions for store in world.fleet.stores) == 0


@pytest.mark.parametrize(
    ("change", "said"),
    [
        (lambda data: data[:1000] + b"?" + data[1001:], "was changed since it was imported"),
        (lambda data: data[:-5], "was changed since it was imported"),
        (lambda data: data[: len(data) // 2], "was changed since it was imported"),
        (lambda data: b"", "was changed since it was imported"),
        (lambda data: None, "is gone since it was imported"),
    ],
    ids=["other bytes", "shorter", "half", "empty", "deleted"],
)
@pytest.mark.parametrize("known", [False, True])
@spans
async def test_an_object_that_was_changed_is_named_at_once(autojump_clock, change, said, known, spans):
    world = imported(spans=spans)
    server = server_of(world)
    node = world.nodes[server]
    async with world.running():
        if known:
            await world.read(world.place(0, run=1))
        data = change(node.externals[PATH])
        if data is None:
            del node.externals[PATH]
        else:
            node.externals[PATH], node.tags[PATH] = data, "2"
        began = trio.current_time()
        if data and len(data) > 777 + 2 * RUN - 5 and data[1000:1001] != b"?":  # what this chunk needs is still there
            await world.read(world.place(0))
        else:
            with pytest.raises(NoCopy, match=f"node {server}: {re.escape(PATH)} {said}"):
                await world.read(world.place(0))
        assert trio.current_time() - began < 1
    # Nobody is to blame.
    assert all(store.health.corruptions == 0 and store.available for store in world.fleet.stores)


async def test_wrong_bytes_of_the_same_version_are_the_fault_of_its_node(autojump_clock):
    world = imported()
    server = server_of(world)
    data = world.nodes[server].externals[PATH]
    world.nodes[server].externals[PATH] = data[:800] + b"????" + data[804:]
    async with world.running():
        with pytest.raises(NoCopy, match=f"node {server}: {re.escape(PATH)} has other bytes than when it was imported"):
            await world.read(world.place(0))
    assert world.fleet[server].health.corruptions >= 2
    assert [world.fleet[holder].health.corruptions for holder in world.owners(0)] == [0, 0]


@pytest.mark.parametrize("kind", [Kind.FLIP, Kind.TRUNCATE, Kind.RESET, Kind.REFUSE])
async def test_what_goes_wrong_once_is_tried_again(autojump_clock, kind):
    world = imported()
    world.set_plan(first(kind, [server_of(world)], at=3 * BLOCK))
    async with world.running():
        assert await world.read(world.place(0)) < 1
    assert world.hits(kind) == 1


@pytest.mark.parametrize("trouble", ["changed", "deleted", "dead", "hung"])
async def test_a_raw_copy_saves_the_read(autojump_clock, trouble):
    world = imported()
    server = server_of(world)
    raw, other = world.owners(0)
    make_raw(world, raw)
    async with world.running():
        world.nodes[raw].up = False
        await world.read(world.place(0, run=1))  # by the pointer, which is known now
        world.nodes[raw].up = True
        await trio.sleep(2)
        match trouble:
            case "changed":
                world.nodes[server].externals[PATH] = b"x" * 10
            case "deleted":
                del world.nodes[server].externals[PATH]
            case "dead":
                world.nodes[server].up = False
            case "hung":
                world.nodes[server].hung = True
        for _ in range(3):
            for chunk, run in ((0, 0), (1, 0), (1, 1), (0, 1)):
                assert await world.read(world.place(chunk, run)) < 1
    assert world.fleet[other].available, "the holder of the pointer did nothing wrong"


async def test_a_node_that_is_gone_ends_in_an_error_and_the_next_ones_do_not_wait(autojump_clock):
    world = imported(job_timeout=2.0)
    server = server_of(world)
    async with world.running():
        await world.read(world.place(0))
        world.nodes[server].up = False
        began = trio.current_time()
        with pytest.raises(NoCopy, match=f"node {server}: connection refused"):
            await world.read(world.place(0, run=1))
        assert trio.current_time() - began < 2.1
        began = trio.current_time()
        with pytest.raises(NoCopy):
            await world.read(world.place(0, run=1))
        assert trio.current_time() - began < 0.1
        world.nodes[server].up = True
        await trio.sleep(2)
        await world.read(world.place(0, run=1))


async def test_a_pointer_that_leads_nowhere_says_so(autojump_clock):
    world = imported()
    for holder in world.owners(0):
        world.point(0, holder, server_of(world), PATH)
        key = chunk_key(world.digests[0])
        held = world.nodes[holder].objects[key]
        world.nodes[holder].objects[key] = held.replace(server_of(world).encode(), b"xx")
    async with world.running():
        with pytest.raises(NoCopy, match=r"a part of llama/model.safetensors on node xx, which is not in the cluster"):
            await world.read(world.place(0))


async def test_a_pointer_that_was_replaced_by_the_bytes_is_forgotten(autojump_clock):
    """After an upload of the same model the object may go."""
    world = imported()
    async with world.running():
        await world.read(world.place(0, run=1))
        for holder in world.owners(0):
            make_raw(world, holder)
        del world.nodes[server_of(world)].externals[PATH]
        assert await world.read(world.place(0)) < 1


async def test_a_pointer_is_not_believed(autojump_clock):
    """It leads to bytes of another chunk: nothing of them is delivered."""
    world = imported()
    server = server_of(world)
    world.nodes[server].externals[PATH] = bytes(777) + world.chunks[world.digests[1]] + b"more"
    async with world.running():
        with pytest.raises(NoCopy, match="has other bytes"):
            await world.read(world.place(0))


async def test_a_flipped_codec_is_a_corrupt_copy(autojump_clock):
    world = World(sizes=[RUN])
    bad = world.owners(0)[0]
    world.set_plan(always(Kind.FLIP, [bad], at=5))
    async with world.running():
        for _ in range(3):
            await world.read(world.place(0))


@pytest.mark.parametrize("seed", range(40))
def test_random_readers_of_raw_and_external_chunks(seed):
    """Every chunk keeps one good way to its bytes, so no read may fail."""
    chance = random.Random(seed)
    sizes = [chance.choice((BLOCK, BLOCK + 1, RUN, RUN + 1, 2 * RUN, 3 * RUN - 7)) for _ in range(6)]
    world = World(seed=seed, nodes=4, replicas=2, sizes=sizes, slots=chance.randrange(2, 9), latency=0.001)
    holders: dict[str, tuple[str, ...]] = dict(world.holders)
    for chunk in range(6):
        for holder in world.owners(chunk):
            if chance.random() < 0.6:
                server = chance.choice(world.names)
                path = f"foreign/{chunk}-{holder}-{server}"  # its own, or the other's bytes might lie over them
                world.point(chunk, holder, server, path, offset=chance.randrange(5000))
                holders[path] = (server,)
    world.set_plan(OneGoodCopy(chance, holders, rate=chance.choice((0.05, 0.3))))

    async def reader(chance: random.Random) -> None:
        for _ in range(20):
            chunk = chance.randrange(6)
            place = world.place(chunk, chance.randrange(world.runs(chunk)))
            start = chance.randrange(place.length)
            await world.read(place, start, chance.randrange(1, place.length - start + 1), whole=chance.random() < 0.5)

    async def main() -> None:
        with trio.fail_after(3600):
            async with world.running():
                async with trio.open_nursery() as nursery:
                    for _ in range(4):
                        nursery.start_soon(partial(reader, random.Random(chance.random())))
                await world.settle()

    simulate(main, seed)
    assert sum(node.asked[path] for node in world.nodes.values() for path in node.externals) > 0


async def test_a_node_that_changes_its_mind_cannot_touch_what_readers_see(autojump_clock):
    """It sends one good block of a raw copy, then a bad one, then calls itself external and leads to other bytes."""
    world = imported(size=RUN)
    honest, liar = world.owners(0)
    make_raw(world, honest)
    server = world.nodes[server_of(world)]
    server.externals[PATH] = bytes(len(server.externals[PATH]))
    node, key = world.nodes[liar], chunk_key(world.digests[0])
    raw = bytearray(world.nodes[honest].objects[key])
    raw[HEADER + BLOCK + 7] ^= 1
    pointer = node.objects[key]

    def plan(ask):
        if ask.node == liar:
            node.objects[key] = pointer if ask.offset == 0 else bytes(raw)

    async with world.running():
        node.up = False
        await world.read(world.place(0), 7 * BLOCK, 10, whole=False)  # the header is known from the honest one
        node.up, world.nodes[honest].up = True, False
        await trio.sleep(2)
        world.set_plan(plan)
        with pytest.raises(NoCopy):
            await world.read(world.place(0), 0, 2 * BLOCK, whole=False)
        assert server.asked[PATH], "it was followed"
        await world.read(world.place(0), 0, BLOCK, whole=False)
        await world.settle()
