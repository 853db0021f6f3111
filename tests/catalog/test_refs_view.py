"""Listing refs while nodes are slow, hung, dead, forgetful or lying. In virtual time: no test waits."""

import pytest
import trio

from shardfs.core.digest import ZERO_DIGEST, digest_of
from shardfs.core.keys import RefName
from shardfs.core.names import ModelName
from shardfs.errors import NotEnoughNodes, NotFound
from shardfs.testing.memory_store import Fault, MemoryStore

A, B, C = sorted(digest_of(text) for text in (b"1", b"2", b"3"))


async def test_refs_of_all_nodes_are_merged(world, autojump_clock):
    first, second = RefName("m", 1, A), RefName("m", 2, B)
    world.plant(first, [0, 1])
    world.plant(second, [1, 2])
    other = world.plant(RefName("team/n", 5, C), [2])
    view = await world.client().refs()
    assert view.refs == (first, second, other)
    assert view.newest == {"m": second, "team/n": other}
    assert view.by_node["c"] == {second, other}
    assert (view.answered, view.failed, view.majority) == (("a", "b", "c"), {}, True)


async def test_one_model_is_asked_for_alone(world, autojump_clock):
    world.plant(RefName("m", 1, A))
    world.plant(RefName("m2", 1, A))
    view = await world.client().refs("m")
    assert set(view.newest) == {"m"}
    assert world.stores[0].calls == [("list", "refs/m/")]


async def test_a_hung_node_costs_the_grace_and_not_its_timeout(world, autojump_clock):
    world.plant(RefName("m", 1, A))
    world.stores[1].faults.append(Fault(hang=True))
    view = await world.client().refs()
    assert trio.current_time() == pytest.approx(0.1)
    assert view.answered == ("a", "c")
    assert "b" in view.failed
    assert view.majority


async def test_a_suspect_may_answer_but_is_not_waited_for(make_world, autojump_clock):
    world = make_world(nodes=4)
    world.plant(RefName("m", 1, A))
    fleet = world.fleet()
    for node, delay in (("a", 1.0), ("b", 0.05), ("c", 1.0)):
        fleet[node].late("was late")
        world.stores["abcd".index(node)].faults.append(Fault(delay=delay))
    view = await world.client(fleet).refs()
    assert view.answered == ("b", "d")
    assert not view.majority
    assert trio.current_time() == pytest.approx(0.1)


async def test_without_any_well_node_the_suspects_are_waited_for(world, autojump_clock):
    world.plant(RefName("m", 1, A))
    fleet = world.fleet()
    for store in fleet.stores:
        store.late("was late")
    for store in world.stores:
        store.faults.append(Fault(delay=1.0))
    view = await world.client(fleet).refs()
    assert view.answered == ("a", "b", "c")
    assert trio.current_time() == pytest.approx(1.0)


async def test_fewer_than_a_majority_is_enough_for_reading_and_is_said(world, autojump_clock):
    ref = world.plant(RefName("m", 1, A))
    world.stores[0].faults.append(Fault(error="refused"))
    world.stores[1].faults.append(Fault(hang=True))
    fleet = world.fleet()
    view = await world.client(fleet).refs()
    assert view.newest == {"m": ref}
    assert not view.majority
    assert view.failed == {"a": "refused", "b": "no answer in time"}
    assert trio.current_time() == pytest.approx(2.0)
    assert [store.available for store in fleet.stores] == [False, False, True]


async def test_no_answer_and_nothing_known_names_each_node(world, autojump_clock):
    for store in world.stores:
        store.faults.append(Fault(error=f"{store.node} is on fire"))
    with pytest.raises(NotEnoughNodes, match="a: a is on fire; b: b is on fire; c: c is on fire"):
        await world.client().refs()


async def test_no_answer_but_something_known_is_answered_from_memory(world, autojump_clock):
    ref = world.plant(RefName("m", 1, A))
    catalog = world.client()
    await catalog.refs()
    for store in world.stores:
        store.faults.append(Fault(error="refused"))
    view = await catalog.refs()
    assert (view.newest, view.answered, view.majority) == ({"m": ref}, (), False)
    assert await catalog.resolve(ModelName("m")) == ref
    with pytest.raises(NotEnoughNodes):
        await catalog.refs("n")


async def test_a_node_that_lost_its_disk_takes_nothing_away(world, autojump_clock):
    old, new = world.plant(RefName("m", 1, A)), world.plant(RefName("m", 2, B))
    catalog = world.client()
    assert await catalog.models() == {"m": new}
    for store in world.stores:
        del store.objects[new.key]
    assert await catalog.models() == {"m": new}
    for store in world.stores:
        del store.objects[old.key]
    assert await catalog.models() == {"m": new}
    world.plant(RefName("m", 3, ZERO_DIGEST), [2])
    assert await catalog.models() == {}


async def test_listings_are_read_page_by_page(world, autojump_clock):
    refs = [world.plant(RefName(f"m{i}", 1, A)) for i in range(2500)]
    view = await world.client().refs()
    assert set(view.refs) == set(refs)
    assert len(world.stores[0].calls) == 3


class Liar(MemoryStore):
    """Lists what it likes."""

    page = ()

    async def list(self, prefix, *, after="", limit=1000):
        return self.page


@pytest.mark.parametrize(
    ("page", "reason"),
    [
        ([RefName("m", 2, A).key, RefName("m", 1, A).key], "out of order"),
        ([RefName("m", 1, A).key, RefName("m", 1, A).key], "out of order"),
        ([RefName("n", 1, A).key], "out of order"),
        (["refs/m/7-x"], "not an object name"),
        (["refs/m/" + "0" * 16 + f"-{A}"], "out of range"),
    ],
)
async def test_a_node_that_lists_nonsense_has_failed(world, autojump_clock, page, reason):
    ref = world.plant(RefName("m", 1, A))
    world.stores[0] = Liar("a")
    world.stores[0].page = page
    view = await world.client().refs("m")
    assert reason in view.failed["a"]
    assert view.refs == (ref,)


async def test_a_node_cannot_fill_the_memory(world, autojump_clock):
    for i in range(1500):
        world.plant(RefName(f"m{i}", 1, A), [0])
    ref = world.plant(RefName("m", 1, A), [1, 2])
    view = await world.client(refs_max=900).refs()
    assert view.failed == {"a": "it lists more than 900 refs"}
    assert view.refs == (ref,)


async def test_models_and_prefix(world, autojump_clock):
    for model in ("b", "a/x", "a/y", "gone"):
        world.plant(RefName(model, 1, A))
    world.plant(RefName("gone", 2, ZERO_DIGEST), [1])
    assert list(await world.client().models()) == ["a/x", "a/y", "b"]
    assert list(await world.client().models("a/")) == ["a/x", "a/y"]


async def test_resolve(world, autojump_clock):
    first, second = world.plant(RefName("m", 1, A)), world.plant(RefName("m", 2, B))
    gone = world.plant(RefName("gone", 1, C))
    world.plant(RefName("gone", 2, ZERO_DIGEST))
    catalog = world.client()
    assert await catalog.resolve(ModelName("m")) == second
    assert await catalog.resolve(ModelName("m", 1)) == first
    assert await catalog.resolve(ModelName("gone", 1)) == gone
    assert await catalog.versions("m") == [first, second]


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("team/bert-bas", r"no such model; did you mean team/bert-base or team/bert-large\?"),
        ("team", r"did you mean team/bert-base or team/bert-large\?"),
        ("zzz", "^zzz: no such model$"),
        ("team/bert-base@7", "no such generation, there is 1, 2"),
        ("gone", "was deleted as generation 2"),
        ("gone@2", "no such generation, there is 1"),
    ],
)
async def test_not_found_says_what_there_is_instead(world, autojump_clock, name, message):
    for model in ("team/bert-base", "team/bert-large", "gone"):
        world.plant(RefName(model, 1, A))
    world.plant(RefName("team/bert-base", 2, B))
    world.plant(RefName("gone", 2, ZERO_DIGEST))
    with pytest.raises(NotFound, match=message):
        await world.client().resolve(ModelName.parse(name))


async def test_not_found_without_a_majority_says_so(world, autojump_clock):
    world.plant(RefName("m", 1, A))
    for store in world.stores[1:]:
        store.faults.append(Fault(error="refused"))
    with pytest.raises(NotFound, match=r"only some nodes answered; b: refused; c: refused"):
        await world.client().versions("other")
