"""A node over whose answer the program breaks is one that has not answered."""

import logging

import pytest

from shardfs.core.digest import digest_of
from shardfs.core.keys import RefName
from shardfs.errors import NotEnoughNodes, UsageError
from shardfs.store.watched import logger as watched_logger

REF = RefName("m", 1, digest_of(b"1"))


def breaks(error: Exception):
    async def listing(*_: object, **__: object) -> list[str]:
        raise error

    return listing


@pytest.mark.parametrize("error", [ZeroDivisionError("bug"), ExceptionGroup("g", [ValueError("bug")])])
async def test_a_bug_costs_one_node(world, autojump_clock, monkeypatch, caplog, error):
    world.plant(REF)
    client = world.client()
    monkeypatch.setattr(type(world.stores[1]), "list", listing_of(world.stores[1], breaks(error)))
    for _ in range(3):
        view = await client.refs()
        assert view.refs == (REF,)
        assert view.answered == ("a", "c")
        assert view.failed["b"].startswith("internal error: ")
        assert "bug" in view.failed["b"]
        assert view.majority
    logged = [record for record in caplog.records if record.name == watched_logger.name and record.exc_info]
    assert len(logged) == 1, "once with its traceback, and not every half second"
    assert logged[0].levelno == logging.ERROR
    assert "node b" in logged[0].getMessage()


async def test_a_bug_everywhere_is_told(world, autojump_clock, monkeypatch):
    monkeypatch.setattr(type(world.stores[0]), "list", breaks(ZeroDivisionError("bug")))
    with pytest.raises(NotEnoughNodes, match=r"no node answered .*internal error: ZeroDivisionError"):
        await world.client().refs()


async def test_what_a_node_cannot_take_is_no_bug(world, autojump_clock, monkeypatch, caplog):
    world.plant(REF)
    monkeypatch.setattr(
        type(world.stores[1]), "list", listing_of(world.stores[1], breaks(UsageError("it does not like the name")))
    )
    view = await world.client().refs()
    assert view.failed == {"b": "it does not like the name"}
    assert not [record for record in caplog.records if record.exc_info]


def listing_of(ill, broken):
    """`MemoryStore.list`, but for one store: its instances have slots, so a method is replaced for all of them."""
    usual = type(ill).list

    async def listing(store, *arguments, **options):
        return await (broken if store is ill else usual)(store, *arguments, **options)

    return listing
