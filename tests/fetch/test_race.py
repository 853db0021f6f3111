"""The race of copies itself: who is asked, when, and what it costs."""

from types import SimpleNamespace

import pytest
import trio

from shardfs.core.health import NodeHealth
from shardfs.core.hedge import HedgeOptions
from shardfs.core.keys import chunk_key
from shardfs.testing.faults import Ask, Fault, Kind
from tests.fetch.world import BLOCK, HEADER, RUN, World


async def test_hedges_keep_to_their_budget(autojump_clock):
    """Every first answer stalls for a while, every second one too: the speculation ends with the savings."""
    world = World(sizes=[RUN] * 200, slots=20)
    seen: set[str] = set()

    def plan(ask: Ask) -> Fault | None:
        if ask.key in seen:
            return None
        seen.add(ask.key)
        return Fault(Kind.SLOW, factor=300)  # 0.3 s and more, but it comes

    world.set_plan(plan)
    budget = HedgeOptions()
    async with world.running():
        for store in world.fleet.stores:
            store.health.failed = lambda *_: None  # a node that stays in favour is hedged against at a price
        for chunk in range(200):
            await world.read(world.place(chunk))
    hedges = world.metrics.total(world.metrics.hedges)
    assert 0.9 * budget.budget_burst <= hedges <= budget.budget_burst + budget.budget_share * 400


async def test_hedges_to_a_farther_node_have_a_smaller_budget(autojump_clock):
    """As above, with every other copy far away: its bytes may cost money."""
    world = World(nodes=2, sizes=[RUN] * 200, slots=20)
    near, far = world.fleet.stores
    far.read_priority = 1
    world.set_plan(lambda ask: Fault(Kind.SLOW, factor=300) if ask.node == near.node else None)
    budget = HedgeOptions()
    async with world.running():
        near.health.failed = lambda *_: None
        for chunk in range(200):
            await world.read(world.place(chunk))
    hedges = world.metrics.total(world.metrics.hedges)
    assert 0.9 * budget.far_budget_burst <= hedges <= budget.far_budget_burst + budget.far_budget_share * 400
    assert hedges < 0.9 * budget.budget_burst, "another budget than that of near nodes"
    assert 0 < sum(world.nodes[far.node].asked.values()) <= hedges, "and nothing else takes its bytes"


@pytest.mark.parametrize("other", [0, 1, 2])
async def test_only_a_node_that_is_farther_than_the_lead_is_paid_for_from_the_smaller_budget(other):
    world = World()
    for store, priority in zip(world.fleet.stores, (0, 1, 2), strict=True):
        store.read_priority = priority
    hedging = world.engine._racer._hedging
    paid_from = hedging.budget_for(SimpleNamespace(server=world.fleet.stores[1]), world.fleet.stores[other])
    assert paid_from is (hedging.far_budget if other == 2 else hedging.budget)


async def test_leaving_a_node_in_trouble_needs_no_budget(autojump_clock):
    world = World(sizes=[RUN] * 300, slots=610)
    async with world.running():
        for chunk in range(300):
            await world.read(world.place(chunk), 0, BLOCK, whole=False)
        world.nodes["n0"].hung = True
        with trio.fail_after(0.4):
            async with trio.open_nursery() as readers:
                for chunk in range(300):
                    readers.start_soon(world.read, world.place(chunk))
        world.nodes["n0"].hung = False
        await world.settle()
    assert world.nodes["n0"].cancelled > HedgeOptions().budget_burst


async def test_a_rival_asks_only_for_what_is_missing(autojump_clock):
    world = World()
    lead = world.owners(0)[0]
    stalled = 5 * BLOCK + HEADER
    first: list[str] = []

    def plan(ask: Ask) -> Fault | None:
        first.append(ask.node)
        return Fault(Kind.HANG, stalled) if ask.node == first[0] else None

    world.set_plan(plan)
    async with world.running():
        await world.read(world.place(0))
    lead = first[0]
    (rival,) = [node for name, node in world.nodes.items() if name in world.owners(0) and name != lead]
    assert rival.ranges == [(chunk_key(world.digests[0]), HEADER + 5 * BLOCK, 3 * BLOCK)]
    assert world.metrics.total(world.metrics.fetched_bytes) == RUN


async def test_a_lead_that_comes_back_keeps_the_race(autojump_clock):
    """A pause of 60 ms, then full speed: the rival, slow itself, is let go and nobody is blamed."""
    world = World(bandwidth=1e7)
    first: list[str] = []

    def plan(ask: Ask) -> None:
        first.append(ask.node)
        world.nodes[ask.node].latency = 0.06 if ask.node == first[0] else 1.0

    async with world.running():
        for name in world.names:
            world.fleet[name].health.answered(trio.current_time(), 0.001)
        world.set_plan(plan)
        assert await world.read(world.place(0)) < 0.07
        await world.settle()
    assert len(first) == 2
    assert world.metrics.total(world.metrics.hedges) == 1
    assert world.fleet[first[0]].available


async def test_a_lead_that_trickles_is_overtaken_and_remembered(autojump_clock):
    """Never silent for long, and never done: four times what the other copy would need is enough."""
    world = World(sizes=[RUN] * 12, slots=16)
    slow = world.owners(0)[0]
    shared = [chunk for chunk in range(1, 12) if slow in world.owners(chunk)]
    assert len(shared) > 3
    async with world.running():
        for name in world.names:
            world.fleet[name].health.answered(trio.current_time(), 0.001, pace=1e-9)
        world.fleet[slow].health.answered(trio.current_time(), 0.0001)  # the one to ask, as far as is known
        world.nodes[slow].bandwidth = BLOCK / 0.02  # a block each 20 ms: 0.16 s in all
        assert 0.1 < await world.read(world.place(0)) < 0.11
        assert world.metrics.total(world.metrics.hedges) == 1
        assert world.fleet[slow].available  # it did answer: no probes, nothing to recover from
        for chunk in shared:
            assert await world.read(world.place(chunk)) < 0.01
    assert world.nodes[slow].asked.total() == 1


async def test_a_node_that_never_answered_is_judged_by_its_neighbours(autojump_clock):
    """Hung from the start, while another one is seen to answer within a millisecond: 50 ms of silence are enough."""
    world = World(sizes=[RUN] * 24, slots=60)
    hung = world.owners(0)[0]
    world.nodes[hung].hung = True
    async with world.running():
        began = trio.current_time()
        async with trio.open_nursery() as readers:
            for chunk in range(24):
                readers.start_soon(world.read, world.place(chunk))
        assert 0.05 < trio.current_time() - began < 0.12
        world.nodes[hung].hung = False
        await world.settle()
    assert world.nodes[hung].cancelled >= 4, "the fault did not hit"


async def test_a_far_node_that_never_answered_is_not_judged_by_near_ones(autojump_clock):
    world = World()
    far = world.fleet.stores[0]
    far.read_priority = 1
    near = world.fleet.stores[1:]
    for store in near:
        store.health.answered(trio.current_time(), 0.001)
    assert world.fleet.hedge_latency(far) is None
    assert world.fleet.hedge_latency(near[0]) == 0.001
    for seconds in (0.001, 0.3):
        near[0].health.answered(trio.current_time(), seconds)
    assert world.fleet.hedge_latency(near[0]) == 0.3  # its own
    for store in near[1:]:
        store.health = NodeHealth()
        assert world.fleet.hedge_latency(store) == 0.001  # that of one which is usually quick
    far.health.answered(trio.current_time(), 0.2)
    assert world.fleet.hedge_latency(far) == 0.2


@pytest.mark.parametrize("known", [True, False])
async def test_a_node_in_trouble_is_left_by_those_that_wait_for_it(autojump_clock, known):
    """Usually slow, so that its silence means little; then it fails somebody else."""
    world = World(latency=0.06)
    hung = world.owners(0)[0]
    async with world.running():
        for name in world.names:
            world.fleet[name].health.answered(trio.current_time(), 0.06 if name == hung else 0.2)
        world.nodes[hung].hung = True

        async def fail_elsewhere() -> None:
            await trio.sleep(0.01)
            if known:
                world.fleet[hung].late("silent for somebody else")

        async with trio.open_nursery() as nursery:
            nursery.start_soon(fail_elsewhere)
            took = await world.read(world.place(0))
        world.nodes[hung].hung = False
        await world.settle()
    assert world.nodes[hung].cancelled == 1, "the fault did not hit"
    assert took < 0.18 if known else took > 0.24


async def test_slow_nodes_alone_are_not_chased(autojump_clock):
    """All copies trickle: asking the others as well would only make it worse."""
    world = World(sizes=[RUN] * 6, slots=8, bandwidth=BLOCK / 0.02)
    async with world.running():
        for name in world.names:
            world.fleet[name].health.answered(trio.current_time(), 0.001, pace=0.02 / BLOCK)
        for chunk in range(6):
            assert await world.read(world.place(chunk)) < 0.2
    assert world.metrics.total(world.metrics.hedges) == 0


async def test_blocks_of_a_rival_that_fails_later_are_not_fetched_again(autojump_clock):
    world = World(nodes=4, replicas=3)
    order: list[str] = []

    def plan(ask: Ask) -> Fault | None:
        if ask.node not in order:
            order.append(ask.node)
        if ask.node == order[0]:
            return Fault(Kind.HANG, HEADER)
        return Fault(Kind.RESET, HEADER + 5 * BLOCK) if ask.node == order[1] else None

    world.set_plan(plan)
    async with world.running():
        await world.read(world.place(0))
        await world.settle()
    assert world.metrics.total(world.metrics.fetched_bytes) == RUN
    third = world.nodes[order[2]]
    assert third.ranges == [(chunk_key(world.digests[0]), HEADER + 5 * BLOCK, 3 * BLOCK)]


@pytest.mark.parametrize("instant", [0.0, 0.25, 0.2501])
async def test_lead_and_rival_fail_in_the_same_instant(autojump_clock, instant):
    world = World(nodes=4, replicas=3)
    started = trio.current_time()
    order: list[str] = []

    async def refuse_at(ask_number: int) -> None:
        await trio.sleep_until(started + 0.25 + instant)

    for name in world.owners(0)[:2]:
        node = world.nodes[name]

        async def get(key, into, *, offset=0, arrived=None, node=node):
            order.append(node.node)
            if len(order) > 2:
                return await type(node).get(node, key, into, offset=offset, arrived=arrived)
            await refuse_at(len(order))
            from shardfs.errors import Unavailable

            raise Unavailable(node.node, "both at once")

        node.get = get
    last = world.nodes[world.owners(0)[2]]
    last.latency = 0.05
    async with world.running():
        for name in world.owners(0)[:2]:
            world.fleet[name].health.answered(trio.current_time(), 0.0001)
        for name in world.names:
            if name not in world.owners(0)[:2]:
                world.fleet[name].health.answered(trio.current_time(), 0.05)
        assert await world.read(world.place(0)) < 1.5
        await world.settle()
    assert len(order) >= 2, "the fault did not hit"


async def test_an_answer_cancelled_late_never_reaches_a_reader(autojump_clock):
    """The cancelled call scribbles over its buffer for a while: nobody else may have that memory yet."""
    world = World(sizes=[RUN] * 40, slots=4)
    scribbled = 0
    for node in world.nodes.values():
        plain_get = node.get

        async def get(key, into, *, offset=0, arrived=None, plain_get=plain_get):
            nonlocal scribbled
            try:
                return await plain_get(key, into, offset=offset, arrived=arrived)
            except trio.Cancelled:
                with trio.CancelScope(shield=True):
                    for _ in range(20):
                        into[:] = b"\xee" * len(into)  # even what had been announced: it is not published
                        scribbled += 1
                        await trio.sleep(0.002)
                raise

        node.get = get
    seen: set[str] = set()

    def plan(ask: Ask) -> Fault | None:
        if ask.key in seen:
            return None
        seen.add(ask.key)
        return Fault(Kind.HANG, 0)

    world.set_plan(plan)
    async with world.running(), trio.open_nursery() as readers:
        for chunk in range(40):
            readers.start_soon(world.read, world.place(chunk))
    assert scribbled >= 100
