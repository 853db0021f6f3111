"""A cache disk that hangs over one file: opens, reads and closes go on without it, and the event loop never waits."""

import math
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest
import trio

from shardfs.cache.stored import StoredFile
from shardfs.vfs import FileSystem, places
from tests.vfs.world import CHUNK, World, content, until, walk

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
            await until(lambda inode=inode, plain=plain: cached(fs, inode) == len(plain))
    return world


def cached(fs: FileSystem, inode: int) -> int:
    return int(fs.getxattr(inode, "user.shardfs.cached"))


async def test_an_open_that_waits_for_its_map_holds_up_no_other(
    world: World, tmp_path: Path, disk: Disk, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(places, "MAP_SECONDS", math.inf)
    async with world.filesystem(cache=tmp_path / "cache") as fs:
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


async def test_a_map_that_does_not_come_in_time_is_gone_without(
    world: World, tmp_path: Path, disk: Disk, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(places, "MAP_SECONDS", 0.0)
    async with world.filesystem(cache=tmp_path / "cache") as fs:
        hung = await walk(fs, "m/hung")
        disk.hang("load")
        handle = await fs.open(hung)
        await disk.hangs()
        assert bytes(await fs.read(handle, 0, CHUNK)) == HUNG[:CHUNK]
        assert cached(fs, hung) == 0
        disk.go_on.set()
        await until(lambda: cached(fs, hung) == len(HUNG), LIMIT_SECONDS)
        fs.release(handle)


async def test_an_open_that_is_given_up_leaves_nothing(
    world: World, tmp_path: Path, disk: Disk, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(places, "MAP_SECONDS", math.inf)
    async with world.filesystem(cache=tmp_path / "cache") as fs:
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
