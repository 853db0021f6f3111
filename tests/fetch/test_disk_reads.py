"""How many reads of the disk cache go on at once: real threads, a disk that answers when the test says so."""

import threading
from contextlib import contextmanager

import trio

from shardfs.cache.memory import SlotPool
from shardfs.core.chunk import header_size
from shardfs.core.digest import Digest
from shardfs.fetch.disk_reads import LONG_AT_A_TIME, LONG_BYTES, DiskReads
from shardfs.fetch.fill import ChunkPlace, Fill
from shardfs.obs.reading import ReadMetrics

BLOCK = 256 * 1024
RUN = 2 * LONG_BYTES


class HeldDisk:
    """A cache file that has everything. `begun` are the blocks at which reads have begun, in order."""

    def __init__(self, number: int) -> None:
        self.number = number
        self.begun: list[int] = []
        self.free = threading.Event()
        self._news = threading.Semaphore(0)

    def missing(self, first: int, end: int) -> int:
        return end

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
    def __init__(self, *, threads: int = 4) -> None:
        self.reads = DiskReads(threads=threads, metrics=ReadMetrics())
        header = header_size(RUN, BLOCK)
        self.pool = SlotPool(16 * (RUN + 8192), plain_bytes=RUN, header_bytes=header)

    def fill(self, file: HeldDisk, chunk: int) -> Fill:
        slot = self.pool.try_acquire()
        assert slot is not None
        place = ChunkPlace(Digest(bytes([chunk]) * 32), RUN, BLOCK, file, chunk * (RUN // BLOCK))  # type: ignore[arg-type]
        return Fill(place, slot, self.pool.room)

    @contextmanager
    def held(self, *files: HeldDisk):
        try:
            yield
        finally:
            for file in files:
                file.free.set()


async def test_long_reads_of_one_file_go_two_at_a_time_and_in_order():
    scene, file = Scene(), HeldDisk(1)
    fills = [scene.fill(file, chunk) for chunk in range(6)]
    async with trio.open_nursery() as nursery:
        with scene.held(file):
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
        with scene.held(hung):
            for fill in long_reads:
                nursery.start_soon(scene.reads.bring, fill, fill.place, 0, fill.blocks)
            await hung.begins(LONG_AT_A_TIME)
            await scene.reads.bring(elsewhere, elsewhere.place, 0, elsewhere.blocks)
            assert elsewhere.complete
            nursery.start_soon(scene.reads.bring, short, short.place, 1, 2)
            await hung.begins(1)
            assert hung.begun[-1] == short.place.cache_block + 1
    assert short.ready == short.mask(1, 2)
