"""How many reads of the disk cache go on at once, and what becomes of them when the disk hangs.

Real threads, and a disk that answers when the test says so.
"""

import math
import threading
from collections.abc import Callable
from contextlib import contextmanager
from dataclasses import replace
from functools import partial

import trio
from trio.testing import MockClock

from shardfs.cache.memory import SlotPool
from shardfs.core.chunk import header_size
from shardfs.core.digest import Digest
from shardfs.fetch.disk_reads import LONG_AT_A_TIME, LONG_BYTES, LOOK_SECONDS, DiskReads, _Read
from shardfs.fetch.fill import ChunkPlace, Fill
from shardfs.obs.reading import ReadMetrics
from tests.fetch.world import World

BLOCK = 256 * 1024
RUN = 2 * LONG_BYTES


class HeldDisk:
    """A cache file that has everything, until it `hangs`. `begun`: the blocks at which reads have begun, in order."""

    def __init__(self, number: int) -> None:
        self.number = number
        self.hangs = False
        self.begun: list[int] = []
        self.free = threading.Event()
        self._news = threading.Semaphore(0)

    def missing(self, first: int, end: int) -> int:
        return first if self.hangs else end

    def read(self, first: int, into: memoryview) -> bool:
        self.begun.append(first)
        self._news.release()
        assert self.free.wait(30)
        into[:] = bytes([first % 251]) * len(into)
        return True

    async def begins(self, reads: int) -> None:
        """Wait until so many more reads have begun."""
        for _ in range(reads):
            assert await trio.to_thread.run_sync(self._news.acquire, True, 30)


class Scene:
    def __init__(self, *, threads: int = 4, slots: int = 16) -> None:
        header = header_size(RUN, BLOCK)
        self.pool = SlotPool(slots * (RUN + 8192), plain_bytes=RUN, header_bytes=header)
        self.reads = DiskReads(self.pool, threads=threads, metrics=ReadMetrics())

    def fill(self, file: HeldDisk, chunk: int) -> Fill:
        slot = self.pool.try_acquire()
        assert slot is not None
        place = ChunkPlace(Digest(bytes([chunk]) * 32), RUN, BLOCK, file, chunk * (RUN // BLOCK))  # type: ignore[arg-type]
        return Fill(place, slot, self.pool.room)

    async def watched(self, *, task_status: trio.TaskStatus[None]) -> None:
        task_status.started()
        await self.reads.watch()

    def give_back(self, fill: Fill) -> None:
        """What happens to the memory of a fill that makes room."""
        for slot in (*fill.left, fill.slot):
            self.pool.release(slot)


@contextmanager
def held(*files: HeldDisk):
    """Whatever happens in it, at its end they answer."""
    try:
        yield
    finally:
        for file in files:
            file.free.set()


async def until(condition: Callable[[], bool]) -> None:
    """Threads end in real time."""
    with trio.fail_after(60):
        while not condition():  # noqa: ASYNC110 - a look from outside
            await trio.sleep(0.005)


async def test_long_reads_of_one_file_go_two_at_a_time_and_in_order():
    scene, file = Scene(), HeldDisk(1)
    fills = [scene.fill(file, chunk) for chunk in range(6)]
    async with trio.open_nursery() as nursery:
        with held(file):
            for fill in fills:
                nursery.start_soon(scene.reads.bring, fill, fill.place, 0, fill.blocks)
                await trio.testing.wait_all_tasks_blocked()
            await file.begins(LONG_AT_A_TIME)
            assert sorted(file.begun) == [0, RUN // BLOCK]
    assert len(file.begun) == 6
    assert all(fill.complete for fill in fills)
    assert [fill.plain(0, 1)[0] for fill in fills] == [chunk * (RUN // BLOCK) % 251 for chunk in range(6)]


async def test_another_file_and_short_reads_do_not_wait_for_them():
    scene, hung, other = Scene(), HeldDisk(1), HeldDisk(2)
    other.free.set()
    long_reads = [scene.fill(hung, chunk) for chunk in range(3)]
    short, elsewhere = scene.fill(hung, 9), scene.fill(other, 0)
    async with trio.open_nursery() as nursery:
        with held(hung):
            for fill in long_reads:
                nursery.start_soon(scene.reads.bring, fill, fill.place, 0, fill.blocks)
            await hung.begins(LONG_AT_A_TIME)
            await scene.reads.bring(elsewhere, elsewhere.place, 0, elsewhere.blocks)
            assert elsewhere.complete
            nursery.start_soon(scene.reads.bring, short, short.place, 1, 2)
            await hung.begins(1)
            assert hung.begun[-1] == short.place.cache_block + 1
    assert short.ready == short.mask(1, 2)


async def test_reads_of_a_disk_that_hangs_are_misses_and_their_threads_harm_nobody():
    """Whether they have begun or wait for a thread. What the threads write later lands where nobody looks."""
    scene, file = Scene(threads=2, slots=9), HeldDisk(1)
    fills = [scene.fill(file, chunk) for chunk in range(4)]
    slots = [fill.slot for fill in fills]
    with held(file):
        async with trio.open_nursery() as nursery:
            await nursery.start(scene.watched)
            async with trio.open_nursery() as reads:
                for fill in fills:
                    reads.start_soon(scene.reads.bring, fill, fill.place, 0, fill.blocks)
                    await trio.testing.wait_all_tasks_blocked()
                await file.begins(2)
                file.hangs = True
            assert [fill.ready for fill in fills] == [0] * 4
            assert [fill.slot is slot for fill, slot in zip(fills, slots, strict=True)] == [False, False, True, True]
            for fill in fills:
                fill.plain(0, RUN)[:] = b"\xff" * RUN  # from a node
                fill.mark_ready(fill.mask(0, fill.blocks))
            scene.give_back(fills[1])
            assert scene.pool.free == 4, "its thread still writes"
            file.free.set()
            await until(lambda: scene.pool.free == 5)
            assert len(file.begun) == 2
            for fill in (fills[0], *fills[2:]):
                assert bytes(fill.plain(0, RUN)) == b"\xff" * RUN
                scene.give_back(fill)
            assert scene.pool.free == scene.pool.slots
            file.hangs = False
            again = scene.fill(file, 5)
            await scene.reads.bring(again, again.place, 0, again.blocks)
            assert again.complete
            nursery.cancel_scope.cancel()


async def test_what_was_ready_moves_along_and_another_thread_of_the_fill_is_heard():
    """Two reads of one fill hang; the disk answers one of them after the fill has moved because of the other."""
    scene, file, other = Scene(slots=12), HeldDisk(1), HeldDisk(2)
    fill = scene.fill(file, 0)
    fill.block_view(0, 1)[:] = b"\xee" * BLOCK
    fill.mark_ready(1)
    elsewhere = replace(fill.place, cache_file=other)
    with held(file, other):
        async with trio.open_nursery() as nursery:
            await nursery.start(scene.watched)
            nursery.start_soon(scene.reads.bring, fill, elsewhere, 3, 5)
            await other.begins(1)
            async with trio.open_nursery() as reads:
                reads.start_soon(scene.reads.bring, fill, fill.place, 1, 3)
                await file.begins(1)
                file.hangs = True
            assert len(fill.left) == 1
            assert bytes(fill.block_view(0, 1)) == b"\xee" * BLOCK
            other.free.set()
            await until(lambda: fill.ready == fill.mask(0, 1) | fill.mask(3, 5))
            assert bytes(fill.block_view(3, 5)) == bytes([3]) * 2 * BLOCK
            nursery.cancel_scope.cancel()
    await until(lambda: not scene.reads._threads.borrowed_tokens)
    scene.give_back(fill)
    assert scene.pool.free == scene.pool.slots


async def test_a_read_may_wait_for_a_disk_that_hangs_until_its_time():
    scene, file = Scene(), HeldDisk(1)
    patient, brief = scene.fill(file, 0), scene.fill(file, 1)
    slot = patient.slot
    with held(file):
        async with trio.open_nursery() as nursery:
            await nursery.start(scene.watched)
            nursery.start_soon(partial(scene.reads.bring, patient, patient.place, 0, patient.blocks, until=math.inf))
            async with trio.open_nursery() as reads:
                soon = trio.current_time() + 0.1
                reads.start_soon(partial(scene.reads.bring, brief, brief.place, 0, brief.blocks, until=soon))
                await file.begins(2)
                file.hangs = True
            assert (patient.ready, brief.ready) == (0, 0)
            file.free.set()
            await until(lambda: patient.complete)
            assert patient.slot is slot
            nursery.cancel_scope.cancel()


async def test_a_read_that_is_given_up_as_it_gets_its_thread_begins_none():
    scene, file = Scene(), HeldDisk(1)
    fill = scene.fill(file, 0)

    class Late:
        """The read is given up in the moment between the token and the thread."""

        async def acquire_on_behalf_of(self, borrower: object) -> None:
            await scene.reads._threads.acquire_on_behalf_of(borrower)
            read.give_up()

        def release_on_behalf_of(self, borrower: object) -> None:
            scene.reads._threads.release_on_behalf_of(borrower)

    read = _Read(fill, (0, fill.blocks), file, 0, until=0.0, pool=scene.pool, threads=Late())  # type: ignore[arg-type]
    with held(file), read.scope:
        await read.run()
    assert read.scope.cancelled_caught
    assert not file.begun
    assert not scene.reads._threads.borrowed_tokens
    assert fill.slot.users == 1


async def test_little_memory_leaves_room_for_a_fill_to_move():
    """Reads and writes that hang at once leave a slot."""
    scene, file = Scene(threads=4, slots=4), HeldDisk(1)
    fills = [scene.fill(file, 0), scene.fill(file, 1)]
    with held(file):
        async with trio.open_nursery() as nursery:
            await nursery.start(scene.watched)
            async with trio.open_nursery() as reads:
                for fill in fills:
                    reads.start_soon(scene.reads.bring, fill, fill.place, 0, fill.blocks)
                await file.begins(1)
                file.hangs = True
            assert len(file.begun) == 1
            nursery.cancel_scope.cancel()


async def test_the_end_waits_for_no_thread():
    scene, file = Scene(), HeldDisk(1)
    fill = scene.fill(file, 0)
    with held(file):
        async with trio.open_nursery() as nursery:
            await nursery.start(scene.watched)
            nursery.start_soon(scene.reads.bring, fill, fill.place, 0, fill.blocks)
            await file.begins(1)
            nursery.cancel_scope.cancel()
        assert not fill.ready


class ComesAndGoes(HeldDisk):
    """Has every block, and after the first read hangs for good whenever one begins."""

    given_up = False

    def missing(self, first: int, end: int) -> int:
        return first if self.hangs else end

    def held_up(self, first: int, end: int) -> bool:
        return self.hangs

    def hold(self) -> None:
        pass

    def close(self) -> None:
        pass

    def write(self, first: int, data: memoryview) -> bool:
        return True

    def read(self, first: int, into: memoryview) -> bool:
        super().read(first, into)
        return False


async def test_a_disk_that_comes_and_goes_does_not_outlive_nodes_that_deliver(mock_clock: MockClock) -> None:
    """It answers for a moment while the nodes are asked, so the disk is asked again, and hangs again.

    Time passes only when the test says so: the nodes do not answer while a thread is slow to begin.
    """
    world, disk = World(latency=1.0, job_timeout=30.0), ComesAndGoes(1)
    read = trio.Event()

    async def reader() -> None:
        await world.read(world.place(0, cache_file=disk), whole=False)  # type: ignore[arg-type]
        read.set()

    async def pass_until(condition: Callable[[], bool]) -> None:
        while not condition():
            mock_clock.jump(LOOK_SECONDS / 5)
            await trio.testing.wait_all_tasks_blocked()

    async with world.running(), trio.open_nursery() as nursery:
        with trio.fail_after(60), held(disk):
            nursery.start_soon(reader)
            await disk.begins(1)
            disk.hangs = True
            await pass_until(lambda: world.asked(0) > 0)
            disk.hangs = False
            mock_clock.jump(LOOK_SECONDS)
            await disk.begins(1)
            disk.hangs = True
            await pass_until(read.is_set)
        assert len(disk.begun) == 2
