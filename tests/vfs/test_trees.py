"""Manifests in the memory of a mount: what is open, and within a limit what was used last."""

import gc
from weakref import ref as weak

import pytest

from shardfs.catalog import Catalog, CatalogOptions
from shardfs.core.keys import manifest_key
from shardfs.errors import NoCopy
from shardfs.store.fleet import Fleet
from shardfs.store.watched import WatchedStore
from shardfs.vfs.trees import Trees
from tests.vfs.world import ROOT, World, content, listing, walk

FILES = {f"file-{number:03}": b"" for number in range(200)}


def trees_of(world: World, bytes_max: int) -> Trees:
    fleet = Fleet([WatchedStore(store) for store in world.stores])
    return Trees(Catalog(fleet, world.cluster, options=CatalogOptions(memory_bytes=0)), bytes_max=bytes_max)


async def test_the_limit_is_of_bytes_and_the_longest_unused_goes_first():
    world = World()
    refs = [world.publish(f"m{number}", {**FILES, "own": b"%d" % number}) for number in range(4)]
    cost = (await trees_of(world, 1 << 30).get(refs[0])).memory_bytes
    trees = trees_of(world, 2 * cost + cost // 2)
    for ref in (refs[0], refs[1], refs[0], refs[2], refs[3]):
        await trees.get(ref)
        assert trees.kept_bytes <= 2 * cost + cost // 2
    assert [ref in trees for ref in refs] == [False, False, True, True]


async def test_one_that_is_larger_than_the_limit_is_kept_alone():
    world = World()
    refs = [world.publish(f"m{number}", {**FILES, "own": b"%d" % number}) for number in range(2)]
    trees = trees_of(world, 1)
    for ref in refs:
        assert await trees.get(ref) is await trees.get(ref)
    assert [ref in trees for ref in refs] == [False, True]


async def test_one_that_is_larger_than_the_limit_is_not_made_anew_because_of_others():
    world = World()
    large = world.publish("large", {**FILES, "own": b"large"})
    small = [world.publish(f"m{number}", {"own": b"%d" % number}) for number in range(2)]
    cost = (await trees_of(world, 1 << 30).get(small[0])).memory_bytes
    trees = trees_of(world, cost)
    tree = await trees.get(large)
    made = weak(tree)
    del tree
    for ref in small:
        await trees.get(ref)
    assert await trees.get(large) is made()
    assert [ref in trees for ref in small] == [False, True]


async def test_what_somebody_holds_is_never_there_twice():
    world = World()
    refs = [world.publish(f"m{number}", {**FILES, "own": b"%d" % number}) for number in range(2)]
    trees = trees_of(world, 1)
    held = await trees.get(refs[0])
    await trees.get(refs[1])
    assert await trees.get(refs[0]) is held


async def test_names_that_the_kernel_knows_hold_no_manifest_and_open_files_do():
    world = World()
    refs = [world.publish(name, {"f": name.encode(), "deep/g": b"g"}) for name in ("a", "b")]
    async with world.filesystem() as fs:
        fs._namespace._trees = trees_of(world, 1)
        inode, below = await walk(fs, "a/f"), await walk(fs, "a/deep")
        tree = weak(await fs._namespace.tree(refs[0]))
        handle = await fs.open(inode)
        await walk(fs, "b/f")
        gc.collect()
        assert tree() is not None
        fs.release(handle)
        gc.collect()
        assert tree() is None
        assert fs.getattr(inode).size == 1  # and all is there as before
        assert await listing(fs, below) == ["g"]
        assert await content(fs, inode) == b"a"


async def test_a_generation_that_was_seen_is_listed_without_its_manifest():
    world = World()
    ref = world.publish("a", b"a")
    world.publish("b", {"f": b"b"})
    async with world.filesystem() as fs:
        fs._namespace._trees = trees_of(world, 1)
        assert await listing(fs, ROOT) == ["a", "b"]
        before = [await walk(fs, name) for name in ("a", "b")]
        await fs._namespace.tree(world.publish("c", b"c"))
        for store in world.stores:
            store.objects.pop(manifest_key(ref.manifest))
        assert await listing(fs, ROOT) == ["a", "b", "c"]
        assert [await walk(fs, name) for name in ("a", "b")] == before
        with pytest.raises(NoCopy):
            await fs.open(before[0])
