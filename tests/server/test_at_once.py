"""Answers from memory and answers from the disk are the same; neither outlives the object it came from."""

import os
import socket
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest
import trio
import trio.testing

from shardfs.server import ServerOptions, at_once
from shardfs.server.at_once import Glance, in_memory
from shardfs.server.connection import Connection
from shardfs.server.disk import Disk
from shardfs.server.metrics import Metrics
from shardfs.server.outgoing import PUSH_BYTES_MAX, Outgoing
from shardfs.testing.samples import sample_chunk
from tests.server.raw import Node, read_all, read_answer, serving

SMALL, BIG, HUGE = sample_chunk(1, 5000), sample_chunk(2, 2_000_000), sample_chunk(3, 32 * 1024 * 1024)


@pytest.fixture
def threads(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """The names of the calls that went to a thread."""
    calls: list[str] = []
    run = Disk.run

    async def counted(self: Disk, call, *args):
        calls.append(call.__name__)
        return await run(self, call, *args)

    monkeypatch.setattr(Disk, "run", counted)
    return calls


@pytest.fixture
def old_system(monkeypatch: pytest.MonkeyPatch) -> None:
    """A system without the calls."""
    monkeypatch.setattr(at_once, "_syscall", lambda *_: -1)


def glanced(data: Path, key: str) -> bool:
    """Whether this system finds the object in memory."""
    found = Glance(data).open(key)
    if found is None:
        return False
    file, size = found
    try:
        return in_memory(file, 0, size)
    finally:
        os.close(file)


def drop(path: Path) -> None:
    """Take a file out of the page cache, if the file system lets one."""
    with path.open("rb") as file:
        os.fsync(file.fileno())
        os.posix_fadvise(file.fileno(), 0, 0, os.POSIX_FADV_DONTNEED)


async def check_reads(node: Node, sample) -> None:
    """All of it, one range, two ranges, and too far; on one connection."""
    size = len(sample.data)
    async with await node.connect() as stream:

        async def ask(*headers: str) -> tuple[int, dict[str, str], bytes]:
            lines = (f"GET /{sample.key} HTTP/1.1", "Host: x", *headers, "", "")
            await stream.send_all("\r\n".join(lines).encode())
            return await read_answer(stream)

        assert (await ask())[::2] == (200, sample.data)
        status, headers, body = await ask(f"Range: bytes=7-{size - 9}")
        assert (status, headers["content-range"], body) == (206, f"bytes 7-{size - 9}/{size}", sample.data[7:-8])
        status, headers, body = await ask(f"Range: bytes=0-99,1000-{size - 1}")
        assert (status, headers["content-type"].partition(";")[0]) == (206, "multipart/byteranges")
        assert sample.data[:100] + b"\r\n" in body
        assert sample.data[1000:] + b"\r\n" in body
        assert (await ask(f"Range: bytes={size}-"))[0] == 416


@pytest.mark.parametrize("sample", [SMALL, BIG], ids=["small", "big"])
async def test_what_is_in_memory_needs_no_thread(sample, tmp_path: Path, threads: list[str]) -> None:
    async with serving(tmp_path / "a") as node:
        await node.store.put(sample.key, [sample.data])
        if not glanced(node.data, sample.key):
            pytest.skip("this system cannot tell what is in memory")
        for _ in range(50):  # the kernel may look the other way while somebody mounts something
            threads.clear()
            await check_reads(node, sample)
            status, headers, _ = await node.ask("HEAD", sample.key)
            assert (status, headers["content-length"]) == (200, str(len(sample.data)))
            if not threads:
                break
        assert threads == []


@pytest.mark.parametrize("sample", [SMALL, BIG], ids=["small", "big"])
async def test_what_is_not_in_memory_is_read_in_threads(sample, tmp_path: Path, threads: list[str]) -> None:
    async with serving(tmp_path / "a") as node:
        await node.store.put(sample.key, [sample.data])
        drop(node.data / sample.key)
        if glanced(node.data, sample.key):
            pytest.skip("this file system keeps everything in memory")
        threads.clear()
        await check_reads(node, sample)
        assert threads


@pytest.mark.usefixtures("old_system")
@pytest.mark.parametrize("sample", [SMALL, BIG], ids=["small", "big"])
async def test_systems_that_cannot_tell(sample, tmp_path: Path, threads: list[str]) -> None:
    async with serving(tmp_path / "a") as node:
        await node.store.put(sample.key, [sample.data])
        threads.clear()
        await check_reads(node, sample)
        assert threads.count("_open_and_push") == 4
        assert (await node.ask("HEAD", sample.key))[1]["content-length"] == str(len(sample.data))


async def test_part_of_a_file_in_memory(tmp_path: Path) -> None:
    """The first page alone does not vouch for the others."""
    path = tmp_path / "file"
    path.write_bytes(BIG.data)
    drop(path)
    file = os.open(path, os.O_RDONLY)
    try:
        os.posix_fadvise(file, 0, 0, os.POSIX_FADV_RANDOM)  # no read-ahead
        os.pread(file, 10, 0)
        if not in_memory(file, 0, 10) or in_memory(file, len(BIG.data) - 10, len(BIG.data)):
            pytest.skip("this system cannot tell, or keeps everything in memory")
        assert not in_memory(file, 0, len(BIG.data))
        assert not in_memory(file, 0, 64 * 1024 * 1024), "nor is there anything behind the end"
        os.pread(file, len(BIG.data), 0)
        assert in_memory(file, 0, len(BIG.data))
    finally:
        os.close(file)


@pytest.fixture(params=["now", "in threads"])
def way(request: pytest.FixtureRequest) -> Iterator[str]:
    if request.param != "now":
        request.getfixturevalue("old_system")
    return request.param


@pytest.mark.usefixtures("way")
async def test_objects_that_go_and_come_back(tmp_path: Path) -> None:
    """Removed by a client, removed by hand, put again, replaced by hand: the next answer knows."""
    async with serving(tmp_path / "a") as node:
        path = node.data / BIG.key
        for remove in (lambda: node.ask("DELETE", BIG.key), trio.Path(path).unlink):
            await node.store.put(BIG.key, [BIG.data])
            assert (await node.ask("GET", BIG.key))[::2] == (200, BIG.data)
            await remove()
            assert (await node.ask("GET", BIG.key))[0] == 404
            assert (await node.ask("HEAD", BIG.key))[0] == 404
        await node.store.put(BIG.key, [BIG.data])
        other = node.data / "other"
        other.write_bytes(BIG.data[:300_000])
        other.rename(path)
        assert (await node.ask("GET", BIG.key))[::2] == (200, BIG.data[:300_000])
        os.truncate(path, 100_000)
        assert (await node.ask("GET", BIG.key))[::2] == (200, BIG.data[:100_000])


@pytest.mark.usefixtures("way")
async def test_what_is_planted_in_the_folder_is_no_object(tmp_path: Path) -> None:
    secret = tmp_path / "secret"
    secret.write_bytes(b"secret" * 50_000)
    async with serving(tmp_path / "a") as node:
        await node.store.put(BIG.key, [BIG.data])
        path = node.data / BIG.key
        path.unlink()
        path.symlink_to(secret)
        assert (await node.ask("GET", BIG.key))[0] == 404
        path.unlink()
        os.mkfifo(path)
        assert (await node.ask("GET", BIG.key))[0] == 404
        path.unlink()
        path.mkdir()
        assert (await node.ask("GET", BIG.key))[0] == 404
        path.rmdir()
        path.parent.rmdir()
        (tmp_path / path.name).write_bytes(b"secret" * 50_000)
        path.parent.symlink_to(tmp_path)
        answer = await node.ask("GET", BIG.key)
        assert answer[0] != 200
        assert b"secret" not in answer[2]


@pytest.mark.usefixtures("way")
async def test_truncated_while_it_is_sent(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    """The client sees the end of its connection, never bytes that were not there; the log says what happened."""
    async with serving(tmp_path / "a") as node:
        await node.store.put(HUGE.key, [HUGE.data])
        async with await node.connect() as stream:
            await stream.send_all(f"GET /{HUGE.key} HTTP/1.1\r\nHost: x\r\n\r\n".encode())
            got = await stream.receive_some(1)
            os.truncate(node.data / HUGE.key, 1000)
            got += await read_all(stream)
        assert len(got) < len(HUGE.data)
        assert 'shardfs_node_errors_total{kind="disk"} 1.0' in (await node.ask("GET", "-/metrics"))[2].decode()
    assert [record.message for record in caplog.records if "the object ends at" in record.message]


@pytest.mark.usefixtures("way")
async def test_broken_off_while_it_is_sent(tmp_path: Path) -> None:
    """Clients that go in the middle cost no descriptor."""
    async with serving(tmp_path / "a") as node:
        await node.store.put(HUGE.key, [HUGE.data])
        await node.store.aclose()
        node.stores.clear()
        assert await node.is_well()
        before = len(os.listdir("/proc/self/fd"))
        for _ in range(5):
            async with await node.connect() as stream:
                await stream.send_all(f"GET /{HUGE.key} HTTP/1.1\r\nHost: x\r\n\r\n".encode())
                await stream.receive_some(1)
        while b"shardfs_node_connections 1.0" not in (await node.ask("GET", "-/metrics"))[2]:
            await trio.lowlevel.checkpoint()
        while len(os.listdir("/proc/self/fd")) > before:  # the connection that asked
            await trio.lowlevel.checkpoint()


async def test_many_requests_at_once_share_the_loop(tmp_path: Path) -> None:
    """A request that has come already is not begun before the others had a chance."""
    ours, theirs = socket.socketpair()
    with ours, theirs:
        connection = Connection(accepted_tcp(), ServerOptions(node="a", data=tmp_path), Metrics())
        connection._sock.close()
        connection._sock = ours
        ours.setblocking(False)
        theirs.send(b"GET /a HTTP/1.1\r\nHost: x\r\n\r\nGET /b HTTP/1.1\r\nHost: x\r\n\r\n")
        for path in ("a", "b"):
            with trio.testing.assert_checkpoints():
                request = await connection.next_request()
            assert request is not None
            assert request.path == path


def accepted_tcp() -> socket.socket:
    with socket.create_server(("127.0.0.1", 0)) as listener, socket.create_connection(listener.getsockname()):
        return listener.accept()[0]


# ------------------------------------------------------------------------------------------- Outgoing


def test_pieces_in_order_through_a_narrow_socket(tmp_path: Path) -> None:
    """Whatever a socket takes at a time, the same bytes come out, and `body_left` counts those of the body."""
    path = tmp_path / "file"
    path.write_bytes(HUGE.data)
    pieces = [b"x" * 10, (5, 300_000), b"", b"y" * 40_000, b"z", (1000, 9_000_000), (0, 0), b"end"]
    expected = b"".join(HUGE.data[slice(*piece)] if isinstance(piece, tuple) else piece for piece in pieces)
    sender, receiver = socket.socketpair()
    with sender, receiver:
        sender.setblocking(False)
        answer = Outgoing(b"head", pieces, os.open(path, os.O_RDONLY))
        assert answer.size == answer.body_left == len(expected)
        received = bytearray()
        while not answer.done:
            before = answer.body_left
            answer.push(sender)
            assert before - answer.body_left <= PUSH_BYTES_MAX + 40_000
            while len(received) < 4 + answer.size - answer.body_left:
                received += receiver.recv(1 << 20)
        assert received == b"head" + expected
        assert answer.body_left == 0
        answer.close()
        answer.close()


def test_a_push_that_may_stay_waits_for_who_keeps_up(tmp_path: Path) -> None:
    path = tmp_path / "file"
    path.write_bytes(BIG.data)
    sender, receiver = socket.socketpair()
    with sender, receiver:
        sender.setblocking(False)
        received = bytearray()

        def read() -> None:
            while len(received) < 1 + len(BIG.data):
                received.extend(receiver.recv(1 << 16))

        answer = Outgoing(b"h", [(0, len(BIG.data))], os.open(path, os.O_RDONLY))
        reader = threading.Thread(target=read)
        reader.start()
        while not answer.done:  # once, unless the machine is busy
            answer.push(sender, 5.0)
        reader.join()
        answer.close()
        assert received == b"h" + BIG.data
