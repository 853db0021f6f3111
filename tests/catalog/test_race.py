"""Uploaders of one name at the same time, in every order that hypothesis thinks of. In virtual time.

What must hold, whatever the order: each uploader gets a number of its own, a number that was told keeps its content,
nobody who looks after it was told sees something older, and the newest that one reader sees never goes backwards.
"""

from random import Random

import pytest
import trio
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from trio.testing import MockClock

from shardfs.core.digest import digest_of
from shardfs.core.keys import RefName, parse_ref
from shardfs.core.manifest import make_manifest
from shardfs.core.names import ModelName
from shardfs.core.ref import encode_ref
from shardfs.errors import Conflict, ShardfsError
from shardfs.testing.memory_store import Fault, MemoryStore

TICK = 0.05

pauses = st.lists(st.integers(0, 4), min_size=1, max_size=40)
"""How long each operation takes, in ticks; repeated when it runs out."""

faults = st.none() | st.tuples(
    st.integers(0, 2),
    st.sampled_from(["put", "list", "size", "delete", ""]),
    st.sampled_from(["", "refs/", "manifests/"]),
    st.sampled_from(["error", "hang", "lost"]),
    st.integers(1, 6),
)
"""One node of three that goes wrong a few times: a majority stays."""


class Race:
    """Publishers, one reader that remembers and readers that do not, over one world."""

    def __init__(self, world, starts, ticks, fault, chance):
        self.world = world
        self.starts = starts
        self.ticks = ticks
        self.chance = chance
        self.told = []
        self.failed = []
        self.drawn = 0
        for store in world.stores:
            store.pause = self.pause
        if fault is not None:
            node, op, key, kind, times = fault
            error = None if kind == "hang" else "reset"
            world.stores[node].faults.append(
                Fault(op=op, key=key, hang=kind == "hang", error=error, after=kind == "lost", times=times)
            )

    def pause(self, op, key):
        self.drawn += 1
        return self.ticks[self.drawn % len(self.ticks)] * TICK

    async def publish(self, number):
        await trio.sleep(self.starts[number] * TICK)
        catalog = self.world.client()
        catalog._chance = self.chance(number)
        manifest = make_manifest([(f"{number}", 1, False)], bytes(digest_of(bytes([number]))), created=1)
        try:
            published = await catalog.publish("m", manifest)
        except ShardfsError as error:
            self.failed.append(error)
        else:
            self.told.append(published.ref)

    async def read(self, done):
        remembering = self.world.client()
        last = None
        while not done.is_set():
            before = list(self.told)
            seen = await self.world.client().refs("m")
            if before and seen.majority:
                assert seen.newest["m"] >= max(before)
            newest = (await remembering.refs("m")).newest.get("m")
            assert last is None or newest >= last
            last = newest
            await trio.sleep(TICK)

    async def run(self):
        done = trio.Event()
        async with trio.open_nursery() as nursery:
            nursery.start_soon(self.read, done)
            async with trio.open_nursery() as uploads:
                for number in range(len(self.starts)):
                    uploads.start_soon(self.publish, number)
            done.set()

    async def check(self):
        for store in self.world.stores:
            store.faults.clear()
        catalog = self.world.client()
        assert len({ref.generation for ref in self.told}) == len(self.told)
        for ref in self.told:
            assert len(self.world.holders(ref)) >= 2
            assert await catalog.resolve(ModelName("m", ref.generation)) == ref
        if self.told:
            assert await catalog.resolve(ModelName("m")) >= max(self.told)


@settings(max_examples=200, suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow])
@given(
    starts=st.lists(st.integers(0, 12), min_size=2, max_size=3),
    ticks=pauses,
    fault=faults,
    seed=st.integers(0, 1000),
)
def test_every_uploader_gets_its_own_number_and_nothing_told_is_lost(make_world, starts, ticks, fault, seed):
    race = Race(make_world(), starts, ticks, fault, lambda number: Random(seed * 3 + number).random)

    async def main():
        await race.run()
        await race.check()
        assert not race.failed

    trio.run(main, clock=MockClock(autojump_threshold=0))


def test_uploaders_that_see_each_other_both_move_on(make_world):
    """The worst order: both have written before either looks again."""
    race = Race(make_world(), starts=[0, 0], ticks=[1], fault=None, chance=lambda number: lambda: [0.0, 0.9][number])

    async def main():
        await race.run()
        await race.check()

    trio.run(main, clock=MockClock(autojump_threshold=0))
    assert sorted(ref.generation for ref in race.told) == [2, 3]
    assert not race.failed
    assert not [key for store in race.world.stores for key in store.objects if "-" in key and f"{1:016}" in key]


class AlwaysRacing(MemoryStore):
    """Each time a ref is stored, somebody else claims its number too."""

    async def put(self, key, parts):
        created = await super().put(key, parts)
        if key.kind == "refs":
            ref = parse_ref(key)
            rival = RefName(ref.model, ref.generation, digest_of(b"rival %d" % ref.generation))
            self.objects[rival.key] = encode_ref(rival)
        return created


async def test_an_uploader_that_always_meets_others_gives_up_and_leaves_nothing(world, content, autojump_clock):
    world.stores[:] = [AlwaysRacing(store.node) for store in world.stores]
    manifest = content("x")
    with pytest.raises(Conflict, match="8 times in a row; try again"):
        await world.client().publish("m", manifest)
    own = digest_of(manifest.encode())
    refs = [parse_ref(key) for store in world.stores for key in store.objects if key.kind == "refs"]
    assert {ref.generation for ref in refs} == set(range(1, 9))
    assert own not in {ref.manifest for ref in refs}


async def test_an_uploader_that_died_between_writing_and_looking_blocks_nobody(world, content, autojump_clock):
    stale = world.plant(RefName("m", 1, digest_of(b"died")), [0])
    world.stores[0].pause = lambda op, key: 0.01
    first = await world.client().publish("m", content("x"))
    assert first.ref.generation == 2
    assert await world.client().versions("m") == [stale, first.ref]


async def test_a_folder_and_a_model_of_the_same_name_at_the_same_time_never_both_exist(world, content, autojump_clock):
    for store in world.stores:
        store.pause = lambda op, key: TICK
    failed = []

    async def publish(model):
        try:
            await world.client().publish(model, content(model.replace("/", "-")))
        except ShardfsError as error:
            failed.append(error)

    async with trio.open_nursery() as nursery:
        for model in ("team", "team/bert"):
            nursery.start_soon(publish, model)
    models = await world.client().models()
    assert len(models) + len(failed) == 2
    assert len(models) <= 1
