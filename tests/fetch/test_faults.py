"""The fault matrix, as far as it concerns reading from nodes: each fault really hits, and no reader sees it.

Times are virtual, so the numbers are exact: what the choreography adds, without the machine.
"""

import pytest
import trio

from shardfs.core.chunk import header_size
from shardfs.core.keys import chunk_key
from shardfs.core.pointer import POINTER_BYTES_MAX
from shardfs.errors import AllDenied, Denied, NoCopy
from shardfs.testing.faults import LYING, Ask, Fault, Kind, always
from tests.fetch.world import BLOCK, HEADER, RUN, World

OBJECT = HEADER + RUN
PLACES = {"nothing": 0, "one byte": 1, "header": HEADER, "half": OBJECT // 2, "all but one": OBJECT - 1, "all": OBJECT}
CASES = [
    *((Kind.REFUSE, 0), (Kind.MISSING, 0), (Kind.DENIED, 0), (Kind.SLOW, 0), (Kind.ENDLESS, 0)),
    *((Kind.GARBAGE, 0), (Kind.OTHER_DATA, 0), (Kind.OTHER_CHUNK, 0)),
    *((kind, at) for kind in (Kind.RESET, Kind.HANG, Kind.TRUNCATE, Kind.FLIP) for at in PLACES.values()),
]
EXTRA_SECONDS = {Kind.HANG: 0.3, Kind.SLOW: 0.3}


class FirstAsk:
    """The fault hits whichever node is asked first for each chunk."""

    def __init__(self, fault: Fault) -> None:
        self.fault = fault
        self.seen: set[str] = set()

    def __call__(self, ask: Ask) -> Fault | None:
        if ask.key in self.seen:
            return None
        self.seen.add(ask.key)
        return self.fault


async def healthy_seconds(**options) -> float:
    world = World(**options)
    async with world.running():
        return await world.read(world.place(0))


@pytest.mark.parametrize(("kind", "at"), CASES)
async def test_one_bad_answer_is_never_seen(autojump_clock, kind, at):
    usual = await healthy_seconds(bandwidth=1e8)
    world = World(plan=FirstAsk(Fault(kind, at, factor=1000)), bandwidth=1e8)
    async with world.running():
        took = await world.read(world.place(0))
        await world.settle()
    assert world.hits(kind) == 1
    assert took - usual <= EXTRA_SECONDS.get(kind, 0.05)
    assert world.metrics.total(world.metrics.corrupt) == (kind in LYING)
    assert world.metrics.total(world.metrics.reads_failed) == 0
    # Bytes count once, however many nodes delivered them.
    assert world.metrics.total(world.metrics.fetched_bytes) == RUN


@pytest.mark.parametrize(("kind", "at"), CASES)
@pytest.mark.parametrize("part", ["header", "blocks", "both"])
async def test_the_middle_of_a_chunk_whose_header_is_not_known(autojump_clock, kind, at, part):
    if (kind, part) == (Kind.OTHER_DATA, "header"):
        return  # the header is right
    world = World(sizes=[2 * RUN], spans=False)
    first = world.owners(0)[0]
    seen = set()

    def plan(ask: Ask) -> Fault | None:
        nonlocal first
        first = ask.node if not seen else first
        asked = "header" if ask.offset == 0 else "blocks"
        if ask.node != first or part not in (asked, "both") or asked in seen:
            return None
        seen.add(asked)
        return Fault(kind, min(at, ask.length - 1))

    world.set_plan(plan)
    async with world.running():
        await world.read(world.place(0, run=1), 3 * BLOCK + 5, 2 * BLOCK, whole=False)
        await world.settle()
    assert world.hits(kind) >= 1


HEAD = header_size(2 * RUN, BLOCK)
HEAD_SPAN = HEAD + POINTER_BYTES_MAX
IN_ONE = (0, 1, HEAD - 1, HEAD, HEAD_SPAN - 1, HEAD_SPAN, HEAD_SPAN + BLOCK, HEAD_SPAN + 2 * BLOCK - 1)
CASES_IN_ONE = [
    *((kind, at) for kind, at in CASES if kind not in (Kind.RESET, Kind.HANG, Kind.TRUNCATE, Kind.FLIP)),
    *((kind, at) for kind in (Kind.RESET, Kind.HANG, Kind.TRUNCATE, Kind.FLIP) for at in IN_ONE),
]


@pytest.mark.parametrize(("kind", "at"), CASES_IN_ONE)
async def test_header_and_blocks_in_one_answer(autojump_clock, kind, at):
    """A fault at each place where such an answer can go wrong: within the header, behind it, between the two, later."""
    usual = World(sizes=[2 * RUN], bandwidth=1e8)
    async with usual.running():
        healthy = await usual.read(usual.place(0, run=1), 3 * BLOCK + 5, 2 * BLOCK - 10, whole=False)
    assert usual.asked(0) == 1, "one request for both"
    world = World(sizes=[2 * RUN], bandwidth=1e8, plan=FirstAsk(Fault(kind, at, factor=1000)))
    async with world.running():
        took = await world.read(world.place(0, run=1), 3 * BLOCK + 5, 2 * BLOCK - 10, whole=False)
        await world.settle()
    unseen = kind is Kind.FLIP and HEAD <= at < HEAD_SPAN  # nobody looks at the blocks that come with the header
    assert world.hits(kind) == 1
    assert took - healthy <= EXTRA_SECONDS.get(kind, 0.05)
    assert world.metrics.total(world.metrics.corrupt) == (kind in LYING and not unseen)
    assert world.metrics.total(world.metrics.fetched_bytes) == 2 * BLOCK


async def test_a_block_of_one_answer_is_read_before_the_next_has_come(autojump_clock):
    world = World(sizes=[2 * RUN], bandwidth=1e6)
    place = world.place(0, run=1)
    took = {}

    async def read(blocks: int) -> None:
        took[blocks] = await world.read(place, 3 * BLOCK, blocks * BLOCK, whole=False)

    async with world.running():
        async with trio.open_nursery() as nursery:
            nursery.start_soon(read, 4)
            await trio.sleep(0.001)
            nursery.start_soon(read, 1)
        await world.settle()
    assert world.asked(0) == 1
    assert took[4] - took[1] > 2 * BLOCK / 1e6


@pytest.mark.parametrize("kind", [Kind.REFUSE, Kind.RESET, Kind.HANG])
async def test_a_node_lost_for_good_is_paid_for_once(autojump_clock, kind):
    usual = await healthy_seconds(latency=0.002)
    world = World(sizes=[RUN] * 30, slots=40)
    victim = world.owners(0)[0]
    node = world.nodes[victim]
    paid = 0
    async with world.running():
        node.hung = kind is Kind.HANG  # probes get no answer either
        node.up = kind is not Kind.REFUSE
        world.set_plan(always(Kind.RESET, [victim] if kind is Kind.RESET else [], at=HEADER))
        for name in world.names:
            world.nodes[name].latency = 0.001 if name == victim else 0.002
        for chunk in range(30):
            extra = await world.read(world.place(chunk)) - usual
            paid += extra > 0.005
            assert extra <= (0.3 if kind is Kind.HANG else 0.05)
    assert node.hits[kind] >= 1
    assert paid <= 1


async def test_reads_in_flight_leave_a_node_that_hangs_together(autojump_clock):
    world = World(sizes=[RUN] * 24, slots=60)
    async with world.running():
        for chunk in range(24):  # healthy once, so that latencies are known
            await world.read(world.place(chunk), 0, BLOCK, whole=False)
        world.nodes["n0"].hung = True
        with trio.fail_after(0.3):
            async with trio.open_nursery() as nursery:
                for chunk in range(24):
                    nursery.start_soon(world.read, world.place(chunk))
        world.nodes["n0"].hung = False
        await world.settle()
    assert world.nodes["n0"].cancelled >= 4, "the fault did not hit"


async def test_killed_in_the_middle_and_back(autojump_clock):
    world = World(sizes=[RUN] * 12, bandwidth=1e6, slots=16)
    async with world.running():
        async with trio.open_nursery() as nursery:
            for chunk in range(12):
                nursery.start_soon(world.read, world.place(chunk))
            await trio.sleep(0.01)
            world.nodes["n0"].up = False
        assert not world.fleet["n0"].available
        assert world.metrics.total(world.metrics.failures) >= 1
        world.nodes["n0"].up = True
        await trio.sleep(2)
        assert world.fleet["n0"].available


@pytest.mark.parametrize("nodes_hung", [1, 2])
async def test_the_third_copy_is_found_behind_hung_nodes(autojump_clock, nodes_hung):
    world = World(nodes=4, replicas=3)
    for owner in world.owners(0)[:nodes_hung]:
        world.nodes[owner].hung = True
    async with world.running():
        assert await world.read(world.place(0)) <= 0.3 * nodes_hung + 0.3
        await world.settle()


async def test_a_copy_far_down_the_ranking_is_found(autojump_clock):
    world = World(nodes=6, replicas=2)
    key = chunk_key(world.digests[0])
    ranking = [node.id for node in world.placement.ranking(world.digests[0])]
    data = world.nodes[ranking[0]].objects.pop(key)
    del world.nodes[ranking[1]].objects[key]
    world.nodes[ranking[5]].objects[key] = data
    async with world.running():
        assert await world.read(world.place(0)) < 0.05


async def test_copies_that_are_bad_in_different_places_make_one_good_copy(autojump_clock):
    world = World(replicas=3)
    key = chunk_key(world.digests[0])
    for number, owner in enumerate(world.owners(0)):
        damaged = bytearray(world.nodes[owner].objects[key])
        for block in range(number, 8, 3):  # each copy lacks every third block
            damaged[HEADER + block * BLOCK] ^= 1
        world.nodes[owner].objects[key] = bytes(damaged)
    async with world.running():
        assert await world.read(world.place(0)) < 1


async def test_a_bad_block_elsewhere_does_not_fail_a_read(autojump_clock):
    world = World()
    key = chunk_key(world.digests[0])
    for owner in world.owners(0):
        damaged = bytearray(world.nodes[owner].objects[key])
        damaged[HEADER + 2 * BLOCK] ^= 1
        world.nodes[owner].objects[key] = bytes(damaged)
    async with world.running():
        await world.read(world.place(0), 6 * BLOCK, BLOCK, whole=True)
        await world.read(world.place(0), 0, 2 * BLOCK, whole=True)
        with pytest.raises(NoCopy, match="does not match its digest"):
            await world.read(world.place(0), 0, 3 * BLOCK, whole=True)
        await world.settle()


async def test_a_lying_node_is_put_aside_and_still_serves_what_only_it_has(autojump_clock):
    world = World(sizes=[RUN] * 20, slots=30)
    liar = world.owners(0)[0]
    only_here = next(c for c in range(20) if world.owners(c)[0] == liar and c)
    for name in world.names:
        if name != liar:
            world.nodes[name].objects.pop(chunk_key(world.digests[only_here]), None)

    def lie(ask: Ask) -> Fault | None:
        return Fault(Kind.FLIP, 99) if ask.node == liar and ask.key != chunk_key(world.digests[only_here]) else None

    world.set_plan(lie)
    for name in world.names:
        world.nodes[name].latency = 0.0001 if name == liar else 0.01
    async with world.running():
        for chunk in range(20):
            if chunk != only_here:
                await world.read(world.place(chunk))
        assert world.hits(Kind.FLIP) == world.fleet[liar].health.options.corrupt_strikes
        assert not world.fleet[liar].available
        await world.read(world.place(only_here))
        await trio.sleep(world.fleet[liar].health.options.quarantine_seconds + 1)
        assert world.fleet[liar].available


# ------------------------------------------------------------------------------------------------ no copy left


@pytest.mark.parametrize("kind", [Kind.REFUSE, Kind.HANG, Kind.RESET])
@pytest.mark.parametrize("nodes", [2, 5], ids=["all nodes", "the owners only"])
async def test_all_copies_gone(autojump_clock, kind, nodes):
    world = World(nodes=nodes, replicas=2, job_timeout=9.0)
    owners = world.owners(0)
    for owner in owners:
        world.nodes[owner].up, world.nodes[owner].hung = kind is not Kind.REFUSE, kind is Kind.HANG
    world.set_plan(always(kind, owners))
    async with world.running():
        began = trio.current_time()
        with pytest.raises(NoCopy) as failure:
            await world.read(world.place(0))
        assert trio.current_time() - began <= 9.01
        for owner in owners:
            assert owner in str(failure.value)  # names the nodes and their reasons
        began = trio.current_time()
        if kind is not Kind.RESET:  # a node that answers probes is tried again each time
            with pytest.raises(NoCopy, match=owners[0]):
                await world.read(world.place(0))
            assert trio.current_time() - began <= 0.05, "fails fast while nobody can answer"
        world.set_plan(always(kind, []))
        for owner in owners:
            world.nodes[owner].up, world.nodes[owner].hung = True, False
        await trio.sleep(2)
        assert await world.read(world.place(0)) < 0.1
        await world.settle()


async def test_nobody_has_it_is_known_at_once(autojump_clock):
    world = World()
    for node in world.nodes.values():
        node.objects.clear()
    async with world.running():
        with trio.fail_after(0.1), pytest.raises(NoCopy, match="no object"):
            await world.read(world.place(0))


async def test_refused_credentials_are_not_asked_again(autojump_clock):
    world = World(plan=always(Kind.DENIED, ["n0", "n1", "n2"]))
    async with world.running():
        with trio.fail_after(0.1), pytest.raises(AllDenied, match="401"):
            await world.read(world.place(0))
        assert world.asked(0) == 2 * 3  # for the whole chunk, then for what was asked for
        assert all(store.available for store in world.fleet.stores)


async def test_refused_by_some_and_not_had_by_others_is_no_refusal(autojump_clock):
    """Then other credentials need not help."""
    world = World(plan=always(Kind.DENIED, ["n0", "n1"]))
    world.nodes["n2"].objects.clear()
    async with world.running():
        with trio.fail_after(0.1), pytest.raises(NoCopy, match="401") as failure:
            await world.read(world.place(0))
        assert not isinstance(failure.value, Denied)


async def test_a_reader_waits_for_a_node_that_restarts(autojump_clock):
    world = World(nodes=1, replicas=1)
    world.nodes["n0"].up = False
    async with world.running(), trio.open_nursery() as nursery:

        async def start_again() -> None:
            await trio.sleep(4)
            world.nodes["n0"].up = True

        nursery.start_soon(start_again)
        assert 4 <= await world.read(world.place(0)) <= 5


async def test_one_hangs_while_the_other_restarts(autojump_clock):
    world = World(nodes=2)
    world.nodes["n0"].hung = True
    world.nodes["n1"].up = False
    async with world.running(), trio.open_nursery() as nursery:

        async def start_again() -> None:
            await trio.sleep(3)
            world.nodes["n1"].up = True

        nursery.start_soon(start_again)
        assert 3 <= await world.read(world.place(0)) <= 5


@pytest.mark.parametrize("latency", [0.6, 1.5, 3.0])
@pytest.mark.parametrize("nodes", [1, 2, 5])
async def test_a_cluster_that_is_slow_as_a_whole_is_read(autojump_clock, latency, nodes):
    world = World(nodes=nodes, replicas=min(2, nodes), latency=latency, sizes=[RUN] * 3)
    async with world.running():
        took = [await world.read(world.place(chunk)) for chunk in range(3)]
    assert max(took) < 9
    assert took[-1] <= 3 * latency + 0.5, took
