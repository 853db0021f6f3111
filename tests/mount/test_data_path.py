"""Reads on the way from the kernel to the engine and back, over simulated nodes in virtual time."""

import errno

import pytest
import trio

from shardfs.mount.data_path import DataPath
from shardfs.mount.guard import Guard
from tests.fetch.world import BLOCK, RUN, World

DEADLINE = 2.0


def hang(world: World, hung: bool = True) -> None:
    """All nodes stop to answer, or answer again."""
    for node in world.nodes.values():
        node.hung = hung


class Rig:
    """Chunk `n` of the world is the file of handle `n`. `answers`: when, errno, bytes, by request."""

    def __init__(self, world: World, *, reads_max: int = 4) -> None:
        self.world = world
        self.answers: dict[int, tuple[float, int, bytes]] = {}
        self.data = DataPath(self, Guard(DEADLINE), self._reply, backings=None, reads_max=reads_max)

    def request(self, handle: int, offset: int, size: int):
        return self.world.engine.request(self.world.place(handle), offset, size, whole=False)

    def _reply(self, unique: int, error: int, body: bytes | memoryview) -> None:
        assert unique not in self.answers, "answered twice"
        self.answers[unique] = trio.current_time(), error, bytes(body)


async def test_what_is_on_its_way_is_answered_without_a_task(autojump_clock):
    rig = Rig(World(latency=0.1))
    async with rig.world.running(), trio.open_nursery() as nursery:
        nursery.start_soon(rig.data.run)
        await trio.testing.wait_all_tasks_blocked()
        before = len(nursery.child_tasks)
        for unique in range(8):
            assert rig.data.read(nursery, unique, unique % 4, unique * BLOCK, BLOCK) == 0
        assert len(nursery.child_tasks) == before
        await rig.data.drain()
        assert rig.data.read(nursery, 8, 0, 0, BLOCK) == BLOCK  # in memory by now
        nursery.cancel_scope.cancel()
    for unique, (_, error, body) in rig.answers.items():
        chunk, block = unique % 4, unique % 8
        assert (error, body) == (0, rig.world.chunks[rig.world.digests[chunk]][block * BLOCK : (block + 1) * BLOCK])
    assert len(rig.answers) == 9


async def test_each_has_its_own_deadline(autojump_clock):
    """Nobody answers. Reads that came one after the other fail one after the other; what comes later is well."""
    world = World(sizes=[RUN] * 6)
    rig = Rig(world)
    hang(world)
    async with world.running(), trio.open_nursery() as nursery:
        nursery.start_soon(rig.data.run)
        began = trio.current_time()
        for unique in range(4):
            rig.data.read(nursery, unique, unique, 0, BLOCK)
            await trio.sleep(0.25)
        await rig.data.drain()
        hang(world, hung=False)
        rig.data.read(nursery, 4, 5, 0, BLOCK)
        await rig.data.drain()
        nursery.cancel_scope.cancel()
    late = {unique: at - began for unique, (at, error, _) in rig.answers.items() if error == errno.EIO}
    assert late == {unique: pytest.approx(DEADLINE + 0.25 * unique) for unique in range(4)}
    assert rig.answers[4][1] == 0


async def test_nobody_is_answered_after_the_end(autojump_clock):
    rig = Rig(World(latency=0.1))
    async with rig.world.running(), trio.open_nursery() as nursery:
        for unique in range(4):
            rig.data.read(nursery, unique, unique, 0, BLOCK)
        rig.data.close()
        await rig.world.settle()
        await rig.data.drain()
    assert rig.answers == {}


async def test_reads_that_wait_for_memory_have_a_deadline_too(autojump_clock):
    """Two slots, both taken by chunks that never come: the others wait in tasks, two of them in line for their turn."""
    world = World(sizes=[RUN] * 6, slots=2)
    rig = Rig(world, reads_max=2)
    hang(world)
    async with world.running(), trio.open_nursery() as nursery:
        nursery.start_soon(rig.data.run)
        began = trio.current_time()
        for unique in range(6):
            rig.data.read(nursery, unique, unique, 0, BLOCK)
        await trio.sleep(DEADLINE + 0.1)
        nursery.cancel_scope.cancel()
        hang(world, hung=False)
    assert {unique: (at - began, error) for unique, (at, error, _) in rig.answers.items()} == {
        unique: (pytest.approx(DEADLINE), errno.EIO) for unique in range(6)
    }


async def test_one_that_ends_at_once_does_no_harm(autojump_clock):
    """It has failed by the time that whoever looks after the deadlines has its turn."""
    rig = Rig(World())
    async with rig.world.running(), trio.open_nursery() as nursery:
        nursery.start_soon(rig.data.run)
        await trio.testing.wait_all_tasks_blocked()
        rig.data.read(nursery, 1, 0, 0, BLOCK)
        rig.data.close()
        await trio.testing.wait_all_tasks_blocked()
        rig.data.read(nursery, 2, 1, 0, BLOCK)
        await rig.data.drain()
        nursery.cancel_scope.cancel()
    assert rig.answers[2][1] == 0
