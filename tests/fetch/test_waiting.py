"""Reads that wait without a task: told once, in the moment in which the bytes are there, or not at all."""

import pytest
import trio

from shardfs.errors import NoCopy
from shardfs.fetch import Waiting
from shardfs.testing.faults import Kind, always
from tests.fetch.world import BLOCK, RUN, World


class Ear:
    """What one reader was told: the bytes as they were in that moment, or why there are none."""

    def __init__(self, world: World, start: int = 0, length: int = BLOCK, *, whole: bool = False) -> None:
        self.waiting = world.engine.request(world.place(0), start, length, whole=whole)
        assert isinstance(self.waiting, Waiting)
        self.told: list[bytes | Exception] = []
        self.waiting.then(self._ended)

    def _ended(self, failure: Exception | None) -> None:
        self.told.append(bytes(self.waiting.bytes()) if failure is None else failure)


async def test_each_is_told_once_with_its_own_bytes(autojump_clock):
    world = World()
    async with world.running():
        places = (0, BLOCK, 5 * BLOCK, RUN - BLOCK)
        ears = [Ear(world, at, BLOCK) for at in places]
        ears += [Ear(world, 0, RUN, whole=True)]
        await world.settle()
        plain = world.chunks[world.digests[0]]
        assert [ear.told for ear in ears[:-1]] == [
            [plain[at : at + BLOCK]] for at in (0, BLOCK, 5 * BLOCK, RUN - BLOCK)
        ]
        assert ears[-1].told == [plain]
        assert all(ear.waiting.over for ear in ears)


async def test_the_first_is_told_while_the_rest_is_still_coming(autojump_clock):
    world = World(bandwidth=BLOCK / 0.1)
    async with world.running():
        first, all_of_it = Ear(world, 0, BLOCK, whole=True), Ear(world, 0, RUN, whole=True)
        while not first.told:  # noqa: ASYNC110 - nothing else tells
            await trio.sleep(0.01)
        assert not all_of_it.told
        await world.settle()
        assert len(first.told) == len(all_of_it.told) == 1


async def test_whoever_has_given_up_is_told_nothing_and_the_others_are(autojump_clock):
    world = World(latency=0.1)
    async with world.running():
        gone, stays = Ear(world), Ear(world)
        gone.waiting.abandon()
        gone.waiting.abandon()
        await world.settle()
        assert gone.told == []
        assert len(stays.told) == 1
        stays.waiting.abandon()  # harmless by now


async def test_a_failure_is_told_once_after_the_last_try(autojump_clock):
    world = World(plan=always(Kind.REFUSE, ["n0", "n1", "n2"]), job_timeout=1.0)
    async with world.running():
        alone, whole = Ear(world), Ear(world, 0, BLOCK, whole=True)
        await trio.sleep(5)
        assert [len(ear.told) for ear in (alone, whole)] == [1, 1]
        assert all(isinstance(ear.told[0], NoCopy) for ear in (alone, whole))
        await world.settle()


async def test_a_cancelled_wait_leaves_nothing_behind(autojump_clock):
    world = World(latency=0.1)
    async with world.running():
        with trio.move_on_after(0.01) as scope:
            await world.read(world.place(0))
        assert scope.cancelled_caught
        await world.settle()
        assert await world.read(world.place(0)) == 0  # it came for whoever asks next


async def test_the_memory_stays_until_the_waiting_task_has_had_its_turn(autojump_clock):
    """Two slots for many: what one has been told of must not be given to another before it has looked."""
    world = World(sizes=[RUN] * 12, slots=2)
    async with world.running(), trio.open_nursery() as readers:
        for chunk in range(12):
            readers.start_soon(world.read, world.place(chunk))


@pytest.mark.parametrize("whole", [True, False])
async def test_told_when_the_engine_stops(autojump_clock, whole):
    world = World()
    for node in world.nodes.values():
        node.hung = True
    async with world.running():
        ear = Ear(world, whole=whole)
        await trio.sleep(0.1)
    (failure,) = ear.told
    assert isinstance(failure, NoCopy)
    assert "stopping" in str(failure)
    with pytest.raises(NoCopy, match="stopping"):
        world.engine.request(world.place(0), 0, BLOCK, whole=whole)


class OpenFile:
    """A cache file that has nothing and counts how often it is open."""

    number = 1
    hangs = given_up = False

    def __init__(self) -> None:
        self.opens = 1
        self.written = 0

    def missing(self, first: int, end: int) -> int:
        return first

    def held_up(self, first: int, end: int) -> bool:
        return False

    def hold(self) -> None:
        assert self.opens, "held after it was closed"
        self.opens += 1

    def close(self) -> None:
        self.opens -= 1

    def write(self, first: int, data: memoryview) -> bool:
        self.written += 1
        return True


async def test_another_try_is_made_for_a_file_that_is_still_open(autojump_clock):
    """Two models have a chunk in common. The reader of the one waits, that of the other is gone and its file closed."""
    world = World(plan=always(Kind.REFUSE, ["n0", "n1", "n2"]), latency=0.1, job_timeout=1.0)
    stays, goes = OpenFile(), OpenFile()
    async with world.running():
        place = world.place(0, cache_file=stays)
        waiting = world.engine.request(place, 0, BLOCK, whole=True)
        waiting.then(lambda _: None)
        await trio.sleep(0.01)
        other = world.engine.request(world.place(0, cache_file=goes), 0, BLOCK, whole=False)
        other.abandon()
        goes.close()
        await trio.sleep(5)
        assert waiting.over
        await world.settle()
    assert (stays.opens, goes.opens) == (1, 0)
