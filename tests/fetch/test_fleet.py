"""Watched nodes and their probes: who is suspect, when he is asked again, and what a failure of each kind says."""

import pytest
import trio

from shardfs.core.keys import chunk_key
from shardfs.errors import Denied, NotFound, ShardfsError, Unavailable
from shardfs.testing.faults import Kind, always
from tests.fetch.world import RUN, World


@pytest.fixture
def world() -> World:
    return World(sizes=[RUN])


async def get(world: World, node: str, kind: Kind | None = None) -> None:
    world.set_plan(always(kind, [node]) if kind else always(Kind.REFUSE, []))
    await world.fleet[node].get(chunk_key(world.digests[0]), memoryview(bytearray(100)))


@pytest.mark.parametrize(
    ("kind", "error", "suspect"),
    [
        (Kind.REFUSE, Unavailable, True),
        (Kind.RESET, Unavailable, True),
        (Kind.ENDLESS, Unavailable, True),
        (Kind.MISSING, NotFound, False),
        (Kind.DENIED, Denied, False),
    ],
)
async def test_what_a_failure_says_of_the_node(autojump_clock, world, kind, error, suspect):
    node = world.owners(0)[0]
    with pytest.raises(error):
        await get(world, node, kind)
    assert world.fleet[node].available == (not suspect)
    assert world.fleet[node].health.failures == suspect


@pytest.mark.parametrize("kind", [None, Kind.MISSING])
async def test_every_answer_is_a_sign_of_life(autojump_clock, world, kind):
    node = world.owners(0)[0]
    world.fleet[node].late("silent")
    assert not world.fleet[node].available
    if kind is None:
        await get(world, node)
    else:
        with pytest.raises(NotFound):
            await get(world, node, kind)
    assert world.fleet[node].available


async def test_the_log_says_when_a_node_goes_and_comes(autojump_clock, world, caplog):
    """Whoever notices: a read brings the node back here, and no probe."""
    caplog.set_level("INFO")
    node = world.owners(0)[0]
    for _ in range(3):
        world.fleet[node].late("silent")
    await get(world, node)
    await get(world, node)
    assert caplog.messages == [f"node {node} is suspect: silent", f"node {node} answers again (was: silent)"]


@pytest.mark.parametrize("well", [True, False])
async def test_the_log_of_a_node_that_comes_and_goes_is_short_and_true_in_the_end(autojump_clock, world, caplog, well):
    caplog.set_level("INFO")
    node = world.owners(0)[0]
    for _ in range(1000):
        world.fleet[node].late("silent")
        await get(world, node)
    if not well:
        world.fleet[node].late("silent")
    seconds = trio.current_time()
    await trio.sleep(6)
    if well:
        await get(world, node)
    else:
        world.fleet[node].late("silent")
    assert len(caplog.messages) <= 5 + seconds
    assert (" answers again" in caplog.messages[-1]) is well


async def test_a_cancelled_call_says_nothing(autojump_clock, world):
    node = world.owners(0)[0]
    with trio.move_on_after(0.5):
        await get(world, node, Kind.HANG)
    assert world.fleet[node].available
    assert world.fleet[node].health.failures == 0


async def test_latency_is_the_time_to_the_first_byte(autojump_clock):
    world = World(sizes=[RUN], latency=0.2, bandwidth=1e4)  # 0.2 s, then 0.4 s for each piece of 4 KiB
    node = world.owners(0)[0]
    into = memoryview(bytearray(RUN))
    await world.fleet[node].get(chunk_key(world.digests[0]), into)
    assert world.fleet[node].health.latency_p95() == pytest.approx(0.6096, abs=0.01)


async def test_nobody_is_probed_while_all_are_well(autojump_clock, world):
    async with world.running():
        await trio.sleep(100)
    assert [node.probes for node in world.nodes.values()] == [0, 0, 0]


async def test_a_dead_node_is_probed_with_growing_pauses(autojump_clock, world):
    node = world.nodes["n0"]
    node.up = False
    world.fleet["n0"].late("refused")
    async with world.running():
        await trio.sleep(1.5)
        early = node.probes
        await trio.sleep(100)
        assert 4 <= early <= 9
        # Each failed probe counts once: about one a second in the end, with jitter.
        assert 80 <= node.probes - early <= 210
        assert [other.probes for other in world.nodes.values()][1:] == [0, 0]
        node.up = True
        await trio.sleep(1.2)
        assert world.fleet["n0"].available


async def test_each_failed_probe_counts_once(autojump_clock, world):
    node = world.nodes["n0"]
    node.up = False
    world.fleet["n0"].late("refused")
    async with world.running():
        await trio.sleep(10)
    assert world.fleet["n0"].health.failures == node.probes + 1


async def test_a_hung_node_has_one_probe_at_a_time(autojump_clock, world):
    node = world.nodes["n0"]
    node.hung = True
    world.fleet["n0"].late("silent")
    async with world.running():
        await trio.sleep(30)
        assert 12 <= node.probes <= 30
        assert world.fleet["n0"].health.reason == "no answer to a probe"
        node.hung = False
        await trio.sleep(2.1)
        assert world.fleet["n0"].available


@pytest.mark.parametrize("error", [Denied("n0", "401"), ShardfsError("something else")])
async def test_a_strange_answer_to_a_probe_is_no_storm(autojump_clock, world, monkeypatch, error):
    asked = 0

    async def stat() -> None:
        nonlocal asked
        asked += 1
        await trio.lowlevel.checkpoint()
        raise error

    monkeypatch.setattr(world.nodes["n0"], "stat", stat)
    world.fleet["n0"].late("silent")
    async with world.running():
        await trio.sleep(20)
    assert 10 <= asked <= 50


async def test_nothing_there_is_an_answer_too(autojump_clock, world, monkeypatch):
    async def stat() -> None:
        await trio.lowlevel.checkpoint()
        raise NotFound("no such page")

    monkeypatch.setattr(world.nodes["n0"], "stat", stat)
    world.fleet["n0"].late("silent")
    async with world.running():
        await trio.sleep(1)
        assert world.fleet["n0"].available


@pytest.mark.usefixtures("bugs_expected")
async def test_a_bug_in_a_probe_does_not_end_the_probes(autojump_clock, world, monkeypatch, caplog):
    async def stat() -> None:
        await trio.lowlevel.checkpoint()
        raise ZeroDivisionError("bug")

    world.fleet["n0"].late("silent")
    async with world.running():
        with monkeypatch.context() as patch:
            patch.setattr(world.nodes["n0"], "stat", stat)
            await trio.sleep(3)
        await trio.sleep(2)
        assert world.fleet["n0"].available
    assert "ZeroDivisionError" in caplog.text
