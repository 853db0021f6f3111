"""Publishing and deleting, one at a time: majorities, completion, refusals, and no trace of what failed."""

import pytest
import trio

from shardfs.core.digest import digest_of
from shardfs.core.keys import RefName, manifest_key
from shardfs.core.names import ModelName
from shardfs.errors import Conflict, InvalidName, NotEnoughNodes, NotFound
from shardfs.testing.memory_store import Fault


async def test_a_publish_is_on_every_node_and_everybody_sees_it(world, content, autojump_clock):
    manifest = content("x")
    published = await world.client().publish("team/m", manifest)
    assert published.ref == RefName("team/m", 1, digest_of(manifest.encode()))
    assert (published.raced, published.unchanged, published.nodes) == (False, False, ("a", "b", "c"))
    reader = world.client()
    assert await reader.resolve(ModelName("team/m")) == published.ref
    assert await reader.manifest(published.ref.manifest) == manifest
    assert trio.current_time() == 0


async def test_the_manifest_is_there_before_the_ref(world, content, autojump_clock):
    await world.client().publish("m", content("x"))
    for store in world.stores:
        puts = [key.partition("/")[0] for op, key in store.calls if op == "put"]
        assert puts == ["manifests", "refs"]


async def test_numbers_go_up_and_over_a_deletion(world, content, autojump_clock):
    catalog = world.client()
    numbers = [(await catalog.publish("m", content(text))).ref.generation for text in "xyx"]
    assert numbers == [1, 2, 3]
    assert (await catalog.delete("m")).generation == 4
    assert await catalog.models() == {}
    assert (await catalog.publish("m", content("x"))).ref.generation == 5
    assert list(await world.client().models()) == ["m"]


async def test_one_node_away_is_no_obstacle(world, content, autojump_clock):
    world.stores[1].faults.append(Fault(error="refused"))
    published = await world.client().publish("m", content("x"))
    assert published.nodes == ("a", "c")


async def test_one_node_hung_costs_a_bounded_time(world, content, autojump_clock):
    world.stores[1].faults.append(Fault(hang=True))
    await world.client().publish("m", content("x"))
    assert trio.current_time() < 3


async def test_without_a_majority_nothing_is_published(world, content, autojump_clock):
    for store in world.stores[1:]:
        store.faults.append(Fault(error="refused"))
    with pytest.raises(NotEnoughNodes, match="1 of the 2 nodes needed"):
        await world.client().publish("m", content("x"))
    assert [store.objects for store in world.stores] == [{}, {}, {}]


async def test_a_manifest_that_reaches_too_few_is_never_referred_to(world, content, autojump_clock):
    for store in world.stores[1:]:
        store.faults.append(Fault(op="put", key="manifests/", error="disk full"))
    with pytest.raises(NotEnoughNodes, match=r"the manifest of m reached 1 of the 2 .*b: disk full; c: disk full"):
        await world.client().publish("m", content("x"))
    assert not [key for store in world.stores for key in store.objects if key.kind == "refs"]


async def test_a_ref_that_reaches_too_few_is_taken_back(world, content, autojump_clock):
    for store in world.stores[1:]:
        store.faults.append(Fault(op="put", key="refs/", error="disk full"))
    with pytest.raises(NotEnoughNodes, match="generation 1 of m reached 1 of the 2"):
        await world.client().publish("m", content("x"))
    assert not [key for store in world.stores for key in store.objects if key.kind == "refs"]


async def test_a_ref_stored_but_not_acknowledged_is_taken_back_too(world, content, autojump_clock):
    for store in world.stores[1:]:
        store.faults.append(Fault(op="put", key="refs/", error="reset", after=True))
    with pytest.raises(NotEnoughNodes):
        await world.client().publish("m", content("x"))
    assert not [key for store in world.stores for key in store.objects if key.kind == "refs"]


async def test_a_publish_that_cannot_look_again_is_not_told_as_done(world, content, autojump_clock):
    catalog = world.client()
    for store in world.stores[1:]:
        store.faults.append(Fault(op="list", times=1, delay=0))  # the first look works
        store.faults.append(Fault(op="list", error="refused"))
    with pytest.raises(NotEnoughNodes, match="needed to publish answered"):
        await catalog.publish("m", content("x"))
    assert not [key for store in world.stores for key in store.objects if key.kind == "refs"]


async def test_equal_content_publishes_nothing(world, content, autojump_clock):
    first = await world.client().publish("m", content("x", created=1))
    again = await world.client().publish("m", content("x", created=2))
    assert (again.ref, again.unchanged) == (first.ref, True)
    assert sum(len(store.objects) for store in world.stores) == 6


async def test_equal_content_completes_what_nodes_lack(world, content, autojump_clock):
    world.stores[1].faults.append(Fault(error="refused", times=99))
    first = await world.client().publish("m", content("x"))
    assert world.holders(first.ref) == "ac"
    world.stores[1].faults.clear()
    again = await world.client().publish("m", content("x"))
    assert again.unchanged
    assert again.nodes == ("a", "b", "c")
    assert world.holders(first.ref) == "abc"
    assert manifest_key(first.ref.manifest) in world.stores[1].objects


async def test_equal_content_whose_manifest_is_lost_is_published_again(world, content, autojump_clock):
    first = await world.client().publish("m", content("x", created=1))
    for store in world.stores:
        del store.objects[manifest_key(first.ref.manifest)]
    again = await world.client().publish("m", content("x", created=2))
    assert (again.ref.generation, again.unchanged) == (2, False)


@pytest.mark.parametrize(("there", "wanted"), [("team/bert", "team"), ("team", "team/bert"), ("a/b", "a/b/c/d")])
async def test_a_model_cannot_be_a_folder_of_another(world, content, autojump_clock, there, wanted):
    catalog = world.client()
    await catalog.publish(there, content("x"))
    before = [dict(store.objects) for store in world.stores]
    with pytest.raises(Conflict, match=there):
        await catalog.publish(wanted, content("y"))
    assert [store.objects for store in world.stores] == before
    await catalog.delete(there)
    await catalog.publish(wanted, content("y"))


async def test_names_are_checked_before_anybody_is_asked(world, content, autojump_clock):
    for name in ("", "../x", "a@1", "/x"):
        with pytest.raises(InvalidName):
            await world.client().publish(name, content("x"))
    assert not any(store.calls for store in world.stores)


async def test_delete_needs_a_model_and_a_majority(world, content, autojump_clock):
    catalog = world.client()
    with pytest.raises(NotFound, match="no such model"):
        await catalog.delete("m")
    published = await catalog.publish("m", content("x"))
    for store in world.stores[1:]:
        store.faults.append(Fault(op="put", error="disk full", times=1))
    with pytest.raises(NotEnoughNodes):
        await catalog.delete("m")
    assert await world.client().models() == {"m": published.ref}
    assert (await catalog.delete("m")).generation == 2
    with pytest.raises(NotFound, match="was deleted"):
        await catalog.delete("m")


async def test_a_majority_is_never_smaller_than_the_replicas(make_world, content, autojump_clock):
    world = make_world(nodes=4, replicas=4)
    world.stores[0].faults.append(Fault(error="refused"))
    with pytest.raises(NotEnoughNodes, match="3 of the 4"):
        await world.client().publish("m", content("x"))
