"""What the engine promises its readers besides bytes: one request for many, bounded memory, nothing left behind."""

import threading
from functools import partial
from pathlib import Path

import pytest
import trio

from shardfs.cache import Content, DiskCache
from shardfs.core.chunk import header_size
from shardfs.core.digest import digest_of
from shardfs.core.pointer import POINTER_BYTES_MAX
from shardfs.errors import NoCopy
from shardfs.fetch import ChunkPlace
from shardfs.fetch.engine import SHED_AFTER_SECONDS
from shardfs.testing.faults import Ask, Fault, Kind, always
from tests.fetch.world import BLOCK, HEADER, RUN, RUN_BLOCKS, World


async def test_many_readers_make_one_request(autojump_clock):
    world = World()
    async with world.running(), trio.open_nursery() as readers:
        for _ in range(20):
            readers.start_soon(world.read, world.place(0))
    assert world.asked(0) == 1


async def test_no_block_is_asked_for_twice_whoever_reads_what(autojump_clock):
    world = World()
    async with world.running(), trio.open_nursery() as readers:
        for start in range(0, RUN, BLOCK):
            for whole in (True, False):
                readers.start_soon(partial(world.read, world.place(0), start, BLOCK, whole=whole))
    # Of two spans in one answer the first is the header's.
    asked = [call[-1] for node in world.nodes.values() for call in node.calls]
    blocks = [start + at for start, length in asked for at in range(0, length, BLOCK) if start + at >= HEADER]
    assert len(blocks) == len(set(blocks))
    assert world.metrics.total(world.metrics.fetched_bytes) == RUN


async def test_a_small_read_costs_a_small_request(autojump_clock):
    world = World(sizes=[2 * RUN])
    async with world.running():
        await world.read(world.place(0, run=1), 5 * BLOCK + 9, 10, whole=False)
    lengths = sorted(length for node in world.nodes.values() for _, _, length in node.ranges)
    assert lengths == [BLOCK, header_size(2 * RUN, BLOCK) + POINTER_BYTES_MAX]
    assert world.metrics.total(world.metrics.fetched_bytes) == BLOCK


async def test_the_header_is_asked_for_once_even_when_memory_was_given_back(autojump_clock):
    world = World(sizes=[2 * RUN] * 5, slots=2)
    async with world.running():
        for _ in range(3):
            for chunk in range(5):
                await world.read(world.place(chunk, run=1), 0, 10, whole=False)
    for chunk in range(5):
        assert world.asked(chunk) == 3  # one block each time, and with the first one the header
        digest = str(world.digests[chunk])
        asked = [start for node in world.nodes.values() for key, start, _ in node.ranges if digest in key]
        assert asked.count(0) == 1


async def test_a_reader_that_gives_up_harms_nobody(autojump_clock):
    world = World(latency=0.1)
    async with world.running(), trio.open_nursery() as readers:
        for number in range(10):
            readers.start_soon(world.read, world.place(0))

            async def impatient(seconds: float) -> None:
                with trio.move_on_after(seconds):
                    await world.read(world.place(0))

            readers.start_soon(impatient, number * 0.01)
    assert world.asked(0) == 1
    assert sum(node.cancelled for node in world.nodes.values()) == 0


async def test_what_a_cancelled_reader_began_is_there_for_the_next(autojump_clock):
    world = World(latency=0.1)
    async with world.running():
        with trio.move_on_after(0.05) as scope:
            await world.read(world.place(0))
        assert scope.cancelled_caught
        assert await world.read(world.place(0)) < 0.06
    assert world.asked(0) == 1


# --------------------------------------------------------------------------------------------------- read-ahead


async def test_a_burst_of_prefetches_uses_all_nodes(autojump_clock):
    world = World(sizes=[RUN] * 60, slots=100, bandwidth=1e6)
    async with world.running():
        for chunk in range(20):
            await world.read(world.place(chunk))
        for number, name in enumerate(world.names):  # one is a little quicker, as one always is
            world.nodes[name].latency = 0.001 + number / 1e4
            world.nodes[name].ranges.clear()
        for chunk in range(20, 60):
            assert world.engine.prefetch(world.place(chunk))
        await world.settle()
    asked = [len(node.ranges) for node in world.nodes.values()]
    assert sum(asked) == 40
    assert max(asked) <= 20, asked


@pytest.mark.parametrize("slots", [2, 3, 4, 8])
@pytest.mark.parametrize("ahead", [1, 4, 20])
@pytest.mark.parametrize("bandwidth", [1e7, 1e9])
async def test_a_stream_with_any_window_fetches_everything_once(autojump_clock, slots, ahead, bandwidth):
    count = 40
    world = World(sizes=[RUN] * count, slots=slots, bandwidth=bandwidth)
    async with world.running():
        for chunk in range(count):
            for step in range(4):  # a reader comes in small steps, and looks ahead at each
                for following in range(chunk, min(count, chunk + 1 + ahead)):
                    if not world.engine.prefetch(world.place(following)):
                        break
                await world.read(world.place(chunk), step * RUN // 4, RUN // 4)
                await trio.sleep(0.001)
    assert [world.asked(chunk) for chunk in range(count)] == [1] * count


async def test_prefetching_never_takes_memory_from_what_was_prefetched_and_not_read(autojump_clock):
    world = World(sizes=[RUN] * 20, slots=8)
    async with world.running():
        taken = [chunk for chunk in range(20) if world.engine.prefetch(world.place(chunk))]
        await world.settle()
        assert taken == list(range(6))  # three quarters
        assert not any(world.engine.prefetch(world.place(chunk)) for chunk in range(6, 20))
        for chunk in taken:
            assert await world.read(world.place(chunk)) == 0
        assert world.engine.prefetch(world.place(10))


async def test_a_prefetch_that_failed_is_tried_again_by_the_reader(autojump_clock):
    world = World(job_timeout=1.0)
    for node in world.nodes.values():
        node.up = False
    async with world.running():
        assert world.engine.prefetch(world.place(0))
        await trio.sleep(1.5)
        await world.settle()
        for node in world.nodes.values():
            node.up = True
        await trio.sleep(2)
        assert await world.read(world.place(0)) < 0.1


# ------------------------------------------------------------------------------------------------------- memory


async def test_more_readers_than_memory_all_get_their_turn(autojump_clock):
    world = World(sizes=[RUN] * 50, slots=3)
    async with world.running(), trio.open_nursery() as readers:
        for chunk in range(50):
            readers.start_soon(world.read, world.place(chunk))
    assert sum(world.asked(chunk) for chunk in range(50)) == 50


async def test_hedging_without_spare_memory_moves_on_instead(autojump_clock):
    world = World(sizes=[RUN] * 2, slots=2)
    hung = world.owners(0)[0]
    world.set_plan(lambda ask: Fault(Kind.HANG, 3 * BLOCK) if ask.node == hung else None)
    async with world.running(), trio.open_nursery() as readers:
        for chunk in range(2):
            readers.start_soon(world.read, world.place(chunk))
    assert world.hits(Kind.HANG) >= 1


async def test_the_same_name_with_another_size_is_another_chunk(autojump_clock):
    """A manifest is not proof of a chunk's size: its header is."""
    world = World(sizes=[BLOCK + 100, BLOCK + 100])
    honest = world.place(0)
    async with world.running():
        await world.read(honest)
        for size in (BLOCK + 50, BLOCK + 200, 2 * BLOCK):
            lying = ChunkPlace(honest.digest, size, BLOCK, None, 0)
            with pytest.raises(NoCopy):
                await world.engine.read(lying, 0, size, whole=True)
        await world.read(honest)
        await world.settle()


# ----------------------------------------------------------------------------------------------------- stopping


@pytest.mark.parametrize("whole", [True, False])
async def test_readers_are_told_when_the_engine_stops(autojump_clock, whole):
    world = World(plan=always(Kind.HANG, ["n0", "n1", "n2"]))
    told = 0

    async def reader() -> None:
        nonlocal told
        with pytest.raises(NoCopy, match="stopping"):
            await world.engine.read(world.place(0), 0, RUN, whole=whole)
        told += 1

    async with trio.open_nursery() as readers, trio.open_nursery() as nursery:
        await nursery.start(world.engine.run)
        for _ in range(3):
            readers.start_soon(reader)
        await trio.sleep(0.5)
        nursery.cancel_scope.cancel()
    assert told == 3
    world.check_quiet()


@pytest.mark.usefixtures("bugs_expected")
async def test_a_bug_fails_one_chunk_and_not_the_mount(autojump_clock, monkeypatch, caplog):
    world = World()

    async def bug(*_arguments: object, **_options: object) -> int:
        await trio.lowlevel.checkpoint()
        raise ZeroDivisionError("bug")

    async with world.running():
        with monkeypatch.context() as patch:
            for node in world.nodes.values():
                patch.setattr(node, "get", bug)
            with pytest.raises(NoCopy, match="internal error"):
                await world.read(world.place(0))
        await world.read(world.place(0))
        await world.settle()
    assert "ZeroDivisionError" in caplog.text


# ------------------------------------------------------------------------------------------------ the disk cache


class SickFile:
    """A real cache file whose writes wait for `go`, or fail with a bug."""

    def __init__(self, file) -> None:
        self.file = file
        self.go = threading.Event()
        self.bug = False
        self.begun = threading.Semaphore(0)

    def write(self, first: int, data: memoryview) -> bool:
        self.begun.release()
        assert self.go.wait(60), "the test is over"
        if self.bug:
            raise ZeroDivisionError("bug in the cache")
        return self.file.write(first, data)

    def writes(self, wanted: int) -> bool:
        """Whether exactly `wanted` writes have begun. Waits: the threads live in real time, not in the test's."""
        return all(self.begun.acquire(timeout=60) for _ in range(wanted)) and not self.begun.acquire(timeout=0.05)

    def __getattr__(self, name: str):
        return getattr(self.file, name)


@pytest.fixture
def disk(tmp_path: Path):
    cache = DiskCache.open(tmp_path / "cache", limit_bytes=64 * 1024 * 1024)
    yield cache
    cache.close()


def cache_file(disk: DiskCache, blocks: int):
    return disk.file(Content(digest_of(b"file %d" % blocks), blocks * BLOCK, BLOCK))


async def test_a_disk_that_does_not_move_delays_nobody_for_long(autojump_clock, disk):
    world = World(sizes=[RUN] * 20, slots=6)
    sick = SickFile(cache_file(disk, 20 * RUN_BLOCKS))
    async with world.running():
        for chunk in range(20):
            place = world.place(chunk)
            place = ChunkPlace(place.digest, place.plain_size, BLOCK, sick, chunk * RUN_BLOCKS)
            # Virtual time stands still while anything can run, so this is the wait for the disk alone.
            assert await world.read(place) <= SHED_AFTER_SECONDS + 0.05
        assert sick.writes(2), "the disk was never slow"
        sick.go.set()


@pytest.mark.parametrize("slots", [2, 3])
async def test_writers_never_take_the_last_slot(autojump_clock, disk, slots):
    world = World(sizes=[RUN] * 6, slots=slots)
    sick = SickFile(cache_file(disk, 6 * RUN_BLOCKS))
    async with world.running():
        for chunk in range(6):
            place = world.place(chunk)
            place = ChunkPlace(place.digest, place.plain_size, BLOCK, sick, chunk * RUN_BLOCKS)
            with trio.fail_after(2):
                await world.read(place)
        assert sick.writes(slots - 1)
        sick.go.set()


async def test_the_end_waits_for_no_write_at_a_disk_that_hangs(disk):
    world = World(sizes=[RUN])
    sick = SickFile(cache_file(disk, RUN_BLOCKS))
    place = world.place(0, cache_file=sick)
    with trio.fail_after(30):
        async with trio.open_nursery() as nursery:
            await nursery.start(world.engine.run)
            await world.read(place)
            assert await trio.to_thread.run_sync(sick.writes, 1)
            sick.hangs = True
            nursery.cancel_scope.cancel()
    assert sick.file.present_bytes() == 0
    sick.go.set()


async def test_the_end_waits_for_a_write_that_has_begun(disk):
    world = World(sizes=[RUN])
    sick = SickFile(cache_file(disk, RUN_BLOCKS))
    place = world.place(0, cache_file=sick)
    async with trio.open_nursery() as nursery:
        await nursery.start(world.engine.run)
        await world.read(place)
        assert await trio.to_thread.run_sync(sick.writes, 1)
        threading.Timer(0.2, sick.go.set).start()
        nursery.cancel_scope.cancel()
    assert sick.file.present_bytes() == RUN


@pytest.mark.usefixtures("bugs_expected")
async def test_a_bug_in_the_cache_stops_nothing(disk, caplog):
    world = World(sizes=[RUN] * 5)
    sick = SickFile(cache_file(disk, 5 * RUN_BLOCKS))
    sick.bug = True
    sick.go.set()
    async with world.running():
        for chunk in range(5):
            place = world.place(chunk)
            await world.read(ChunkPlace(place.digest, place.plain_size, BLOCK, sick, chunk * RUN_BLOCKS))
        await world.settle()
    assert sick.writes(5)
    assert "ZeroDivisionError" in caplog.text


async def test_what_was_fetched_is_on_disk_and_comes_from_there(disk):
    sizes = [RUN] * 4 + [RUN // 2 + 77]
    file = disk.file(Content(digest_of(b"whole file"), sum(sizes), BLOCK))
    world = World(sizes=sizes)
    async with world.running():
        for chunk in range(5):
            place = world.place(chunk)
            await world.read(ChunkPlace(place.digest, place.plain_size, BLOCK, file, chunk * RUN_BLOCKS))
        await world.settle()
    assert file.present_bytes() == sum(sizes)

    again = World(sizes=sizes)
    for node in again.nodes.values():
        node.up = False
    async with again.running():
        for chunk in range(5):
            place = again.place(chunk)
            place = ChunkPlace(place.digest, place.plain_size, BLOCK, file, chunk * RUN_BLOCKS)
            await again.read(place, 3 * BLOCK, BLOCK, whole=False)
            await again.read(place)
        await again.settle()
    assert again.metrics.total(again.metrics.disk_bytes) == sum(sizes)
    file.close()


class SlowFile:
    """A real cache file on a disk that seems to hang while `hangs`."""

    def __init__(self, file) -> None:
        self.file = file
        self.hangs = False

    def held_up(self, first: int, end: int) -> bool:
        return self.hangs and self.file.missing(first, end) == end

    def missing(self, first: int, end: int) -> int:
        return first if self.hangs else self.file.missing(first, end)

    def __getattr__(self, name: str):
        return getattr(self.file, name)


class StuckFile(SlowFile):
    """One whose writes are refused while the disk `hangs`."""

    def __init__(self, file) -> None:
        super().__init__(file)
        self.given_up = False
        self.refused = 0

    def write(self, first: int, data: memoryview) -> bool:
        if self.hangs:
            self.refused += 1
            return False
        return self.file.write(first, data)


@pytest.mark.parametrize("given_up", [False, True])
async def test_what_is_to_be_stored_waits_for_a_disk_that_stands_still(disk, given_up):
    world = World(sizes=[RUN] * 4)
    file = StuckFile(cache_file(disk, 4 * RUN_BLOCKS))
    file.hangs, file.given_up = True, given_up
    async with world.running():
        for chunk in range(4):
            place = world.place(chunk)
            await world.read(ChunkPlace(place.digest, place.plain_size, BLOCK, file, chunk * RUN_BLOCKS))
        if given_up:
            await world.settle()
        file.hangs = file.given_up = False
        await world.settle()
    assert file.refused == 0
    assert file.file.present_bytes() == (0 if given_up else 4 * RUN)


@pytest.mark.parametrize(("given_up", "lost"), [(False, False), (True, False), (True, True)])
async def test_a_slow_disk_is_waited_for_when_no_node_has_the_bytes(disk, given_up, lost):
    """It was taken for one that hangs; then it answers, with the bytes or, `lost`, without them."""
    file = SlowFile(cache_file(disk, RUN_BLOCKS))
    before = World(sizes=[RUN])
    async with before.running():
        await before.read(before.place(0, cache_file=file))
        await before.settle()

    world = World(sizes=[RUN])
    for node in world.nodes.values():
        node.up = False
    if given_up:
        for store in world.fleet.stores:
            store.late("silent")
            store.health.give_up()
    file.hangs = True
    ended = trio.Event()

    async def reads() -> None:
        if lost:
            with pytest.raises(NoCopy):
                await world.read(world.place(0, cache_file=file))
        else:
            await world.read(world.place(0, cache_file=file))
        ended.set()

    async with world.running(probes=False), trio.open_nursery() as nursery:
        nursery.start_soon(reads)
        await trio.testing.wait_all_tasks_blocked()
        assert not ended.is_set()
        if lost:
            file.file = cache_file(disk, 2 * RUN_BLOCKS)  # another one, in which there is nothing
        file.hangs = False
        with trio.fail_after(60):
            await ended.wait()
    assert world.metrics.total(world.metrics.disk_bytes) == (0 if lost else RUN)
    assert (world.metrics.total(world.metrics.reads_failed) > 0) is lost


async def test_damage_on_disk_is_fetched_again_around_the_good_blocks(disk):
    file = cache_file(disk, RUN_BLOCKS)
    world = World(sizes=[RUN])
    place = ChunkPlace(world.digests[0], RUN, BLOCK, file, 0)
    async with world.running():
        await world.read(place)
        await world.settle()
    data = next(
        path for path in (disk.manifests.parent / "files").rglob("*") if path.is_file() and path.stat().st_size == RUN
    )
    with data.open("r+b") as stream:
        stream.seek(3 * BLOCK + 1)
        stream.write(b"damaged")

    again = World(sizes=[RUN])
    asked: list[Ask] = []
    again.set_plan(asked.append)
    async with again.running():
        await again.read(place)
        await again.settle()
    assert asked
    assert disk.statistics().corrupt_blocks == 1
    file.close()
