"""R copies whatever the nodes do, in virtual time: who is asked, how often, how long, and who takes whose place."""

import random
from collections.abc import Callable

import pytest
import trio

from shardfs.admin.cutting import Piece
from shardfs.admin.target import CopyOptions
from shardfs.core.chunk import BLOCK_SIZE, make_header
from shardfs.core.keys import chunk_key
from shardfs.errors import Corrupt, Denied, NoSpace, NotEnoughNodes
from shardfs.store.http_client import Throttled
from shardfs.testing.memory_store import Fault

OPTIONS = CopyOptions()
CHANCE = random.Random()


@pytest.fixture(autouse=True)
def same_chunks_each_time() -> None:
    """Their names say which nodes own them: some would not meet the fault."""
    CHANCE.seed(1)


def piece(data: bytes | None = None) -> Piece:
    plain = memoryview(data or CHANCE.randbytes(1000))
    digest, header = make_header(plain, BLOCK_SIZE)
    return Piece(digest, header, plain)


def ranking(rig, chunk: Piece) -> list[str]:
    return [node.id for node in rig.placement.ranking(chunk.digest)]


def holders(rig, chunk: Piece) -> set[str]:
    return {node for node, store in rig.stores.items() if chunk_key(chunk.digest) in store.objects}


async def test_owners_get_it_once(rig) -> None:
    chunk = piece()
    copies = rig.copies()
    assert await copies.ensure(chunk)
    assert not await copies.ensure(chunk)
    owners = ranking(rig, chunk)[:2]
    assert holders(rig, chunk) == set(owners)
    assert [rig.calls(node, "put") for node in owners] == [1, 1]
    assert copies.replaced == {}


async def test_copies_are_made_at_the_same_time(rig, autojump_clock: trio.testing.MockClock) -> None:
    for store in rig.stores.values():
        store.pause = lambda op, key: 1.0
    await rig.copies().ensure(piece())
    assert trio.current_time() == pytest.approx(2.0)  # one question and one put, not two of each


async def test_only_the_copy_that_is_missing_is_sent(rig) -> None:
    chunk = piece()
    await rig.copies().ensure(chunk)
    lost, kept = ranking(rig, chunk)[:2]
    del rig.stores[lost].objects[chunk_key(chunk.digest)]
    assert await rig.copies().ensure(chunk)
    assert (rig.calls(lost, "put"), rig.calls(kept, "put")) == (2, 1)


async def test_draining_nodes_get_nothing_new(make_rig) -> None:
    rig = make_rig(nodes=4, draining="b")
    for _ in range(20):
        await rig.copies().ensure(piece())
    assert rig.chunks("b") == set()


FATAL = {
    "refused": lambda node: Fault(error="connection refused"),
    "hangs": lambda node: Fault(hang=True),
    "full": lambda node: Fault(op="put", error=NoSpace(node, "disk full")),
    "hangs while storing": lambda node: Fault(op="put", hang=True),
    "damages": lambda node: Fault(op="put", error=Corrupt(node, "digest does not match")),
    "fails half-way": lambda node: Fault(op="put", error="reset by peer", delay=0.5),
}


@pytest.mark.parametrize("kind", FATAL)
async def test_the_next_in_the_ranking_takes_the_place(
    make_rig, autojump_clock: trio.testing.MockClock, kind: str
) -> None:
    rig = make_rig(nodes=4)
    chunk = piece()
    first, second, third, fourth = ranking(rig, chunk)
    fault = FATAL[kind](first)
    rig.stores[first].faults.append(fault)
    copies = rig.copies()
    assert await copies.ensure(chunk)
    assert fault.hits > 0
    assert holders(rig, chunk) == {second, third}
    assert rig.stores[fourth].calls == []
    assert set(copies.replaced) == {first}
    assert copies.replaced[first].chunks == 1
    assert trio.current_time() < OPTIONS.question + OPTIONS.put + 5


@pytest.mark.parametrize("kind", FATAL)
async def test_a_dead_node_costs_its_time_once(make_rig, autojump_clock: trio.testing.MockClock, kind: str) -> None:
    rig = make_rig(nodes=4)
    fault = FATAL[kind]("a")
    rig.stores["a"].faults.append(fault)
    copies = rig.copies()
    chunks = [piece() for _ in range(50)]
    owned = sum("a" in ranking(rig, chunk)[:2] for chunk in chunks)
    assert owned > 5
    started = trio.current_time()
    for chunk in chunks:
        await copies.ensure(chunk)
        assert len(holders(rig, chunk)) == 2
    assert trio.current_time() - started < OPTIONS.question + OPTIONS.put + 5
    assert fault.hits <= OPTIONS.tries
    assert copies.replaced["a"].chunks == owned


async def test_a_node_that_hangs_holds_nobody_for_long(make_rig, autojump_clock: trio.testing.MockClock) -> None:
    """Chunks that are being sent when it stops answering do not wait for the time that storing may take."""
    rig = make_rig(nodes=3)
    chunks = [piece() for _ in range(16)]
    hang = Fault(hang=True)
    copies = rig.copies()
    async with trio.open_nursery() as nursery:
        rig.stores["a"].pause = lambda op, key: 0.5 if op == "put" else 0.0
        for chunk in chunks[:8]:
            nursery.start_soon(copies.ensure, chunk)
        await trio.sleep(0.1)
        rig.stores["a"].faults.append(hang)
        for chunk in chunks[8:]:
            nursery.start_soon(copies.ensure, chunk)
    assert hang.hits > 2
    assert all(len(holders(rig, chunk)) == 2 for chunk in chunks)
    assert trio.current_time() < 2 * OPTIONS.question + 1


async def test_a_failure_that_passes_is_tried_again(rig, autojump_clock: trio.testing.MockClock) -> None:
    for store in rig.stores.values():
        store.faults.append(Fault(op="put", error="reset", times=2))
    chunk = piece()
    copies = rig.copies()
    await copies.ensure(chunk)
    assert holders(rig, chunk) == set(ranking(rig, chunk)[:2])
    assert copies.replaced == {}
    assert trio.current_time() < 1.0


async def test_an_answer_that_was_lost_is_no_second_copy(rig, autojump_clock: trio.testing.MockClock) -> None:
    for store in rig.stores.values():
        store.faults.append(Fault(op="put", error="reset", after=True, times=1))
    chunk = piece()
    await rig.copies().ensure(chunk)
    assert [rig.calls(node, "put") for node in ranking(rig, chunk)[:2]] == [1, 1]


async def test_a_node_that_comes_back_is_used_again(make_rig, autojump_clock: trio.testing.MockClock) -> None:
    rig = make_rig(nodes=3)
    fault = Fault(error="refused")
    rig.stores["a"].faults.append(fault)
    copies = rig.copies()
    while not fault.hits:
        await copies.ensure(piece())
    fault.times = 0
    await trio.sleep(OPTIONS.rest_first)
    chunk = piece()
    while "a" not in ranking(rig, chunk)[:2]:
        chunk = piece()
    await copies.ensure(chunk)
    assert "a" in holders(rig, chunk)


async def test_a_node_that_stays_dead_is_asked_ever_more_rarely(
    make_rig, autojump_clock: trio.testing.MockClock
) -> None:
    rig = make_rig(nodes=3)
    rig.stores["a"].faults.append(fault := Fault(error="refused"))
    copies = rig.copies()
    while trio.current_time() < 1000:
        await copies.ensure(piece())
        await trio.sleep(1)
    assert OPTIONS.tries + 5 <= fault.hits <= OPTIONS.tries + 15


async def test_full_nodes_still_count_with_what_they_have(rig) -> None:
    chunk = piece()
    await rig.copies().ensure(chunk)
    first = ranking(rig, chunk)[0]
    rig.stores[first].faults.append(Fault(op="put", error=NoSpace(first, "disk full")))
    copies = rig.copies()
    while not copies.replaced:
        await copies.ensure(piece())
    assert not await copies.ensure(chunk)
    assert copies.replaced[first].reason == "disk full"


async def test_something_else_under_the_name_is_no_copy(rig) -> None:
    chunk = piece()
    first, _, third = ranking(rig, chunk)
    rig.stores[first].objects[chunk_key(chunk.digest)] = b"torn"
    copies = rig.copies()
    assert await copies.ensure(chunk)
    assert chunk_key(chunk.digest) in rig.stores[third].objects
    assert copies.replaced[first].reason.startswith("has 4 bytes instead of")


@pytest.mark.parametrize("op", ["size", "put"])
async def test_refused_credentials_end_it_at_once(rig, autojump_clock: trio.testing.MockClock, op: str) -> None:
    chunk = piece()
    first, second, _ = ranking(rig, chunk)
    rig.stores[first].faults.append(Fault(op=op, error=Denied(first, "bad token")))
    rig.stores[second].faults.append(Fault(hang=True))
    with pytest.raises(Denied, match=f"node {first}: bad token"):
        await rig.copies().ensure(chunk)
    assert trio.current_time() == 0


# ------------------------------------------------------------------------------------ a node that asks for a pause


def busy(node: str, **which: object) -> Fault:
    return Fault(error=Throttled(node, "too many uploads", 1.0), **which)


@pytest.mark.parametrize("op", ["size", "put"])
async def test_a_pause_that_a_node_asks_for_is_no_failure(
    make_rig, autojump_clock: trio.testing.MockClock, op: str
) -> None:
    """Nor are many of them: 16 chunks wait for it, and none takes another node."""
    rig = make_rig(nodes=3)
    rig.stores["a"].faults.append(fault := busy("a", op=op, times=16 * 10))
    copies = rig.copies()
    chunks = [piece() for _ in range(16)]
    async with trio.open_nursery() as nursery:
        for chunk in chunks:
            nursery.start_soon(copies.ensure, chunk)
    assert fault.times == 0
    assert all(holders(rig, chunk) == set(ranking(rig, chunk)[:2]) for chunk in chunks)
    assert copies.replaced == {}


async def test_a_node_that_asks_for_pauses_for_ever_is_replaced(
    make_rig, autojump_clock: trio.testing.MockClock
) -> None:
    """As long as for a restart it is waited for, once."""
    rig = make_rig(nodes=3)
    rig.stores["a"].faults.append(busy("a", op="put"))
    copies = rig.copies()
    chunks = [chunk for chunk in (piece() for _ in range(20)) if "a" in ranking(rig, chunk)[:2]]
    for chunk in chunks:
        await copies.ensure(chunk)
        assert holders(rig, chunk) == {"b", "c"}
    assert OPTIONS.patience <= trio.current_time() < OPTIONS.patience + 5
    assert copies.replaced["a"].reason == "too many uploads"


async def test_pauses_for_ever_are_told_when_nobody_is_left(make_rig, autojump_clock: trio.testing.MockClock) -> None:
    rig = make_rig(nodes=1, replicas=1)
    rig.stores["a"].faults.append(busy("a", op="put"))
    with pytest.raises(NotEnoughNodes, match=r"0 of 1 copies stored \(a: too many uploads\)"):
        await rig.copies().ensure(piece())
    assert trio.current_time() < OPTIONS.patience + 5


async def test_pauses_are_borne_while_other_chunks_get_through(
    make_rig, autojump_clock: trio.testing.MockClock
) -> None:
    rig = make_rig(nodes=1, replicas=1)
    unlucky = piece()
    rig.stores["a"].faults.append(fault := busy("a", op="put", key=str(chunk_key(unlucky.digest))))
    copies = rig.copies()
    async with trio.open_nursery() as nursery:
        nursery.start_soon(copies.ensure, unlucky)
        while trio.current_time() < 3 * OPTIONS.patience:
            await trio.sleep(OPTIONS.patience / 2)
            await copies.ensure(piece())
        fault.times = 0
    assert holders(rig, unlucky) == {"a"}


# ----------------------------------------------------------------------------------------- too few nodes are left


@pytest.mark.parametrize(
    ("fault", "seconds"),
    [
        (lambda node: Fault(error="refused"), OPTIONS.patience + 5),
        (lambda node: Fault(hang=True), OPTIONS.patience + 2 * OPTIONS.question + 5),
        (lambda node: Fault(op="put", error=NoSpace(node, "disk full")), 1),
    ],
)
async def test_when_nobody_is_left_the_nodes_and_reasons_are_told(
    rig, autojump_clock: trio.testing.MockClock, fault: Callable[[str], Fault], seconds: float
) -> None:
    rig.stores["b"].faults.append(fault("b"))
    rig.stores["c"].faults.append(fault("c"))
    with pytest.raises(NotEnoughNodes, match=r"1 of 2 copies stored \((b: .*; c: .*|c: .*; b: .*)\)"):
        await rig.copies().ensure(piece())
    assert trio.current_time() <= seconds


async def test_a_restart_is_waited_for_when_nobody_else_is_left(rig, autojump_clock: trio.testing.MockClock) -> None:
    faults = [Fault(error="refused"), Fault(error="refused")]
    rig.stores["b"].faults.append(faults[0])
    rig.stores["c"].faults.append(faults[1])
    chunk = piece()

    async def restart() -> None:
        await trio.sleep(10)
        faults[0].times = 0

    async with trio.open_nursery() as nursery:
        nursery.start_soon(restart)
        await rig.copies().ensure(chunk)
    assert holders(rig, chunk) == {"a", "b"}
    assert trio.current_time() < 10 + OPTIONS.pause_max + 1


# --------------------------------------------------------------------------------------------- the look beforehand


@pytest.mark.parametrize(
    ("shape", "dead", "message"),
    [
        ({"nodes": 3}, "", None),
        ({"nodes": 3}, "c", None),
        ({"nodes": 3}, "bc", r"2 copies need 2 active nodes, 1 answer \(b: refused; c: refused\)"),
        ({"nodes": 4, "draining": "d"}, "bc", r"2 copies need 2 active nodes, 1 answer"),
        ({"nodes": 5}, "cde", r"publishing needs 3 of 5 nodes, 2 answer \(c: refused; d: refused; e: refused\)"),
        ({"nodes": 3, "replicas": 3}, "a", r"3 copies need 3 active nodes, 2 answer \(a: refused\)"),
        ({"nodes": 1, "replicas": 1}, "", None),
    ],
)
async def test_what_cannot_succeed_does_not_begin(
    make_rig, autojump_clock: trio.testing.MockClock, shape: dict, dead: str, message: str | None
) -> None:
    rig = make_rig(**shape)
    for node in dead:
        rig.stores[node].faults.append(Fault(error="refused"))
    if message is None:
        await rig.copies().check()
        return
    with pytest.raises(NotEnoughNodes, match=message):
        await rig.copies().check()


async def test_a_silent_node_found_beforehand_costs_nothing_later(rig, autojump_clock: trio.testing.MockClock) -> None:
    rig.stores["a"].faults.append(fault := Fault(hang=True))
    copies = rig.copies()
    await copies.check()
    assert trio.current_time() == pytest.approx(OPTIONS.question)
    for _ in range(10):
        await copies.ensure(piece())
    assert trio.current_time() == pytest.approx(OPTIONS.question)
    assert fault.hits == 1


async def test_denied_beforehand(rig) -> None:
    rig.stores["b"].faults.append(Fault(error=Denied("b", "token refused")))
    with pytest.raises(Denied, match="node b: token refused"):
        await rig.copies().check()


async def test_a_slow_line_is_not_a_dead_node(make_rig, autojump_clock: trio.testing.MockClock) -> None:
    """Many chunks on their way to one node share its line: together they have the time that their bytes need."""
    rig = make_rig(nodes=1, replicas=1)
    big = BLOCK_SIZE * 16
    chunks = [piece(CHANCE.randbytes(big)) for _ in range(16)]
    rig.stores["a"].pause = lambda op, key: 60.0 if op == "put" else 0.0  # 64 MiB in 60 s
    copies = rig.copies()
    async with trio.open_nursery() as nursery:
        for chunk in chunks:
            nursery.start_soon(copies.ensure, chunk)
    assert copies.replaced == {}
    assert rig.calls("a", "put") == 16
