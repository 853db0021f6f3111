"""Clients that do nothing keep nobody out: not from the places of uploads, and not from the server.

The clock of most tests stands still but for their pushes, so no limit is over because a machine is slow. Where a push
may come before the node waits for what it shall end, there are more of them, each after an answer of the node.
"""

import re
import resource
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress
from pathlib import Path

import pytest
import trio
import trio.testing

from shardfs.admin.standing import Standing
from shardfs.admin.target import CopyOptions, Target
from shardfs.server import ServerOptions
from shardfs.server.places import Places
from shardfs.server.request import Refused
from shardfs.store.fleet import Fleet
from shardfs.store.http import HttpStore
from shardfs.store.watched import WatchedStore
from shardfs.testing.samples import Sample, sample_chunk
from tests.server.raw import Node, parse, read_all, read_answer, serving
from tests.server.test_life import node_process

SMALL, SAMPLE, BIG = sample_chunk(3, 1000), sample_chunk(1, 300_000), sample_chunk(2, 32 * 1024 * 1024)
MEDIUM = sample_chunk(4, 100_000)  # needs a place, and the system takes it at once
LIMITS = ServerOptions(node="a", data=Path())
PROMISED = 60_000_000
FOR_EVER = {"upload_stall_seconds_max": 1e6, "grace_seconds": 1e6}
MIB = 1024 * 1024
HEALTH = b"GET /-/health HTTP/1.1\r\nHost: x\r\n\r\n"


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


async def test_silent_uploaders_give_their_places_back(tmp_path: Path, mock_clock: trio.testing.MockClock) -> None:
    limits = {"grace_seconds": 1e6, "upload_quiet_seconds_max": 1e6, "upload_wait_seconds_max": 1e6}
    async with serving(tmp_path / "a", **limits) as node, uploaders(node, LIMITS.uploads_max) as silent:
        async with await node.connect() as good:
            await good.send_all(put_head(len(MEDIUM.data), MEDIUM) + MEDIUM.data)
            with trio.fail_after(1000):
                while await node.errors("gone") < LIMITS.uploads_max:
                    mock_clock.jump(1.0)
                assert (await read_answer(good))[0] == 201
        for stream in silent:
            assert await read_all(stream) == b""
        assert node.temps() == []


async def test_an_uploader_that_trickles_is_cut_off(tmp_path: Path, mock_clock: trio.testing.MockClock) -> None:
    """Bytes that come one by one buy no more time than they are worth; without a silence that would be 15 minutes."""
    async with serving(tmp_path / "a") as node, uploaders(node, 1) as (stream,):
        with trio.fail_after(300):
            while not await node.errors("gone"):
                for _ in range(2):  # there must be a moment with the last byte read and the next not sent
                    mock_clock.jump((LIMITS.upload_stall_seconds_max - 1) / 2)
                    assert await node.is_well()
                with suppress(trio.BrokenResourceError):
                    await stream.send_all(b"x")
        assert node.temps() == []


async def test_a_slow_uploader_is_served(tmp_path: Path, mock_clock: trio.testing.MockClock) -> None:
    """One that keeps the least rate may take its time, with pauses below the limit, however large the pieces."""
    async with serving(tmp_path / "a") as node, await node.connect() as stream:
        await stream.send_all(put_head(len(SAMPLE.data)))
        pause = LIMITS.upload_stall_seconds_max - 1
        size = int(pause * LIMITS.rate_min_bytes_per_second) // 2
        while node.temps() == []:
            await trio.lowlevel.checkpoint()
        for start in range(0, len(SAMPLE.data), size):
            await stream.send_all(SAMPLE.data[start : start + size])
            mock_clock.jump(pause)
            assert await node.is_well()
        assert (await read_answer(stream))[0] == 201


async def test_a_line_that_moves_is_waited_in(autojump_clock: trio.testing.MockClock) -> None:
    """In the order of arrival, and whoever gives up does not keep the others."""
    places = Places(ServerOptions(node="a", data=Path(), uploads_max=1))
    served: list[tuple[int, float]] = []

    async def upload(number: int) -> None:
        async with places.one():
            for _ in range(3):
                await trio.sleep(LIMITS.upload_quiet_seconds_max - 1)
                places.moved()
            served.append((number, trio.current_time()))

    async with trio.open_nursery() as nursery:
        for number in range(2):
            nursery.start_soon(upload, number)
            await trio.testing.wait_all_tasks_blocked()
        with trio.move_on_after(1):
            await upload(2)
        await upload(3)
    took = 3 * (LIMITS.upload_quiet_seconds_max - 1)
    assert served == [(0, pytest.approx(took)), (1, pytest.approx(2 * took)), (3, pytest.approx(3 * took))]


@pytest.mark.parametrize("moves", [False, True])
async def test_a_line_has_limits(autojump_clock: trio.testing.MockClock, moves: bool) -> None:
    """One for each who waits, and a shorter one while nothing moves."""
    places = Places(ServerOptions(node="a", data=Path(), uploads_max=1))
    await trio.sleep(1000)  # that nothing moved before there was a line means nothing

    async def hold() -> None:
        async with places.one():
            while True:
                await trio.sleep(1)
                if moves:
                    places.moved()

    async with trio.open_nursery() as nursery:
        nursery.start_soon(hold)
        await trio.testing.wait_all_tasks_blocked()
        started = trio.current_time()
        with pytest.raises(Refused):
            async with places.one():
                raise AssertionError("there is no place")
        limit = LIMITS.upload_wait_seconds_max if moves else LIMITS.upload_quiet_seconds_max
        assert trio.current_time() - started == pytest.approx(limit)
        nursery.cancel_scope.cancel()
    async with places.one():
        assert trio.current_time() - started == pytest.approx(limit)


async def test_bytes_of_one_upload_keep_the_others_waiting(tmp_path: Path, mock_clock: trio.testing.MockClock) -> None:
    limits = {"uploads_max": 1, "upload_wait_seconds_max": 1e6} | FOR_EVER
    async with serving(tmp_path / "a", **limits) as node, uploaders(node, 1) as (slow,), await node.connect() as good:
        await good.send_all(put_head(len(MEDIUM.data), MEDIUM) + MEDIUM.data)
        for count in range(1, 6):
            await slow.send_all(bytes(MIB))
            while await received(node) < count * MIB:
                await trio.lowlevel.checkpoint()
            mock_clock.jump(LIMITS.upload_quiet_seconds_max - 0.5)
        await trio.aclose_forcefully(slow)
        assert (await read_answer(good))[0] == 201


async def received(node: Node) -> float:
    """Bytes of bodies, in whole MiB of each while it comes."""
    found = re.search(r"node_received_bytes_total (\d\S*)", (await node.ask("GET", "-/metrics"))[2].decode())
    assert found
    return float(found[1])


async def test_a_small_object_needs_no_place(tmp_path: Path, mock_clock: trio.testing.MockClock) -> None:
    async with serving(tmp_path / "a", upload_quiet_seconds_max=0.0) as node, uploaders(node, LIMITS.uploads_max):
        assert (await node.ask("PUT", MEDIUM.key, body=MEDIUM.data))[0] == 503
        assert (await node.ask("PUT", SMALL.key, body=SMALL.data))[0] == 201


async def test_an_upload_without_a_place_is_told_when_to_come_back(
    tmp_path: Path, mock_clock: trio.testing.MockClock
) -> None:
    async with serving(tmp_path / "a", uploads_max=1, **FOR_EVER) as node, uploaders(node, 1):
        answers: list[bytes] = []

        async def upload() -> None:
            answers.append(await node.say(put_head(len(SAMPLE.data))))

        async with trio.open_nursery() as nursery:
            nursery.start_soon(upload)
            with trio.fail_after(1000):
                while not answers:
                    mock_clock.jump(1.0)
                    assert await node.is_well()
        status, headers, body = parse(answers[0])
        assert (status, headers["retry-after"], body) == (503, "1", b"too many uploads\n")
        assert len(node.temps()) == 1


async def test_our_uploads_bear_a_node_without_a_place(tmp_path: Path, mock_clock: trio.testing.MockClock) -> None:
    """However often they are sent away: that is no failure, and they go nowhere else."""
    async with serving(tmp_path / "a", uploads_max=1, **FOR_EVER) as node:
        store = WatchedStore(HttpStore("a", f"http://{node.host}:{node.port}"))
        options = CopyOptions(question=1e6, put=1e6, patience=1e6)
        standing = Standing(Fleet([store]), question=options.question)
        target = Target(store, standing, options=options, chance=lambda: 0.0)
        sent: list[bool] = []

        async def upload() -> None:
            sent.append(await target.copy(SAMPLE.key, [SAMPLE.data]))

        try:
            async with trio.open_nursery() as nursery:
                async with uploaders(node, 1):
                    nursery.start_soon(upload)
                    while await refused_uploads(node) <= options.tries:
                        mock_clock.jump(1.0)
                while not sent:
                    mock_clock.jump(1.0)
                    assert await node.is_well()
        finally:
            await store.aclose()
        assert sent == [True]


async def refused_uploads(node: Node) -> float:
    metrics = (await node.ask("GET", "-/metrics"))[2].decode()
    found = re.search(r'node_requests_total{method="PUT",status="503"} (\S+)', metrics)
    return float(found[1]) if found else 0


# ------------------------------------------------------------------------------------------------------- answers


async def test_a_reader_that_stops_is_cut_off(tmp_path: Path, mock_clock: trio.testing.MockClock) -> None:
    """However large the answer is; it holds a connection and a descriptor until then, and no thread."""
    async with serving(tmp_path / "a", rate_min_bytes_per_second=1, disk_threads_max=1) as node:
        await node.store.put(BIG.key, [BIG.data])
        async with await node.connect() as stream:
            await stream.send_all(f"GET /{BIG.key} HTTP/1.1\r\nHost: x\r\n\r\n".encode())
            with trio.fail_after(3000):
                while not await node.errors("gone"):
                    mock_clock.jump(LIMITS.answer_stall_seconds_max / 3)
            assert len(await read_all(stream)) < len(BIG.data)


# --------------------------------------------------------------------------------------------------- connections


async def served(node: Node) -> trio.SocketStream:
    """A connection that has had an answer."""
    stream = await node.connect()
    await stream.send_all(HEALTH)
    assert (await read_answer(stream))[0] == 200
    return stream


async def pushed_to_the_end(node: Node, stream: trio.SocketStream, clock: trio.testing.MockClock) -> float:
    """After how many seconds the server has closed this connection, having said nothing."""
    started = trio.current_time()
    said: list[bytes] = []

    async def read() -> None:
        said.append(await read_all(stream))

    async with trio.open_nursery() as nursery:
        nursery.start_soon(read)
        with trio.fail_after(1000):
            while not said:
                clock.jump(1.0)
                assert await node.is_well()
    assert said == [b""]
    return trio.current_time() - started


async def test_idle_connections_end(tmp_path: Path, mock_clock: trio.testing.MockClock) -> None:
    """One that has never asked for anything has the time of a head; one that has may pause for longer."""
    async with serving(tmp_path / "a") as node, await node.connect() as silent, await served(node) as idle:
        seconds = await pushed_to_the_end(node, silent, mock_clock)
        assert LIMITS.header_seconds_max <= seconds < LIMITS.idle_seconds_max
        await idle.send_all(HEALTH)
        assert (await read_answer(idle))[0] == 200
        assert await pushed_to_the_end(node, idle, mock_clock) >= LIMITS.idle_seconds_max


async def test_the_first_head_has_one_limit(tmp_path: Path, mock_clock: trio.testing.MockClock) -> None:
    """Silence before its first byte counts, too. The clock stands still but for the pushes."""
    async with serving(tmp_path / "a") as node, await node.connect() as stream:
        assert await node.is_well()
        mock_clock.jump(LIMITS.header_seconds_max - 1)
        await stream.send_all(HEALTH[:-2])
        assert await node.is_well()
        mock_clock.jump(1.0)
        assert parse(await read_all(stream))[0] == 408


async def test_silent_connections_make_room(tmp_path: Path, mock_clock: trio.testing.MockClock) -> None:
    """More than there is place for: every request is answered, and who has been served stays."""
    async with serving(tmp_path / "a", connections_max=20) as node, await served(node) as good:
        silent = [await node.connect() for _ in range(18)]
        assert await node.is_well()  # it came after them: they have been accepted
        mock_clock.jump(2.0)
        silent += [await node.connect() for _ in range(11)]
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
