"""A bug that one node's answer brings out ends that attempt, and the blocks come from another copy."""

import logging

import pytest
import trio

from tests.fetch.world import RUN, World


@pytest.mark.parametrize("asked", ["get", "get_spans"])
@pytest.mark.parametrize("after", [0, 1, RUN // 2])
@pytest.mark.usefixtures("bugs_expected")
async def test_the_next_copy_is_read(autojump_clock, monkeypatch, caplog, asked, after):
    world = World(sizes=[2 * RUN] * 6)
    ill = world.nodes[world.owners(0)[0]]
    hits = 0
    whole = getattr(ill, asked)

    async def broken(key, into, **options):
        """As it is, until `after` bytes have come."""
        nonlocal hits
        hits += 1
        come = options.pop("arrived", None)

        def arrived(*told: int) -> None:
            if come is not None:
                come(*told)
            if told[-1] >= after:
                raise ZeroDivisionError("bug")

        if not after:
            await trio.lowlevel.checkpoint()
            raise UnicodeError("bug")
        return await whole(key, into, arrived=arrived, **options)

    monkeypatch.setattr(ill, asked, broken)
    async with world.running():
        for chunk in range(6):
            for run in (1, 0) if asked == "get_spans" else (0, 1):
                await world.read(world.place(chunk, run))
        await world.settle()
    assert hits
    assert world.metrics.total(world.metrics.reads_failed) == 0
    assert world.metrics.total(world.metrics.failures) == hits
    assert world.metrics.total(world.metrics.corrupt) == 0
    assert not world.fleet[ill.node].health.suspect
    logged = [record for record in caplog.records if record.exc_info]
    assert [(record.levelno, record.name) for record in logged] == [(logging.ERROR, "shardfs.store.watched")]
    assert f"node {ill.node}: internal error" in logged[0].getMessage()


@pytest.mark.usefixtures("bugs_expected")
async def test_only_the_chunk_fails_when_every_copy_brings_it_out(autojump_clock, monkeypatch):
    world = World()
    usual = type(world.nodes["n0"]).get
    ill = world.place(0).digest

    async def get(node, key, into, **options):
        if ill.hex() in key:
            raise ZeroDivisionError("bug")
        return await usual(node, key, into, **options)

    monkeypatch.setattr(type(world.nodes["n0"]), "get", get)
    async with world.running():
        with pytest.raises(Exception, match=r"no node has a good copy .*internal error: ZeroDivisionError"):
            await world.read(world.place(0))
        assert trio.current_time() < 1.0, "at once, and not when the deadline has passed"
        await world.read(world.place(1))
        await world.settle()
