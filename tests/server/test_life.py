"""Starting, stopping, being killed: one owner per folder, no half objects, no lost answers."""

import json
import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
import trio
import trio.testing

from shardfs.errors import ShardfsError, UsageError
from shardfs.server import ServerOptions, serve
from shardfs.store.file import FileStore
from shardfs.store.http import HttpStore
from shardfs.testing.samples import sample_chunk
from tests.server.raw import read_all, serving

BIG = sample_chunk(2, 32 * 1024 * 1024)


async def refusal(data: Path, **options: object) -> ShardfsError:
    with pytest.raises(ShardfsError) as caught:
        await serve(ServerOptions(**({"node": "a", "data": data, "port": 0} | options)))
    assert "\n" not in str(caught.value)
    return caught.value


async def test_one_server_per_folder(tmp_path: Path) -> None:
    async with serving(tmp_path / "a"):
        assert "in use by another node process" in str(await refusal(tmp_path / "a"))
    async with serving(tmp_path / "a") as node:
        assert await node.is_well()


async def test_a_folder_keeps_its_node(tmp_path: Path) -> None:
    async with serving(tmp_path / "a"):
        pass
    error = await refusal(tmp_path / "a", node="b")
    assert isinstance(error, UsageError)
    assert "belongs to node 'a'" in str(error)


@pytest.mark.parametrize("content", [b"{", b"", b'{"format":"shardfs-node-1","id":"\xff"}', b"[" * 4000, b'"\\ud800"'])
async def test_a_damaged_identity(content: bytes, tmp_path: Path) -> None:
    (tmp_path / "node.json").write_bytes(content)
    assert "node.json is damaged" in str(await refusal(tmp_path))


async def test_an_identity_that_is_no_file(tmp_path: Path) -> None:
    identity = tmp_path / "node.json"
    identity.mkdir()
    assert "cannot use folder" in str(await refusal(tmp_path))
    identity.rmdir()
    os.mkfifo(identity)
    assert "node.json is damaged" in str(await refusal(tmp_path))


async def test_what_cannot_be_removed_from_tmp_stays(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    """A folder there, or a file in its place, is no reason not to start."""
    temp = tmp_path / "a" / "tmp"
    for name in ("folder", "other"):
        (temp / name).mkdir(parents=True)
        os.utime(temp / name, (0, 0))
    (temp / "old").write_bytes(b"x")
    os.utime(temp / "old", (0, 0))
    async with serving(tmp_path / "a") as node:
        assert await node.store.put(BIG.key, [BIG.data]) is True
        assert sorted(path.name for path in node.temps()) == ["folder", "other"]
    assert [record.getMessage().partition(",")[0] for record in caplog.records] == [f"{temp}: 2 left behind"]
    (tmp_path / "b").mkdir()
    (tmp_path / "b" / "tmp").write_bytes(b"x")
    async with serving(tmp_path / "b") as node:
        assert await node.is_well()


@pytest.mark.parametrize("token", [None, "secret"])
@pytest.mark.parametrize("host", ["a..b", "a" * 64, "\udcff"])
async def test_what_is_no_host_name(host: str, token: str | None, tmp_path: Path) -> None:
    error = await refusal(tmp_path / "a", host=host, token=token)
    assert isinstance(error, UsageError)
    assert "not a host name" in str(error)


async def test_folders_that_cannot_be(tmp_path: Path) -> None:
    (tmp_path / "file").write_bytes(b"")
    for data in (tmp_path / "no" / "parent", tmp_path / "file"):
        assert "cannot use folder" in str(await refusal(data))
    assert isinstance(await refusal(tmp_path / "a", node="../b"), UsageError)


@pytest.mark.parametrize("host", ["0.0.0.0", "::", ""])
async def test_open_addresses_need_a_token(host: str, tmp_path: Path) -> None:
    error = await refusal(tmp_path / "a", host=host)
    assert isinstance(error, UsageError)
    assert "give a token (--token-file FILE), or say --insecure" in str(error)


async def test_open_address_with_a_token_or_on_demand(tmp_path: Path) -> None:
    for options in ({"token": "t"}, {"insecure": True}):
        async with serving(tmp_path / "a", host="0.0.0.0", **options) as node:
            assert await node.is_well()


async def test_address_in_use(tmp_path: Path) -> None:
    async with serving(tmp_path / "a") as node:
        assert "already in use" in str(await refusal(tmp_path / "b", port=node.port))


async def test_stopping_lets_running_requests_finish(tmp_path: Path) -> None:
    async with serving(tmp_path / "a", stop_seconds_max=60.0) as node:
        await node.store.put(BIG.key, [BIG.data])
        async with await node.connect() as idle, await node.connect() as stream:
            await stream.send_all(f"GET /{BIG.key} HTTP/1.1\r\nHost: x\r\n\r\n".encode())
            data = await stream.receive_some()
            node.scope.cancel()
            with trio.CancelScope(shield=True):
                assert await read_all(idle) == b""
                with pytest.raises(OSError, match="connect"):
                    await node.connect()
                assert (data + await read_all(stream)).endswith(BIG.data)


async def test_stopping_does_not_wait_for_ever(tmp_path: Path) -> None:
    async with serving(tmp_path / "a", stop_seconds_max=0.1) as node:
        await node.store.put(BIG.key, [BIG.data])
        stream = await node.connect()
        await stream.send_all(f"GET /{BIG.key} HTTP/1.1\r\nHost: x\r\n\r\n".encode())
        await stream.receive_some()
        node.scope.cancel()
    with trio.fail_after(60):
        await stream.aclose()


# ------------------------------------------------------------------------------------------- real processes


@contextmanager
def node_process(data: Path, prefix: tuple[str, ...] = (), *options: str) -> Iterator[tuple[subprocess.Popen, str]]:
    """`shardfs node` and its URL."""
    command = [*prefix, sys.executable, "-m", "shardfs", "node", "--id", "a", "--data", str(data), "--json"]
    with subprocess.Popen(
        [*command, "--listen", "127.0.0.1:0", *options], stdout=subprocess.PIPE, stderr=subprocess.PIPE
    ) as process:
        try:
            told = json.loads(process.stdout.readline())
            assert (told["id"], told["data"]) == ("a", str(data))
            yield process, told["url"]
        finally:
            process.kill()


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_signals_stop_it_cleanly(number: signal.Signals, tmp_path: Path) -> None:
    with node_process(tmp_path / "a") as (process, _):
        process.send_signal(number)
        assert process.communicate(timeout=60) == (b"", b"")
        assert process.returncode == 0


def test_plain_line_and_errors_of_the_command(tmp_path: Path) -> None:
    def run(*options: str) -> subprocess.CompletedProcess[str]:
        command = [sys.executable, "-m", "shardfs", "node", "--data", str(tmp_path / "a"), *options]
        return subprocess.run(command, capture_output=True, text=True, timeout=60, check=False)

    with node_process(tmp_path / "a"):
        failed = run("--id", "a", "--listen", "127.0.0.1:0")
        assert (failed.returncode, failed.stdout) == (1, "")
        assert failed.stderr.count("\n") == 1
        assert "in use by another node" in failed.stderr
    assert run("--id", "a", "--listen", "0.0.0.0:0").returncode == 2
    for listen in ("nonsense", "a..b:1", "127.0.0.1:" + "9" * 5000):
        failed = run("--id", "a", "--listen", listen)
        assert failed.returncode == 2
        assert "Traceback" not in failed.stderr
    assert run("--id", "a b", "--listen", "127.0.0.1:0").returncode == 2


async def test_token_file(tmp_path: Path) -> None:
    secret = tmp_path / "token"
    secret.write_text("s3cret\n")
    secret.chmod(0o600)
    with node_process(tmp_path / "a", (), "--token-file", str(secret)) as (_, url):
        store = HttpStore("a", url, token="s3cret")
        assert (await store.stat()).capacity_bytes
        await store.aclose()
        store = HttpStore("a", url)
        with pytest.raises(ShardfsError, match="401"):
            await store.stat()
        await store.aclose()


async def test_killed_in_a_put(tmp_path: Path) -> None:
    """SIGKILL with half an object received: it is not there, neither before nor after; its temp file goes when old."""
    data = tmp_path / "a"
    with node_process(data) as (process, url):
        host, port = url.removeprefix("http://").split(":")
        async with await trio.open_tcp_stream(host, int(port)) as stream:
            head = f"PUT /{BIG.key} HTTP/1.1\r\nHost: x\r\nContent-Length: {len(BIG.data)}\r\n\r\n".encode()
            await stream.send_all(head + BIG.data[: len(BIG.data) // 2])
            while not any(path.stat().st_size > 0 for path in (data / "tmp").glob("*")):
                await trio.lowlevel.checkpoint()
            process.kill()
            process.wait()
    assert await FileStore("a", data).list("chunks/") == []
    (temp,) = (data / "tmp").iterdir()
    async with serving(data) as node:
        store = node.store
        assert temp.exists(), "a young temp file may be somebody's"
        assert await store.list("chunks/") == []
        assert await store.size(BIG.key) is None
        assert await store.put(BIG.key, [BIG.data]) is True
    os.utime(temp, (0, 0))
    async with serving(data):
        assert not temp.exists()


async def test_out_of_descriptors(tmp_path: Path) -> None:
    """More connections than the process may have descriptors: it goes on accepting when they are gone."""
    with node_process(tmp_path / "a", ("prlimit", "--nofile=40")) as (process, url):
        host, port = url.removeprefix("http://").split(":")
        streams = [await trio.open_tcp_stream(host, int(port)) for _ in range(60)]
        await streams[0].send_all(b"GET /-/health HTTP/1.1\r\nHost: x\r\n\r\n")
        assert await streams[0].receive_some()
        assert b"cannot accept: Too many open files" in process.stderr.readline()
        for stream in streams:
            await stream.aclose()
        store = HttpStore("a", url)
        sample = sample_chunk(1)
        assert await store.put(sample.key, [sample.data]) is True
        await store.aclose()
