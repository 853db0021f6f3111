"""Writing behind the reader, with real threads and files that answer when the test says so: how it ends."""

import threading

import trio

from shardfs.cache.memory import SlotPool
from shardfs.core.chunk import header_size
from shardfs.core.digest import Digest
from shardfs.fetch.fill import ChunkPlace, Fill
from shardfs.fetch.writeback import WRITERS, Writeback

BLOCK = 4096
RUN = 8 * BLOCK
LIMIT_SECONDS = 60.0
"""Never reached."""


class Disk:
    """Hangs at some of the looks at it, which it counts."""

    def __init__(self) -> None:
        self.looks = 0
        self.hangs_at: frozenset[int] = frozenset()


class SlowFile:
    def __init__(self, disk: Disk) -> None:
        self.number = 1
        self.given_up = False
        self.holds = 0
        self.writes = 0
        self.go_on = threading.Event()
        self.begun = threading.Semaphore(0)
        self.disk = disk

    @property
    def hangs(self) -> bool:
        self.disk.looks += 1
        return self.disk.looks in self.disk.hangs_at

    def hold(self) -> None:
        self.holds += 1

    def close(self) -> None:
        self.holds -= 1

    def write(self, first: int, data: memoryview) -> bool:
        self.begun.release()
        assert self.go_on.wait(LIMIT_SECONDS)
        self.writes += 1
        return True

    async def begins(self, writes: int) -> None:
        for _ in range(writes):
            assert await trio.to_thread.run_sync(self.begun.acquire, True, LIMIT_SECONDS)


class Scene:
    def __init__(self) -> None:
        self.pool = SlotPool(16 * (RUN + 8192), plain_bytes=RUN, header_bytes=header_size(RUN, BLOCK))
        self.writeback = Writeback(self.pool)
        self.fills: list[Fill] = []

    def add(self, file: SlowFile) -> None:
        slot = self.pool.try_acquire()
        assert slot is not None
        place = ChunkPlace(Digest(bytes([len(self.fills)]) * 32), RUN, BLOCK, file, 0)  # type: ignore[arg-type]
        fill = Fill(place, slot, self.pool.room)
        self.fills.append(fill)
        self.writeback.add(fill, file, 0, (0, 8))  # type: ignore[arg-type]


async def test_at_the_end_only_what_has_begun_is_finished() -> None:
    """What waits may be as much as the memory, and the disk slow: nobody waits for that at an unmount."""
    scene, file = Scene(), SlowFile(Disk())
    async with trio.open_nursery() as nursery:
        nursery.start_soon(scene.writeback.run)
        for _ in range(12):
            scene.add(file)
        await file.begins(WRITERS)
        nursery.cancel_scope.cancel()
        file.go_on.set()
    assert file.writes == WRITERS
    assert file.holds == 0
    assert [fill.pins for fill in scene.fills] == [0] * 12


async def test_a_write_that_was_let_go_of_stays_so_when_its_disk_answers_again() -> None:
    """Two writes are looked at one after the other; between the two looks the disk comes back."""
    scene, disk = Scene(), Disk()
    files = [SlowFile(disk), SlowFile(disk)]
    with trio.fail_after(LIMIT_SECONDS):
        async with trio.open_nursery() as nursery:
            nursery.start_soon(scene.writeback.run)
            for file in files:
                scene.add(file)
                await file.begins(1)
            begun = disk.looks
            disk.hangs_at = frozenset([begun + 1])
            nursery.cancel_scope.cancel()
            with trio.CancelScope(shield=True):
                while disk.looks < begun + 4:  # noqa: ASYNC110 - nothing tells of a look
                    await trio.sleep(0.01)
            for file in files:
                file.go_on.set()
