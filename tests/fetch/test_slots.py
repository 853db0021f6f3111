"""The pool of memory: in turn, nothing lost, nothing given twice, whatever is cancelled when."""

import random

import pytest
import trio
from hypothesis import example, given, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, precondition, rule

from shardfs.cache.memory import PAGE_BYTES, Slot, SlotPool
from tests.fetch.world import simulate

PLAIN = 10_000


def pool_of(slots: int) -> SlotPool:
    size = SlotPool(1 << 20, plain_bytes=PLAIN, header_bytes=100).slot_bytes
    return SlotPool(slots * size, plain_bytes=PLAIN, header_bytes=100)


def test_layout():
    pool = pool_of(3)
    assert (pool.room, pool.slot_bytes, pool.slots, pool.free) == (PAGE_BYTES, 4 * PAGE_BYTES, 3, 3)
    held = [pool.try_acquire() for _ in range(3)]
    for number, slot in enumerate(held):
        assert len(slot.view) == pool.slot_bytes
        slot.view[:] = bytes([number]) * pool.slot_bytes
    assert [set(slot.view) for slot in held] == [{0}, {1}, {2}]  # no two overlap
    assert pool.try_acquire() is None


def test_the_last_given_back_is_the_first_used_again():
    pool = pool_of(4)
    held = [pool.try_acquire() for _ in range(3)]
    pool.release(held[1])
    assert pool.try_acquire() is held[1]


@pytest.mark.parametrize("budget", [0, 1, 4 * PAGE_BYTES, 8 * PAGE_BYTES - 1])
def test_too_little_memory(budget):
    with pytest.raises(ValueError, match="fewer than two"):
        SlotPool(budget, plain_bytes=PLAIN, header_bytes=100)


async def test_those_who_wait_are_served_in_turn(autojump_clock):
    pool = pool_of(2)
    held = [await pool.acquire(), await pool.acquire()]
    served: list[int] = []

    async def wait(number: int) -> None:
        slot = await pool.acquire()
        served.append(number)
        await trio.sleep(1)
        pool.release(slot)

    async with trio.open_nursery() as nursery:
        for number in range(10):
            nursery.start_soon(wait, number)
            await trio.testing.wait_all_tasks_blocked()
        assert pool.try_acquire() is None  # nobody jumps the queue
        pool.release(held[0])
        assert pool.try_acquire() is None
    pool.release(held[1])
    assert served == list(range(10))
    assert pool.free == 2


async def test_a_nudge_costs_nobody_his_turn(autojump_clock):
    pool = pool_of(2)
    held = [await pool.acquire(), await pool.acquire()]
    served: list[int] = []
    nudges: list[float] = []

    async def wait(number: int) -> None:
        pool.release(await pool.acquire(nudge=lambda: nudges.append(trio.current_time()), nudge_seconds=0.25))
        served.append(number)

    began = trio.current_time()
    async with trio.open_nursery() as nursery:
        for number in range(3):
            nursery.start_soon(wait, number)
            await trio.sleep(0.1)
        await trio.sleep_until(began + 0.98)
        pool.release(held[0])
    assert served == [0, 1, 2]
    assert nudges == pytest.approx([began + t for t in (0.25, 0.35, 0.45, 0.5, 0.6, 0.7, 0.75, 0.85, 0.95)])


async def test_a_nudge_may_free_what_is_waited_for(autojump_clock):
    pool = pool_of(2)
    held = [await pool.acquire(), await pool.acquire()]
    with trio.fail_after(0.3):
        assert await pool.acquire(nudge=lambda: pool.release(held.pop()), nudge_seconds=0.25) is not None


async def test_cancelled_in_the_moment_of_being_served(autojump_clock):
    """Whichever of the two comes first, the slot is not lost."""
    for order in (0, 1):
        pool = pool_of(2)
        first, _second = await pool.acquire(), await pool.acquire()
        got: list[Slot] = []
        scope = trio.CancelScope()

        async def wait(scope: trio.CancelScope = scope, pool: SlotPool = pool, got: list[Slot] = got) -> None:
            with scope:
                got.append(await pool.acquire())

        async with trio.open_nursery() as nursery:
            nursery.start_soon(wait)
            await trio.testing.wait_all_tasks_blocked()
            if order:
                scope.cancel()
                pool.release(first)
            else:
                pool.release(first)
                scope.cancel()
        assert len(got) + pool.free == 1


class Pool(RuleBasedStateMachine):
    """Without waiting: try, release, evict."""

    @initialize(slots=st.integers(2, 6))
    def start(self, slots: int) -> None:
        self.pool = pool_of(slots)
        self.held: list[Slot] = []
        self.kept: list[Slot] = []
        self.pool.on_pressure(self.evict)

    def evict(self) -> bool:
        if not self.kept:
            return False
        self.pool.release(self.kept.pop(0))
        return True

    @rule()
    def acquire(self) -> None:
        possible = bool(self.pool.free or self.kept)
        slot = self.pool.try_acquire()
        assert (slot is not None) == possible
        if slot is not None:
            self.held.append(slot)

    @precondition(lambda self: self.held)
    @rule(data=st.data())
    def release(self, data: st.DataObject) -> None:
        self.pool.release(self.held.pop(data.draw(st.integers(0, len(self.held) - 1))))

    @precondition(lambda self: self.held)
    @rule(data=st.data())
    def keep(self, data: st.DataObject) -> None:
        self.kept.append(self.held.pop(data.draw(st.integers(0, len(self.held) - 1))))
        self.pool.wake()

    @invariant()
    def everything_is_somewhere(self) -> None:
        indexes = [slot.index for slot in (*self.held, *self.kept, *self.pool._free, *self.pool._fresh)]
        assert sorted(indexes) == list(range(self.pool.slots))


TestPool = Pool.TestCase
TestPool.settings = settings(max_examples=40, stateful_step_count=40, deadline=None)


@example(seed=1068, slots=3, tasks=2)  # one slot is never used
@given(seed=st.integers(0, 10**9), slots=st.integers(2, 4), tasks=st.integers(2, 12))
@settings(max_examples=150, deadline=None)
def test_nothing_is_lost_whatever_is_cancelled(seed, slots, tasks):
    chance = random.Random(seed)
    pool = pool_of(slots)
    kept: list[Slot] = []
    owned: set[int] = set()
    got = 0

    def evict() -> bool:
        if kept:
            pool.release(kept.pop(0))
            return True
        return False

    pool.on_pressure(evict)

    async def user() -> None:
        nonlocal got
        for _ in range(8):
            with trio.move_on_after(chance.choice((0, 0.001, 0.002, 10))):
                slot = await pool.acquire(nudge_seconds=chance.choice((0.001, 1.0)))
                got += 1
                assert slot.index not in owned, "given twice"
                owned.add(slot.index)
                try:
                    await trio.sleep(chance.choice((0, 0.001, 0.001, 0.002)))
                finally:
                    owned.discard(slot.index)
                    if chance.random() < 0.5:
                        kept.append(slot)
                        pool.wake()
                    else:
                        pool.release(slot)

    async def main() -> None:
        with trio.fail_after(1000):
            async with trio.open_nursery() as nursery:
                for _ in range(tasks):
                    nursery.start_soon(user)

    simulate(main, seed)
    assert got
    assert not pool._waiting
    assert sorted(slot.index for slot in (*kept, *pool._free, *pool._fresh)) == list(range(slots))


async def test_touched_slots_are_the_first_used_and_come_back_zeroed():
    pool = pool_of(8)
    pool.on_pressure(lambda: False)
    await pool.touch(3)
    assert pool.free == 8
    taken = [pool.try_acquire() for _ in range(8)]
    assert sorted(slot.index for slot in taken[:3]) == [0, 1, 2]
    assert [slot.index for slot in taken[3:]] == [7, 6, 5, 4, 3]
    assert all(set(slot.view) == {0} for slot in taken)


async def test_touching_takes_nothing_that_is_in_use_and_serves_those_who_wait():
    pool = pool_of(2)
    held = [pool.try_acquire()]
    held[0].view[:] = b"\xdd" * pool.slot_bytes
    got: list[Slot] = []

    async def want() -> None:
        got.append(await pool.acquire())

    async with trio.open_nursery() as nursery:
        nursery.start_soon(pool.touch, 2)
        await trio.testing.wait_all_tasks_blocked()  # the other one is being touched
        nursery.start_soon(want)
    assert got
    assert got[0] is not held[0]
    assert set(held[0].view) == {0xDD}
    await pool.touch(2)  # nothing is left to touch
    assert pool.free == 0
