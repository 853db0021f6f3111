"""Credentials that all nodes refuse: programs are told so, and the log says who refused what, once."""

import logging

import pytest

from shardfs.core.keys import MANIFESTS
from shardfs.errors import AllDenied, Denied
from shardfs.testing.memory_store import Fault
from tests.vfs.world import ROOT, World, listing, walk


def refuse(world: World, key: str = MANIFESTS) -> None:
    for store in world.stores:
        store.faults.append(Fault(key=key, error=Denied(store.node, "HTTP 401")))


async def test_a_model_not_looked_at_before(caplog):
    world = World()
    world.publish("m", {"f": b"m"})
    refuse(world)
    with caplog.at_level(logging.WARNING):
        async with world.filesystem() as fs:
            for _ in range(3):
                with pytest.raises(AllDenied):
                    await fs.lookup(ROOT, b"m")
    (line,) = [record.getMessage() for record in caplog.records]
    assert line.startswith("m@1: manifest ")
    for node in "abc":
        assert f"{node}: HTTP 401" in line


async def test_it_is_said_again_when_it_has_worked_in_between(caplog):
    world = World()
    world.publish("m", {"f": b"m"})
    with caplog.at_level(logging.WARNING):
        async with world.filesystem() as fs:
            refuse(world)
            with pytest.raises(AllDenied):
                await fs.lookup(ROOT, b"m")
            for store in world.stores:
                store.faults.clear()
            await walk(fs, "m")
            world.publish("n", {"f": b"n"})
            refuse(world)
            with pytest.raises(AllDenied):
                await fs.lookup(ROOT, b"n")
    assert [record.getMessage()[:3] for record in caplog.records] == ["m@1", "n@1"]


async def test_many_models_are_few_lines(caplog):
    world = World()
    for i in range(50):
        world.publish(f"m{i:02d}", b"m%d" % i)
    refuse(world)
    with caplog.at_level(logging.WARNING):
        async with world.filesystem() as fs:
            with pytest.raises(AllDenied):
                await fs.opendir(ROOT)
    assert 1 <= len(caplog.records) <= 5


async def test_a_listing_has_what_is_known_and_is_refused_rather_than_empty():
    world = World()
    world.publish("seen", b"s")
    async with world.filesystem() as fs:
        assert await listing(fs, ROOT) == ["seen"]
        world.publish("unseen", b"u")
        refuse(world)
        assert await listing(fs, ROOT) == ["seen"]
    async with world.filesystem() as fs:
        with pytest.raises(AllDenied):
            await fs.opendir(ROOT)
        for store in world.stores:
            store.objects.clear()  # nothing is there, which is no lie
    async with world.filesystem() as fs:
        assert await listing(fs, ROOT) == []
