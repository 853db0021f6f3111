"""Names, inodes, generations, listings and attributes of the filesystem object."""

import random
import stat
from collections import Counter
from contextlib import suppress

import pytest
import trio
from hypothesis import given, settings
from hypothesis import strategies as st

from shardfs.core.digest import digest_of
from shardfs.core.keys import manifest_key
from shardfs.errors import NoCopy, NotEnoughNodes, NotFound, ShardfsError
from shardfs.testing.memory_store import Fault
from shardfs.vfs import FileSystem
from shardfs.vfs.errors import IsAFolder, NameTooLong, NoAttribute, NotAFolder, StaleInode, TooManyHandles
from shardfs.vfs.filesystem import FileSystemOptions
from shardfs.vfs.trees import Trees
from tests.vfs.world import CHUNK, ROOT, STARTED, World, content, listing, walk

LONG = "é" * 100 + "x" * 55  # 255 bytes in UTF-8


def nested_world() -> World:
    world = World()
    world.publish("solo.bin", b"solo")
    world.publish("team/bert", {"a.bin": b"bert", "deep/er/b.json": b"{}"}, folders=("void",), executable="a.bin")
    world.publish("team/gpt/small.gguf", b"gguf")
    world.publish("team-x", b"sorts between team and team/")
    return world


# ------------------------------------------------------------------------------------------------------- names


async def test_model_names_are_folders():
    async with nested_world().filesystem() as fs:
        assert await listing(fs, ROOT) == ["solo.bin", "team", "team-x"]
        assert await listing(fs, await walk(fs, "team")) == ["bert", "gpt"]
        assert await listing(fs, await walk(fs, "team/gpt")) == ["small.gguf"]
        assert await listing(fs, await walk(fs, "team/bert")) == ["a.bin", "deep", "void"]
        assert await listing(fs, await walk(fs, "team/bert/deep")) == ["er"]
        assert await listing(fs, await walk(fs, "team/bert/void")) == []
        assert await content(fs, await walk(fs, "team/bert/deep/er/b.json")) == b"{}"
        assert await content(fs, await walk(fs, "team/gpt/small.gguf")) == b"gguf"


@pytest.mark.parametrize(
    ("path", "error"),
    [
        ("nothing", NotFound),
        ("tea", NotFound),
        ("team/", NotFound),
        ("team/bert/deep/nothing", NotFound),
        ("team@1", NotFound),
        ("solo.bin@2", NotFound),
        ("solo.bin@0", NotFound),
        ("solo.bin@01", NotFound),
        ("solo.bin@", NotFound),
        ("solo.bin@x", NotFound),
        ("solo.bin@1@1", NotFound),
        ("@1", NotFound),
        (".", NotFound),
        ("..", NotFound),
        ("back\\slash", NotFound),
        ("new\nline@1", NotFound),
        ("x" * 255, NotFound),
        ("x" * 255 + "@1", NameTooLong),
        ("x" * 256, NameTooLong),
        ("team/" + "é" * 128, NameTooLong),
        ("team/bert/" + "x" * 256, NameTooLong),
        ("solo.bin/x", NotAFolder),
        ("team/bert/a.bin/x", NotAFolder),
    ],
)
async def test_names_that_are_not_there(path, error):
    async with nested_world().filesystem() as fs:
        *parents, last = path.split("/")
        inode = await walk(fs, "/".join(parents)) if parents else ROOT
        before = fs.statistics()
        with pytest.raises(error):
            await fs.lookup(inode, last.encode())
        assert fs.statistics() == before


@pytest.mark.parametrize("name", [b"\xff", b"solo.bin\x80", b"\xed\xa0\x80"])
async def test_names_that_are_not_utf8_are_not_there(name):
    async with nested_world().filesystem() as fs:
        with pytest.raises(NotFound):
            await fs.lookup(ROOT, name)


async def test_names_of_255_bytes():
    assert len(LONG.encode()) == 255
    world = World()
    world.publish("m", {LONG: b"file", f"{LONG[:-1]}y/{LONG}": b"nested"})
    world.publish("z" * 255, b"model")
    async with world.filesystem() as fs:
        assert await listing(fs, ROOT) == ["m", "z" * 255]
        assert await content(fs, await walk(fs, f"m/{LONG}")) == b"file"
        assert await content(fs, await walk(fs, f"m/{LONG[:-1]}y/{LONG}")) == b"nested"
        assert await content(fs, await walk(fs, "z" * 255)) == b"model"


# -------------------------------------------------------------------------------------------- generations, inodes


async def test_generations_by_number():
    world = World()
    world.publish("m", b"one")
    world.publish("m", b"two", generation=2)
    async with world.filesystem() as fs:
        assert await listing(fs, ROOT) == ["m"]
        assert await content(fs, await walk(fs, "m")) == b"two"
        assert await content(fs, await walk(fs, "m@1")) == b"one"
        assert await walk(fs, "m@2") == await walk(fs, "m")
        assert await walk(fs, "m@1") != await walk(fs, "m")


async def test_inode_numbers_are_the_same_in_every_mount_and_differ_between_generations():
    paths = ["solo.bin", "team", "team/bert", "team/bert/deep", "team/bert/a.bin", "team/gpt"]
    world = nested_world()
    async with world.filesystem() as one, world.filesystem() as other:
        first = [await walk(one, path) for path in paths]
        assert [await walk(other, path) for path in reversed(paths)][::-1] == first
        assert len({ROOT, *first}) == len(paths) + 1
    world.publish("team/bert", {"a.bin": b"bert", "deep/er/b.json": b"{}"}, generation=2)
    async with world.filesystem() as fs:
        second = [await walk(fs, path) for path in paths]
    assert [a == b for a, b in zip(first, second, strict=True)] == [True, True, False, False, False, True]


async def test_an_open_file_keeps_its_generation():
    """Published over, deleted, forgotten by the kernel: what is open reads on; the name says what is now."""
    old, new = random.Random(1).randbytes(3 * CHUNK), random.Random(2).randbytes(2 * CHUNK)
    world = World()
    world.publish("m", {"f": old})
    async with world.filesystem() as fs:
        inode = await walk(fs, "m/f")
        handle = await fs.open(inode)
        assert bytes(await fs.read(handle, 0, 10)) == old[:10]
        world.publish("m", {"f": new}, generation=2)
        assert await content(fs, await walk(fs, "m/f")) == new
        assert bytes(await fs.read(handle, CHUNK, CHUNK)) == old[CHUNK : 2 * CHUNK]
        world.delete("m", 3)
        with pytest.raises(NotFound):
            await fs.lookup(ROOT, b"m")
        assert await listing(fs, ROOT) == []
        fs.forget(inode, 1)
        assert fs.getattr(inode).size == len(old)
        assert bytes(await fs.read(handle, 0, 4 * CHUNK)) == old
        fs.release(handle)
        with pytest.raises(StaleInode):
            fs.getattr(inode)


async def test_names_are_believed_for_the_refresh_time_only(autojump_clock):
    world = World()
    world.publish("m", b"one")
    async with world.filesystem(fresh=False) as fs:
        before = await walk(fs, "m")
        world.publish("m", b"two", generation=2)
        assert await walk(fs, "m") == before
        await trio.sleep(0.5)
        assert await walk(fs, "m") != before


async def test_a_known_name_costs_one_round_trip_for_name_and_manifest(autojump_clock):
    world = World()
    for number in range(3):
        world.publish(f"m{number}", b"one")
    async with world.filesystem(fresh=False) as fs:
        await fs._namespace.models()
        for store in world.stores:
            store.faults.append(Fault(op="list", delay=0.3))
            store.faults.append(Fault(op="get", key="manifests/", delay=0.3))
        for number in range(3):
            await trio.sleep(1)
            started = trio.current_time()
            await walk(fs, f"m{number}")
            assert trio.current_time() - started < 0.35
        world.publish("m0", b"two", generation=2)  # not what was expected: then it takes both, and is right
        await trio.sleep(1)
        assert await content(fs, await walk(fs, "m0")) == b"two"


async def test_nodes_that_hang_do_not_make_names_wait(autojump_clock):
    """What was known is shown, after a bounded wait; new names come with the nodes."""
    world = World()
    world.publish("m", b"one")
    async with world.filesystem(fresh=False) as fs:
        await walk(fs, "m")
        fault = Fault(op="list", hang=True)
        for store in world.stores:
            store.faults.append(fault)
        await trio.sleep(10)
        started = trio.current_time()
        assert await listing(fs, ROOT) == ["m"]
        assert await content(fs, await walk(fs, "m")) == b"one"
        assert trio.current_time() - started <= 4  # each look waits one second at most
        fault.times = 0
        world.publish("n", b"new")
        await trio.sleep(5)
        assert await listing(fs, ROOT) == ["m", "n"]


@pytest.mark.parametrize("away", [1, 2, 3])
@pytest.mark.parametrize("how", ["hang", "error"])
@pytest.mark.parametrize("name", ["new", "new@1", "m@2", "absent", "team"])
@pytest.mark.parametrize("replicas", [2, 3])
async def test_there_is_no_such_model_when_so_many_say_so_that_one_would_know(
    autojump_clock, away: int, how: str, name: str, replicas: int
):
    """Fewer may lack what was published. A program would take an outage for a model that does not exist.

    With three copies each ref lies on each of three nodes, so that one is enough.
    """
    world = World(replicas)
    world.publish("m", b"one")
    fault = Fault(hang=True) if how == "hang" else Fault(error="refused")
    async with world.filesystem(fresh=False) as fs:
        assert await content(fs, await walk(fs, "m")) == b"one"
        for store in world.stores[:away]:
            store.faults.append(fault)
        await trio.sleep(1)
        assert await content(fs, await walk(fs, "m")) == b"one"
        if replicas == 3:  # a majority is waited for, until those that hang are known
            with suppress(ShardfsError):
                await fs.lookup(ROOT, b"nothing")
            await trio.sleep(4)
        started = trio.current_time()
        with pytest.raises(NotFound if away < replicas else NotEnoughNodes):
            await fs.lookup(ROOT, name.encode())
        assert trio.current_time() - started <= (2 if "@" in name else 1)
        with pytest.raises(NotFound):  # no model can have that name
            await fs.lookup(ROOT, b"m@0")
        fault.times = 0
        await trio.sleep(5)
        with suppress(ShardfsError):  # while nobody answers nobody waits for an answer
            await fs.lookup(ROOT, name.encode())
        await trio.sleep(1)
        with pytest.raises(NotFound):
            await fs.lookup(ROOT, name.encode())
        world.publish("new", b"new")
        assert await content(fs, await walk(fs, "new@1")) == b"new"


async def test_the_doubt_is_about_the_name_that_was_asked_for(autojump_clock):
    """One name's nodes are away for a moment, while another's question, just then, is answered by all."""
    world = World()
    world.publish("m", b"one")
    async with world.filesystem(fresh=False) as fs, trio.open_nursery() as nursery:
        await walk(fs, "m")
        for store in world.stores:  # the listing that a new folder would be in takes longer than anybody waits
            store.pause = lambda op, key: 5.0 if (op, key) == ("list", "refs/") else 0.0
        for store in world.stores[1:]:
            store.faults.append(Fault(op="list", key="refs/new", error="refused"))
        await trio.sleep(1)

        async def another() -> None:
            await trio.sleep(0.5)
            await fs.lookup(ROOT, b"m")

        nursery.start_soon(another)
        with pytest.raises(NotEnoughNodes):
            await fs.lookup(ROOT, b"new")


async def test_attributes_that_are_not_ours_are_answered_without_nodes(autojump_clock):
    """`ls -l` and `cp -a` ask for them of every file."""
    world = World()
    world.publish("m", {"f": b"one"})
    async with world.filesystem(fresh=False) as fs:
        inode = await walk(fs, "m/f")
        fs._namespace._trees = Trees(fs._namespace._catalog, bytes_max=1)
        for store in world.stores:
            store.faults.append(Fault(hang=True))
        started = trio.current_time()
        with pytest.raises(NoAttribute):
            await fs.getxattr(inode, "security.selinux")
        assert await fs.getxattr(inode, "user.shardfs.model") == b"m"
        assert len(fs.xattrs(inode)) == 5
        assert trio.current_time() == started


# ------------------------------------------------------------------------------------------------------- lookups


async def test_every_way_to_learn_an_inode_counts():
    """`lookup`, and each listing that the kernel takes, are one reference each, in whatever order."""
    world = nested_world()
    async with world.filesystem() as fs:
        first, second = await fs.opendir(ROOT), await fs.opendir(ROOT)
        names = [name for name, _ in fs.entries(first, 0)]
        inode = (await fs.lookup(ROOT, b"solo.bin")).inode
        fs.told(first, names.index("solo.bin"))
        fs.told(second, names.index("solo.bin"))
        for _ in range(2):
            fs.forget(inode, 1)
            assert fs.getattr(inode).size == 4
        fs.forget(inode, 1)
        with pytest.raises(StaleInode):
            fs.getattr(inode)


async def test_a_listing_does_not_hide_an_open_file():
    world = nested_world()
    async with world.filesystem() as fs:
        folder = await fs.opendir(ROOT)
        inode = await walk(fs, "solo.bin")
        handle = await fs.open(inode)
        fs.told(folder, 0)
        fs.forget(inode, 2)
        fs.releasedir(folder)
        assert bytes(await fs.read(handle, 0, 99)) == b"solo"
        assert fs.getattr(inode).size == 4
        fs.release(handle)
        assert fs.statistics() == {"inodes": 1, "open_files": 0, "open_folders": 0}


PATHS = ["solo.bin", "team", "team/bert", "team/bert/a.bin", "team@1"]


class Kernel:
    """What a kernel knows: references by inode, open folders with their length, open files."""

    def __init__(self, fs: FileSystem) -> None:
        self.fs = fs
        self.known: Counter[int] = Counter()
        self.folders: list[tuple[int, int]] = []
        self.files: list[int] = []

    def pick(self, number: int) -> int:
        """One of the inodes known, the root among them."""
        return [ROOT, *self.known][number % (len(self.known) + 1)]

    async def lookup(self, number: int) -> None:
        inode = ROOT
        for part in PATHS[number % len(PATHS)].split("/"):
            try:
                inode = (await self.fs.lookup(inode, part.encode())).inode
            except NotFound:
                return
            self.known[inode] += 1

    async def list(self, number: int) -> None:
        if self.fs.is_folder(self.pick(number)):
            handle = await self.fs.opendir(self.pick(number))
            self.folders.append((handle, len(self.fs.entries(handle, 0))))

    async def tell(self, number: int) -> None:
        if self.folders:
            handle, entries = self.folders[number % len(self.folders)]
            if entries:
                self.known[self.fs.entries(handle, number % entries)[0][1].inode] += 1
                self.fs.told(handle, number % entries)

    async def forget(self, number: int) -> None:
        inode = self.pick(number)
        if inode != ROOT:
            self.drop(inode, 1 + number % self.known[inode])

    async def open(self, number: int) -> None:
        if not self.fs.is_folder(self.pick(number)):
            self.files.append(await self.fs.open(self.pick(number)))

    async def release(self, number: int) -> None:
        if self.files:
            self.fs.release(self.files.pop(number % len(self.files)))

    def drop(self, inode: int, count: int) -> None:
        self.fs.forget(inode, count)
        self.known[inode] -= count
        self.known = +self.known

    async def check(self) -> None:
        for inode in self.known:
            assert self.fs.getattr(inode).inode == inode
        for handle in self.files:
            assert bytes(await self.fs.read(handle, 0, 4)) in (b"solo", b"bert", b"sort")

    def leave(self) -> None:
        for handle, _ in self.folders:
            self.fs.releasedir(handle)
        for handle in self.files:
            self.fs.release(handle)
        for inode, count in dict(self.known).items():
            self.drop(inode, count)


STEPS = st.lists(
    st.tuples(st.sampled_from(["lookup", "list", "tell", "tell", "forget", "open", "release"]), st.integers(0, 20)),
    max_size=40,
)


@settings(max_examples=150, deadline=None)
@given(steps=STEPS)
def test_counting_leaves_nothing_behind(steps):
    """A kernel that does anything in any order: what it knows is there, what it has forgotten is gone."""

    async def run() -> None:
        async with nested_world().filesystem() as fs:
            kernel = Kernel(fs)
            for step, number in steps:
                await getattr(kernel, step)(number)
                await kernel.check()
            kernel.leave()
            assert fs.statistics() == {"inodes": 1, "open_files": 0, "open_folders": 0}

    trio.run(run)


# ------------------------------------------------------------------------------------------- listings, attributes


async def test_a_listing_can_be_read_from_any_position_and_does_not_change():
    world = World()
    world.publish("m", {f"{i:04d}": b"x" for i in range(1000)})
    async with world.filesystem() as fs:
        inode = await walk(fs, "m")
        handle = await fs.opendir(inode)
        world.publish("m", {"other": b"y"}, generation=2)
        names = [name for name, _ in fs.entries(handle, 0)]
        assert names == [f"{i:04d}" for i in range(1000)]
        assert [name for name, _ in fs.entries(handle, 997)] == names[997:]
        assert fs.entries(handle, 1000) == []
        assert fs.statistics()["inodes"] == 2
        fs.releasedir(handle)


async def test_a_model_without_manifest_fails_alone():
    """Its name opens with an error, listings leave it out, the others go on."""
    world = World()
    world.publish("good", b"good")
    ref = world.publish("bad", b"bad")
    for store in world.stores:
        store.objects[manifest_key(ref.manifest)] = b"<html>"
    async with world.filesystem() as fs:
        assert await listing(fs, ROOT) == ["good"]
        with pytest.raises(NoCopy, match="wrong bytes"):
            await fs.lookup(ROOT, b"bad")
        assert await content(fs, await walk(fs, "good")) == b"good"


async def test_one_good_manifest_is_enough():
    world = World()
    ref = world.publish("m", b"good")
    world.stores[0].objects[manifest_key(ref.manifest)] = b"garbage"
    del world.stores[1].objects[manifest_key(ref.manifest)]
    async with world.filesystem() as fs:
        assert await content(fs, await walk(fs, "m")) == b"good"


async def test_attributes():
    async with nested_world().filesystem() as fs:
        root = fs.getattr(ROOT)
        assert (root.inode, root.mode, root.mtime) == (ROOT, stat.S_IFDIR | 0o555, STARTED)
        folder = fs.getattr(await walk(fs, "team/bert"))
        assert (folder.mode, folder.mtime) == (stat.S_IFDIR | 0o555, STARTED + 1)
        tool = fs.getattr(await walk(fs, "team/bert/a.bin"))
        assert (tool.mode, tool.size, tool.mtime, tool.links) == (stat.S_IFREG | 0o555, 4, STARTED + 1, 1)
        plain = fs.getattr(await walk(fs, "solo.bin"))
        assert plain.mode == stat.S_IFREG | 0o444
        # A name may get a new generation soon; below it nothing ever changes.
        assert plain.seconds_valid == folder.seconds_valid == 1.0
        assert tool.seconds_valid > 1000


async def attributes(fs: FileSystem, inode: int) -> dict[str, bytes]:
    return {name: await fs.getxattr(inode, name) for name in fs.xattrs(inode)}


async def test_extended_attributes():
    world = World()
    ref = world.publish("team/m", {"f": bytes(range(256)) * (2 * CHUNK // 256) + b"x", "empty": b""}, generation=7)
    async with world.filesystem() as fs:
        shared = {
            "user.shardfs.model": b"team/m",
            "user.shardfs.generation": b"7",
            "user.shardfs.digest": str(ref.manifest).encode(),
        }
        assert await attributes(fs, await walk(fs, "team/m/f")) == shared | {
            "user.shardfs.chunks": b"3",
            "user.shardfs.cached": b"0",
        }
        assert await attributes(fs, await walk(fs, "team/m/empty")) == shared | {
            "user.shardfs.chunks": b"0",
            "user.shardfs.cached": b"0",
        }
        assert await attributes(fs, await walk(fs, "team/m")) == shared | {"user.shardfs.chunks": b"3"}
        assert fs.xattrs(ROOT) == ["user.shardfs.pid"]
        assert await attributes(fs, await walk(fs, "team")) == {}
        with pytest.raises(NoAttribute):
            await fs.getxattr(ROOT, "user.shardfs.model")
        with pytest.raises(NoAttribute):
            await fs.getxattr(await walk(fs, "team/m/f"), "security.capability")


# ------------------------------------------------------------------------------------------------ limits, errors


async def test_the_limit_of_handles():
    world = nested_world()
    async with world.filesystem(options=FileSystemOptions(handles_max=3)) as fs:
        inode = await walk(fs, "solo.bin")
        files = [await fs.open(inode), await fs.open(inode)]
        folder = await fs.opendir(ROOT)
        with pytest.raises(TooManyHandles):
            await fs.open(inode)
        with pytest.raises(TooManyHandles):
            await fs.opendir(ROOT)
        assert bytes(await fs.read(files[0], 0, 4)) == b"solo"
        fs.release(files[0])
        files[0] = await fs.open(inode)
        fs.releasedir(folder)
        await fs.opendir(ROOT)
        assert fs.statistics()["open_files"] == 2


async def test_what_does_not_fit_is_refused_with_its_own_error():
    async with nested_world().filesystem() as fs:
        file, folder = await walk(fs, "solo.bin"), await walk(fs, "team/bert")
        cases = [
            (IsAFolder, lambda: fs.open(ROOT)),
            (IsAFolder, lambda: fs.open(folder)),
            (NotAFolder, lambda: fs.opendir(file)),
            (NotAFolder, lambda: fs.lookup(file, b"x")),
            (StaleInode, lambda: fs.open(12345)),
            (StaleInode, lambda: fs.opendir(12345)),
            (StaleInode, lambda: fs.lookup(12345, b"x")),
            (StaleInode, lambda: fs.read(12345, 0, 1)),
            (StaleInode, lambda: fs.getxattr(12345, "user.shardfs.model")),
        ]
        for error, call in cases:
            with pytest.raises(error):
                await call()
        for sync in (fs.getattr, fs.is_folder, fs.xattrs, lambda inode: fs.entries(inode, 0)):
            with pytest.raises(StaleInode):
                sync(12345)
        # What the kernel says after the fact must not fail.
        fs.release(12345)
        fs.releasedir(12345)
        fs.forget(12345, 1)
        fs.forget(ROOT, 1000)
        assert fs.getattr(ROOT).inode == ROOT
        assert all(issubclass(error, ShardfsError) for error, _ in cases)


async def test_content_is_named_by_its_bytes_in_the_cache(tmp_path):
    """Two models with an equal file share its place in the disk cache."""
    from shardfs.vfs.content import cache_content

    world = World()
    refs = [world.publish(name, {"weights": b"same" * CHUNK, "own": name.encode()}) for name in ("a", "b")]
    async with world.filesystem(cache=tmp_path / "cache") as fs:
        for name in ("a", "b"):
            await walk(fs, f"{name}/weights")
        trees = [await fs._namespace.tree(ref) for ref in refs]
        own, weights = ({cache_content(t.manifest, t.manifest.files[i]).digest for t in trees} for i in (0, 1))
        assert (len(own), len(weights)) == (2, 1)
        assert digest_of(b"") not in own | weights


async def test_two_of_three_nodes_hang(autojump_clock):
    """Nobody has noticed yet: names come from the third, each look waits a bounded time, new models show."""
    world = World()
    world.publish("m", b"one")
    async with world.filesystem(fresh=False) as fs:
        await walk(fs, "m")
        for store in world.stores[:2]:
            store.faults.append(Fault(hang=True))
        world.publish("n", b"new")
        started = trio.current_time()
        while "n" not in await listing(fs, ROOT):
            assert trio.current_time() - started < 6
            await trio.sleep(0.5)
        started = trio.current_time()
        for _ in range(10):
            await walk(fs, "n")
            await trio.sleep(0.5)
        assert trio.current_time() - started < 10


async def test_a_listing_does_not_wait_for_manifests_for_ever(autojump_clock):
    """What is known is listed; what nobody delivers in time is left out, and is there again with the nodes."""
    world = World()
    world.publish("known", b"k")
    world.publish("unknown", b"u")
    async with world.filesystem(fresh=False) as fs:
        await walk(fs, "known")
        fault = Fault(hang=True)
        for store in world.stores:
            store.faults.append(fault)
        started = trio.current_time()
        assert await listing(fs, ROOT) == ["known"]
        assert trio.current_time() - started <= 4
        fault.times = 0
        for store in world.stores:
            store.faults.clear()
        await trio.sleep(5)
        assert await listing(fs, ROOT) == ["known", "unknown"]


async def test_a_long_listing_goes_on_while_manifests_come(autojump_clock):
    """Sixteen at a time, half a second each: longer than any one may take, and all are listed."""
    world = World()
    for number in range(100):
        world.publish(f"m{number:02d}", b"%d" % number)
    async with world.filesystem(fresh=False) as fs:
        for store in world.stores:
            store.faults.append(Fault(op="get", key="manifests/", delay=0.5))
        started = trio.current_time()
        assert len(await listing(fs, ROOT)) == 100
        assert trio.current_time() - started > FileSystemOptions().manifest_seconds
