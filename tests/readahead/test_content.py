"""The policy at work: the real filesystem and engine over nodes in memory, and what of it reaches the nodes.

Blocks are 4 KiB and chunks 16 KiB here, so a window of 256 KiB is sixteen chunks, as in the mount. In virtual time:
no node is ever slow, so none is asked for what another has been asked for.
"""

import random
from contextlib import asynccontextmanager
from pathlib import Path

import pytest

from shardfs.core.readahead import ReadAheadOptions
from shardfs.vfs.filesystem import FileSystemOptions
from shardfs.vfs.trace import LINES_MAX, Recorder, TracedFileSystem
from tests.vfs.world import BLOCK, CHUNK, World, until, walk

pytestmark = pytest.mark.usefixtures("autojump_clock")
OPTIONS = FileSystemOptions(readahead=ReadAheadOptions(window_bytes_max=16 * CHUNK))


def noise(size: int, seed: int = 1) -> bytes:
    return random.Random(seed).randbytes(size)


def fetched(fs) -> int:
    metrics = fs._engine._metrics
    return metrics.total(metrics.fetched_bytes)


async def settle(fs) -> None:
    """Until no fetch is under way."""
    engine = fs._engine
    await until(lambda: not any(fill.pending for fill in engine._fills.all()))


@asynccontextmanager
async def opened(files, path: str = "m", slots: int = 64):
    world = World()
    world.publish("m", files)
    async with world.filesystem(slots=slots, options=OPTIONS) as fs:
        handle = await fs.open(await walk(fs, path))
        yield fs, handle


async def test_random_reads_fetch_their_blocks_and_no_more():
    body = noise(256 * CHUNK)
    chance = random.Random(1)
    async with opened(body) as (fs, handle):
        blocks = set()
        for place in chance.sample(range(1, len(body) // BLOCK), 50):
            at = place * BLOCK + chance.randrange(BLOCK - 100)
            assert bytes(await fs.read(handle, at, 100)) == body[at : at + 100]
            blocks.add(place)
        await settle(fs)
        assert fetched(fs) == len(blocks) * BLOCK


@pytest.mark.parametrize("slots", [2, 4, 64])
async def test_a_sequential_reader_fetches_each_byte_once(slots):
    body = noise(100 * CHUNK + 77)
    async with opened(body, slots=slots) as (fs, handle):
        for at in range(0, len(body), BLOCK // 2):
            assert bytes(await fs.read(handle, at, BLOCK // 2)) == body[at : at + BLOCK // 2]
        await settle(fs)
        assert fetched(fs) == len(body)


async def test_a_backward_reader_too():
    body = noise(100 * CHUNK)
    async with opened(body) as (fs, handle):
        for at in range(len(body) - BLOCK, -1, -BLOCK):
            assert bytes(await fs.read(handle, at, BLOCK)) == body[at : at + BLOCK]
        await settle(fs)
        assert fetched(fs) == len(body)


async def test_the_next_shard_is_there_when_it_is_opened():
    shards = {f"model-{n}-of-3": noise(20 * CHUNK, n) for n in (1, 2, 3)} | {"other-1": noise(20 * CHUNK, 4)}
    async with opened(shards, "m/model-1-of-3") as (fs, handle):
        for at in range(0, 20 * CHUNK, CHUNK):
            await fs.read(handle, at, CHUNK)
        await settle(fs)
        assert fetched(fs) == 20 * CHUNK + 16 * CHUNK
        fs.release(handle)
        assert not fs._engine._fills._unread  # kept, but the first to go
        second = await fs.open(await walk(fs, "m/model-2-of-3"))
        for at in range(0, 16 * CHUNK, CHUNK):
            assert bytes(await fs.read(second, at, CHUNK)) == shards["model-2-of-3"][at : at + CHUNK]
        await settle(fs)
        assert fetched(fs) <= 20 * CHUNK + 20 * CHUNK + 16 * CHUNK
        fs.release(second)


async def test_a_closed_file_leaves_no_memory_taken():
    """Otherwise what nobody will ever read would keep others from prefetching."""
    body = noise(100 * CHUNK)
    async with opened(body) as (fs, handle):
        for at in range(0, 20 * CHUNK, CHUNK):
            await fs.read(handle, at, CHUNK)
        await settle(fs)
        assert len(fs._engine._fills._unread) >= 8
        fs.release(handle)
        assert not fs._engine._fills._unread
        before = fetched(fs)
        again = await fs.open(await walk(fs, "m"))
        assert bytes(await fs.read(again, 20 * CHUNK, CHUNK)) == body[20 * CHUNK : 21 * CHUNK]
        assert fetched(fs) == before  # it was still there


async def test_what_was_lost_comes_back_with_the_read():
    """Prefetched, evicted, asked for: one more fetch for the rest of the chunk, not one for each block."""
    body = noise(40 * CHUNK)
    async with opened(body) as (fs, handle):
        for at in range(0, 8 * CHUNK, CHUNK):
            await fs.read(handle, at, CHUNK)
        await settle(fs)
        engine = fs._engine
        while engine._fills._evict():
            pass
        before = fetched(fs)
        await fs.read(handle, 8 * CHUNK, 100)
        await settle(fs)
        assert fetched(fs) >= before + CHUNK


async def test_a_trace_has_a_line_for_each_read(tmp_path: Path):
    body = noise(4 * CHUNK)
    world = World()
    world.publish("team/m", {"a/b c": body})
    async with world.filesystem() as plain:
        with Recorder(tmp_path / "trace") as recorder:
            fs = TracedFileSystem(
                plain._namespace, plain._engine, disk=None, started=1, recorder=recorder, delay_seconds=0.01
            )
            handle = await fs.open(await walk(fs, "team/m/a/b c"))
            for at in (0, 100, CHUNK):
                assert bytes(await fs.read(handle, at, 50)) == body[at : at + 50]
            assert (tmp_path / "trace").read_text() == ""
            for number in range(LINES_MAX):
                recorder.add(f"{number}\n")
            assert len((tmp_path / "trace").read_text().splitlines()) == LINES_MAX
        lines = [line.split(" ", 4) for line in (tmp_path / "trace").read_text().splitlines()]
        assert [(line[2:5]) for line in lines[:3]] == [[str(at), "50", "team/m/a/b c"] for at in (0, 100, CHUNK)]
        assert all(int(line[1]) >= 10_000 for line in lines[:3])
        assert len(lines) == LINES_MAX + 3


async def test_a_trace_that_cannot_be_written_ends(tmp_path: Path, caplog):
    with Recorder(Path("/dev/full")) as recorder:
        for number in range(2 * LINES_MAX):
            recorder.add(f"{number}\n")
    assert [record.message for record in caplog.records] == [
        "trace /dev/full: No space left on device; nothing more is recorded"
    ]
