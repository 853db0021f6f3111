"""A cache disk that hangs over one file: opens, reads and closes go on without it, and the event loop never waits."""

import math
import os
import threading
from collections.abc import Iterator
from functools import partial
from pathlib import Path

import pytest
import trio

from shardfs.cache import Content, DiskCache, holes, stored
from shardfs.cache.health import DiskHealthOptions
from shardfs.cache.stored import StoredFile
from shardfs.vfs import FileSystem
from shardfs.vfs.filesystem import FileSystemOptions
from tests.cache.samples import Clock
from tests.vfs.world import CHUNK, World, content, walk

LIMIT_SECONDS = 60.0
"""Never reached."""
HUNG, WELL = bytes(range(1, 251)) * 200, bytes(range(1, 251)) * 100


class Disk:
    """Hangs over the larger file in one method of `StoredFile` until `go_on`."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.began, self.go_on = threading.Event(), threading.Event()
        self.threads: set[int] = set()
        self._patch = monkeypatch

    def hang(self, method: str) -> None:
        real = getattr(StoredFile, method)

        def slow(stored: StoredFile, *args: object, **kwargs: object) -> object:
            if stored.content.size == len(HUNG) and not self.go_on.is_set():
                self.threads.add(threading.get_ident())
                self.began.set()
                self.go_on.wait(LIMIT_SECONDS)
            return real(stored, *args, **kwargs)

        self._patch.setattr(StoredFile, method, slow)

    async def hangs(self) -> None:
        assert await trio.to_thread.run_sync(self.began.wait, LIMIT_SECONDS)
        assert threading.get_ident() not in self.threads, "the event loop's"


@pytest.fixture
def disk(monkeypatch: pytest.MonkeyPatch) -> Iterator[Disk]:
    disk = Disk(monkeypatch)
    yield disk
    disk.go_on.set()


@pytest.fixture
async def world(tmp_path: Path) -> World:
    """Both files are in the cache folder."""
    world = World()
    world.publish("m", {"hung": HUNG, "well": WELL})
    async with world.filesystem(cache=tmp_path / "cache") as fs:
        for name, plain in (("hung", HUNG), ("well", WELL)):
            inode = await walk(fs, f"m/{name}")
            assert await content(fs, inode) == plain
            await until_cached(fs, inode, len(plain))
    return world


def waiting(seconds: float) -> FileSystemOptions:
    """An open waits so long for a map."""
    return FileSystemOptions(map_seconds=seconds)


async def cached(fs: FileSystem, inode: int) -> int:
    return int(await fs.getxattr(inode, "user.shardfs.cached"))


async def until_cached(fs: FileSystem, inode: int, size: int, seconds: float = 60.0) -> None:
    with trio.fail_after(seconds):
        while await cached(fs, inode) != size:  # noqa: ASYNC110 - the disk is written by threads
            await trio.sleep(0.005)


async def test_an_open_that_waits_for_its_map_holds_up_no_other(world: World, tmp_path: Path, disk: Disk) -> None:
    async with world.filesystem(cache=tmp_path / "cache", options=waiting(math.inf)) as fs:
        hung, well = await walk(fs, "m/hung"), await walk(fs, "m/well")
        disk.hang("load")
        handles: list[int] = []

        async def opens() -> None:
            handles.append(await fs.open(hung))

        with trio.fail_after(LIMIT_SECONDS):
            async with trio.open_nursery() as nursery:
                nursery.start_soon(opens)
                nursery.start_soon(opens)
                await disk.hangs()
                assert await content(fs, well) == WELL
                assert not handles
                disk.go_on.set()
        for store in world.stores:
            store.objects.clear()
        assert bytes(await fs.read(handles[0], 0, CHUNK)) == HUNG[:CHUNK], "waited for, so it is from the disk"
        for handle in handles:
            fs.release(handle)


async def test_a_map_that_does_not_come_in_time_is_gone_without(world: World, tmp_path: Path, disk: Disk) -> None:
    async with world.filesystem(cache=tmp_path / "cache", options=waiting(0.0)) as fs:
        hung = await walk(fs, "m/hung")
        disk.hang("load")
        handle = await fs.open(hung)
        await disk.hangs()
        assert bytes(await fs.read(handle, 0, CHUNK)) == HUNG[:CHUNK]
        assert await cached(fs, hung) == 0
        disk.go_on.set()
        await until_cached(fs, hung, len(HUNG))
        fs.release(handle)


async def test_an_open_that_is_given_up_leaves_nothing(world: World, tmp_path: Path, disk: Disk) -> None:
    async with world.filesystem(cache=tmp_path / "cache", options=waiting(math.inf)) as fs:
        hung = await walk(fs, "m/hung")
        disk.hang("load")
        async with trio.open_nursery() as nursery:
            nursery.start_soon(fs.open, hung)
            await disk.hangs()
            nursery.cancel_scope.cancel()
        assert fs.statistics()["open_files"] == 0
        disk.go_on.set()


async def test_a_close_waits_for_nothing(world: World, tmp_path: Path, disk: Disk) -> None:
    async with world.filesystem(cache=tmp_path / "cache") as fs:
        hung, well = await walk(fs, "m/hung"), await walk(fs, "m/well")
        handle = await fs.open(hung)
        assert bytes(await fs.read(handle, 0, CHUNK)) == HUNG[:CHUNK]
        disk.hang("save_use")
        fs.release(handle)
        await disk.hangs()
        assert await content(fs, well) == WELL
        fs.release(await fs.open(hung))
        disk.go_on.set()


class HungReads:
    """All reads of the cached bytes of the larger file stand still at the disk itself until `go_on`."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.go_on = threading.Event()
        self.begun = 0
        real = holes.read_full

        def slow(fd: int, offset: int, into: memoryview) -> bool:
            if os.fstat(fd).st_size == len(HUNG):
                self.begun += 1
                self.go_on.wait(LIMIT_SECONDS)
            return real(fd, offset, into)

        monkeypatch.setattr(holes, "read_full", slow)


async def test_reads_that_hang_go_on_from_the_nodes(
    world: World, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Those that are at the disk, those that wait for a thread and those that come later. Then it serves again."""
    async with world.filesystem(cache=tmp_path / "cache", slots=12) as fs:
        hung, well = await walk(fs, "m/hung"), await walk(fs, "m/well")
        handle, other = await fs.open(hung), await fs.open(well)
        reads = HungReads(monkeypatch)
        try:
            with trio.fail_after(LIMIT_SECONDS):
                assert await content(fs, hung) == HUNG
                begun = reads.begun
                assert begun
                assert await cached(fs, hung) == await cached(fs, well) == 0
                assert bytes(await fs.read(other, 0, CHUNK)) == WELL[:CHUNK]
                # No thread goes to the disk any more, nor does anybody wait for a map.
                assert await content(fs, hung) == HUNG
                assert reads.begun == begun
        finally:
            reads.go_on.set()
        await until_cached(fs, well, len(WELL), LIMIT_SECONDS)
        assert await cached(fs, hung) == len(HUNG)
        for store in world.stores:
            store.objects.clear()
        assert await content(fs, well) == WELL
        assert await content(fs, hung) == HUNG
        fs.release(handle)
        fs.release(other)


async def test_no_open_waits_for_a_disk_that_is_known_to_hang(
    world: World, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The first one waits and finds out; the map of the second is asked for, and it does without."""
    clock = Clock()
    monkeypatch.setattr(DiskCache, "open", partial(DiskCache.open, clock=clock))
    async with world.filesystem(cache=tmp_path / "cache", options=waiting(math.inf)) as fs:
        hung, well = await walk(fs, "m/hung"), await walk(fs, "m/well")
        began, go_on = threading.Event(), threading.Event()
        real = stored.load_words

        def slow(fd: int, content: Content) -> object:
            began.set()
            go_on.wait(LIMIT_SECONDS)
            return real(fd, content)

        monkeypatch.setattr(stored, "load_words", slow)
        try:
            async with trio.open_nursery() as nursery:
                nursery.start_soon(fs.open, hung)
                assert await trio.to_thread.run_sync(began.wait, LIMIT_SECONDS)
                clock.now += DiskHealthOptions().hang_seconds
                with trio.fail_after(LIMIT_SECONDS):
                    handle = await fs.open(well)
                    assert bytes(await fs.read(handle, 0, CHUNK)) == WELL[:CHUNK]
                go_on.set()
        finally:
            go_on.set()
        await until_cached(fs, well, len(WELL), LIMIT_SECONDS)
