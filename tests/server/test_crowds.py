"""Clients that do nothing keep nobody out: not from the places of uploads, and not from the server.

The clock is as quick as the real one, and the tests push it forward: no limit is over before its test wants it.
"""

import resource
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

import pytest
import trio
import trio.testing

from shardfs.admin.standing import Standing
from shardfs.admin.target import CopyOptions, Target
from shardfs.errors import Unavailable
from shardfs.server import ServerOptions
from shardfs.store.fleet import Fleet
from shardfs.store.http import HttpStore
from shardfs.store.watched import WatchedStore
from shardfs.testing.samples import Sample, sample_chunk
from tests.server.raw import Node, parse, read_all, read_answer, serving
from tests.server.test_life import node_process

SMALL, SAMPLE, BIG = sample_chunk(3, 1000), sample_chunk(1, 300_000), sample_chunk(2, 32 * 1024 * 1024)
LIMITS = ServerOptions(node="a", data=Path())
PROMISED = 60_000_000
HEALTH = b"GET /-/health HTTP/1.1\r\nHost: x\r\n\r\n"


@pytest.fixture
def clock(mock_clock: trio.testing.MockClock) -> trio.testing.MockClock:
    mock_clock.rate = 1.0
    return mock_clock


def put_head(length: int, sample: Sample = SAMPLE) -> bytes:
    return f"PUT /{sample.key} HTTP/1.1\r\nHost: x\r\nContent-Length: {length}\r\n\r\n".encode()


@asynccontextmanager
async def uploaders(node: Node, count: int) -> AsyncIterator[list[trio.SocketStream]]:
    """So many clients that have promised a large object, sent one byte of it, and hold a place each."""
    streams = [await node.connect() for _ in range(count)]
    for stream in streams:
        await stream.send_all(put_head(PROMISED) + b"x")
    while len(node.temps()) < count:
        await trio.lowlevel.checkpoint()
    try:
        yield streams
    finally:
        for stream in streams:
            await trio.aclose_forcefully(stream)


# -------------------------------------------------------------------------------------------- places of uploads


async def test_silent_uploaders_give_their_places_back(tmp_path: Path, clock: trio.testing.MockClock) -> None:
    async with serving(tmp_path / "a") as node, uploaders(node, LIMITS.uploads_max) as silent:
        async with await node.connect() as good:
            await good.send_all(put_head(len(SMALL.data), SMALL) + SMALL.data)
            assert await node.is_well()  # by now they are waited for
            clock.jump(LIMITS.upload_stall_seconds_max)
            assert (await read_answer(good))[0] == 201
        for stream in silent:
            assert await read_all(stream) == b""
        while await node.errors("gone") < LIMITS.uploads_max:
            await trio.lowlevel.checkpoint()
        assert node.temps() == []


async def test_an_uploader_that_trickles_is_cut_off(tmp_path: Path, clock: trio.testing.MockClock) -> None:
    """Bytes that come one by one buy no more time than they are worth; without a silence that would be 15 minutes."""
    async with serving(tmp_path / "a") as node, uploaders(node, 1) as (stream,):
        for _ in range(20):
            clock.jump(LIMITS.upload_stall_seconds_max - 1)
            assert await node.is_well()
            try:
                await stream.send_all(b"x")
            except trio.BrokenResourceError:
                break
        assert await node.errors("gone") == 1
        assert node.temps() == []


async def test_a_slow_uploader_is_served(tmp_path: Path, clock: trio.testing.MockClock) -> None:
    """One that keeps the least rate may take its time, with pauses below the limit, however large the pieces."""
    async with serving(tmp_path / "a") as node, await node.connect() as stream:
        await stream.send_all(put_head(len(SAMPLE.data)))
        pause = LIMITS.upload_stall_seconds_max - 1
        size = int(pause * LIMITS.rate_min_bytes_per_second) // 2
        while node.temps() == []:
            await trio.lowlevel.checkpoint()
        for start in range(0, len(SAMPLE.data), size):
            await stream.send_all(SAMPLE.data[start : start + size])
            clock.jump(pause)
            assert await node.is_well()
        assert (await read_answer(stream))[0] == 201


async def test_an_upload_without_a_place_is_told_when_to_come_back(
    tmp_path: Path, clock: trio.testing.MockClock
) -> None:
    limits = {"uploads_max": 1, "upload_stall_seconds_max": 1e6, "grace_seconds": 1e6}
    async with serving(tmp_path / "a", **limits) as node, uploaders(node, 1):
        answers: list[bytes] = []

        async def upload() -> None:
            answers.append(await node.say(put_head(len(SAMPLE.data)) + SAMPLE.data))

        async with trio.open_nursery() as nursery:
            nursery.start_soon(upload)
            with trio.fail_after(1000):
                while not answers:
                    clock.jump(1.0)
                    assert await node.is_well()
        status, headers, body = parse(answers[0])
        assert (status, headers["retry-after"], body) == (503, "1", b"too many uploads\n")
        assert len(node.temps()) == 1


async def test_our_uploads_bear_a_node_without_a_place(tmp_path: Path, clock: trio.testing.MockClock) -> None:
    """The node is neither full nor dead for them: it is left alone for a while, and has the chunk in the end."""
    limits = {"uploads_max": 1, "upload_wait_seconds_max": 0.01, "upload_stall_seconds_max": 1e6, "grace_seconds": 1e6}
    async with serving(tmp_path / "a", **limits) as node:
        store = WatchedStore(HttpStore("a", f"http://{node.host}:{node.port}"))
        options = CopyOptions()
        standing = Standing(Fleet([store]), question=options.question)
        target = Target(store, standing, options=options, chance=lambda: 0.0)
        try:
            async with uploaders(node, 1):
                with pytest.raises(Unavailable, match=r"too many uploads|left alone"):
                    await target.copy(SAMPLE.key, [SAMPLE.data])
                clock.jump(options.rest_first)
                assert (await store.stat()).capacity_bytes
                assert store.available
            while node.temps():
                await trio.lowlevel.checkpoint()
            assert await target.copy(SAMPLE.key, [SAMPLE.data]) is True
        finally:
            await store.aclose()


# ------------------------------------------------------------------------------------------------------- answers


async def test_a_reader_that_stops_is_cut_off(tmp_path: Path, clock: trio.testing.MockClock) -> None:
    """However large the answer is; it holds a connection and a descriptor until then, and no thread."""
    async with serving(tmp_path / "a", rate_min_bytes_per_second=1, disk_threads_max=1) as node:
        await node.store.put(BIG.key, [BIG.data])
        async with await node.connect() as stream:
            await stream.send_all(f"GET /{BIG.key} HTTP/1.1\r\nHost: x\r\n\r\n".encode())
            with trio.fail_after(3000):
                while not await node.errors("gone"):
                    clock.jump(LIMITS.answer_stall_seconds_max / 3)
            assert len(await read_all(stream)) < len(BIG.data)


# --------------------------------------------------------------------------------------------------- connections


async def served(node: Node) -> trio.SocketStream:
    """A connection that has had an answer."""
    stream = await node.connect()
    await stream.send_all(HEALTH)
    assert (await read_answer(stream))[0] == 200
    return stream


async def test_idle_connections_end(tmp_path: Path, clock: trio.testing.MockClock) -> None:
    """One that has never asked for anything has the time of a head; one that has may pause for longer."""
    async with serving(tmp_path / "a") as node, await node.connect() as silent, await served(node) as idle:
        clock.jump(LIMITS.header_seconds_max)
        assert await read_all(silent) == b""
        await idle.send_all(HEALTH)
        assert (await read_answer(idle))[0] == 200
        assert await node.is_well()  # by now its next request is waited for
        clock.jump(LIMITS.idle_seconds_max)
        assert await read_all(idle) == b""


async def test_the_first_head_has_one_limit(tmp_path: Path, mock_clock: trio.testing.MockClock) -> None:
    """Silence before its first byte counts, too. The clock stands still but for the pushes."""
    async with serving(tmp_path / "a") as node, await node.connect() as stream:
        assert await node.is_well()
        mock_clock.jump(LIMITS.header_seconds_max - 1)
        await stream.send_all(HEALTH[:-2])
        assert await node.is_well()
        mock_clock.jump(1.0)
        assert parse(await read_all(stream))[0] == 408


async def test_silent_connections_make_room(tmp_path: Path, clock: trio.testing.MockClock) -> None:
    """More than there is place for: every request is answered, and who has been served stays."""
    async with serving(tmp_path / "a", connections_max=20) as node, await served(node) as good:
        silent = [await node.connect() for _ in range(19)]
        clock.jump(2.0)
        silent += [await node.connect() for _ in range(10)]
        assert await node.is_well()
        await good.send_all(HEALTH)
        assert (await read_answer(good))[0] == 200
        assert await node.errors("evicted") >= 10
        assert await node.errors("refused") == 0
        for stream in silent:
            await stream.aclose()


async def test_the_longest_idle_connection_makes_room(tmp_path: Path, mock_clock: trio.testing.MockClock) -> None:
    """A new connection, whose request may be on its way, does not have to go for the next one."""
    async with serving(tmp_path / "a", connections_max=3) as node:
        first, second, third = [await served(node) for _ in range(3)]
        await first.send_all(HEALTH)
        assert (await read_answer(first))[0] == 200
        new, newer = await node.connect(), await node.connect()
        for stream in (second, third):
            assert await read_all(stream) == b""
        for stream in (new, newer, first):
            await stream.send_all(HEALTH)
            assert (await read_answer(stream))[0] == 200
        for stream in (first, second, third, new, newer):
            await stream.aclose()


async def test_only_requests_keep_others_out(tmp_path: Path) -> None:
    async with serving(tmp_path / "a", connections_max=3) as node:
        async with uploaders(node, 3), await node.connect() as fourth:
            assert parse(await read_all(fourth))[0] == 503
        while not await node.is_well():
            await trio.lowlevel.checkpoint()
        assert await node.errors("evicted") == 0


async def test_our_reads_do_not_notice_an_eviction(tmp_path: Path) -> None:
    async with serving(tmp_path / "a", connections_max=2) as node:
        await node.store.put(SAMPLE.key, [SAMPLE.data])
        async with await served(node), await served(node):
            assert await node.store.read(SAMPLE.key, limit=1 << 20) == SAMPLE.data


async def test_descriptors_for_all_connections(tmp_path: Path) -> None:
    """The soft limit is raised as far as the hard one allows."""
    for hard in (4096, 80):
        with node_process(tmp_path / "a", ("prlimit", f"--nofile=40:{hard}")) as (process, url):
            assert resource.prlimit(process.pid, resource.RLIMIT_NOFILE) == (hard, hard)
            host, port = url.removeprefix("http://").split(":")
            streams = [await trio.open_tcp_stream(host, int(port)) for _ in range(60)]
            for stream in streams:
                await stream.send_all(HEALTH)
                assert (await read_answer(stream))[0] == 200
            for stream in streams:
                await stream.aclose()
