"""What a good client sees."""

import json
import os
from pathlib import Path

import pytest
import trio

from shardfs import __version__
from shardfs.server.objects import Objects
from shardfs.testing.samples import sample_chunk, sample_ref
from tests.server.raw import parse, read_answer, serving

SMALL, BIG = sample_chunk(1, 5000), sample_chunk(2, 2_000_000)


async def test_put_answers(tmp_path: Path) -> None:
    async with serving(tmp_path / "a") as node:
        assert (await node.ask("PUT", SMALL.key, body=SMALL.data))[0] == 201
        assert (node.data / SMALL.key).read_bytes() == SMALL.data
        assert (await node.ask("PUT", SMALL.key, body=SMALL.data))[0] == 200
        assert (await node.ask("PUT", SMALL.key, "If-None-Match: *", body=SMALL.data))[0] == 412
        assert (await node.ask("PUT", BIG.key, body=SMALL.data))[0] == 422
        assert (await node.ask("DELETE", SMALL.key))[0] == 204
        assert (await node.ask("DELETE", SMALL.key))[0] == 404
        assert node.temps() == []


@pytest.mark.parametrize("sample", [SMALL, BIG], ids=["small", "big"])
async def test_get_answers(sample, tmp_path: Path) -> None:
    size = len(sample.data)
    async with serving(tmp_path / "a") as node:
        await node.store.put(sample.key, [sample.data])
        status, headers, body = await node.ask("GET", sample.key)
        assert (status, headers["content-length"], headers["accept-ranges"]) == (200, str(size), "bytes")
        assert body == sample.data
        status, headers, body = await node.ask("HEAD", sample.key, "Range: bytes=0-1")
        assert (status, headers["content-length"], body) == (200, str(size), b"")
        for asked, start, end in [("0-0", 0, 1), ("10-", 10, size), ("-7", size - 7, size), ("1-99999999", 1, size)]:
            status, headers, body = await node.ask("GET", sample.key, f"Range: bytes={asked}")
            assert (status, headers["content-range"]) == (206, f"bytes {start}-{end - 1}/{size}")
            assert body == sample.data[start:end]
        for asked in (f"{size}-", f"{size}-{size + 5}", "-0"):
            status, headers, body = await node.ask("GET", sample.key, f"Range: bytes={asked}")
            assert (status, headers["content-range"], body) == (416, f"bytes */{size}", b"nothing there\n")
        for ignored in ("bytes=5-2", "bytes=a-b", "lines=1-2", "bytes=-", "bytes=" + "1" * 50 + "-"):
            assert (await node.ask("GET", sample.key, f"Range: {ignored}"))[::2] == (200, sample.data)


async def test_expect_continue(tmp_path: Path) -> None:
    async with serving(tmp_path / "a") as node, await node.connect() as stream:
        head = (
            f"PUT /{SMALL.key} HTTP/1.1\r\nHost: x\r\nExpect: 100-continue\r\nContent-Length: {len(SMALL.data)}\r\n\r\n"
        )
        await stream.send_all(head.encode())
        assert parse(await stream.receive_some())[0] == 100
        await stream.send_all(SMALL.data)
        assert (await read_answer(stream))[0] == 201


async def test_reports(tmp_path: Path) -> None:
    ref = sample_ref("team/m", 3)
    async with serving(tmp_path / "a") as node:
        for sample in (SMALL, BIG, ref):
            await node.store.put(sample.key, [sample.data])
        stat = json.loads((await node.ask("GET", "-/stat"))[2])
        assert (stat["id"], stat["version"]) == ("a", __version__)
        assert 0 < stat["free"] <= stat["capacity"]
        listed = json.loads((await node.ask("GET", "-/list?prefix=refs/team~2Fm/"))[2])
        assert listed == {"keys": [ref.key], "end": True}
        first, second = sorted([SMALL.key, BIG.key])
        page = json.loads((await node.ask("GET", "-/list?prefix=chunks%2F&limit=1"))[2])
        assert page == {"keys": [first], "end": False}
        page = json.loads((await node.ask("GET", f"-/list?prefix=chunks/&after={first}"))[2])
        assert page == {"keys": [second], "end": True}
        for query in ("limit=x", "limit", "&&&&&=", "a=1&" * 20):
            assert (await node.ask("GET", f"-/list?{query}"))[0] == 400
        assert (await node.ask("PUT", "-/stat", body=b"x"))[0] == 405
        assert (await node.ask("GET", "-/health"))[2] == b"ok\n"


async def test_metrics(tmp_path: Path) -> None:
    async with serving(tmp_path / "a") as node:
        await node.ask("PUT", SMALL.key, body=SMALL.data)
        await node.ask("GET", SMALL.key)
        await node.ask("GET", BIG.key)
        text = (await node.ask("GET", "-/metrics"))[2].decode()
    lines = set(text.splitlines())
    assert f"shardfs_node_received_bytes_total {float(len(SMALL.data))}" in lines
    assert f"shardfs_node_sent_bytes_total {float(len(SMALL.data) + len(b'no such object' + b'x'))}" in lines
    assert 'shardfs_node_requests_total{method="PUT",status="201"} 1.0' in lines
    assert 'shardfs_node_requests_total{method="GET",status="404"} 1.0' in lines
    assert "shardfs_node_connections 1.0" in lines


async def test_token(tmp_path: Path) -> None:
    async with serving(tmp_path / "a", token="s3cret") as node:
        for header in ("X: y", "Authorization: Bearer s3cre", "Authorization: Bearer s3cret2", "Authorization: s3cret",
                       "Authorization: Basic s3cret", "Authorization: Bearer \xe9"):  # fmt: skip
            for method, path in (("GET", SMALL.key), ("GET", "-/stat"), ("DELETE", SMALL.key), ("GET", "-/metrics")):
                status, headers, body = await node.ask(method, path, header)
                assert (status, headers["www-authenticate"]) == (401, "Bearer")
                assert b"s3cret" not in body
        assert (await node.ask("GET", "-/stat", "Authorization: Bearer s3cret"))[0] == 200
        assert (await node.ask("GET", "-/stat", "authorization: bearer  s3cret"))[0] == 200
        assert (await node.ask("GET", "-/health"))[0] == 200


async def test_a_bug_costs_one_connection(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    async def head(*args: object) -> None:
        raise RuntimeError("a bug with a secret in it")

    monkeypatch.setattr(Objects, "head", head)
    async with serving(tmp_path / "a") as node, await node.connect() as other:
        status, headers, body = parse(await node.say(f"HEAD /{SMALL.key} HTTP/1.1\r\nHost: x\r\n\r\n".encode()))
        assert (status, headers["connection"], body) == (500, "close", b"")
        await other.send_all(b"GET /-/health HTTP/1.1\r\nHost: x\r\n\r\n")
        assert (await read_answer(other))[0] == 200
    assert [record.exc_info[1].args for record in caplog.records] == [("a bug with a secret in it",)]


@pytest.mark.skipif(os.geteuid() != 0, reason="mounting a tmpfs needs root")
async def test_full_disk(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    """507, nothing visible, no temp file left, and small objects still find a place."""
    data = tmp_path / "a"
    data.mkdir()
    await trio.run_process(["mount", "-t", "tmpfs", "-o", "size=1m", "tmpfs", str(data)])
    try:
        async with serving(data) as node:
            status, _, body = await node.ask("PUT", BIG.key, body=BIG.data)
            assert (status, body) == (507, b"disk full\n")
            assert await node.store.size(BIG.key) is None
            assert node.temps() == []
            assert (await node.ask("PUT", SMALL.key, body=SMALL.data))[0] == 201
        assert "No space left" in caplog.text
    finally:
        await trio.run_process(["umount", str(data)])


async def test_parallel_requests_on_few_threads(tmp_path: Path) -> None:
    async with serving(tmp_path / "a", disk_threads_max=1, uploads_max=1) as node:
        samples = [sample_chunk(seed, 400_000) for seed in range(10, 22)]

        async def work(store, sample) -> None:
            assert await store.put(sample.key, [sample.data])
            assert await store.read(sample.key, limit=1 << 20) == sample.data

        store = node.store
        async with trio.open_nursery() as nursery:
            for sample in samples:
                nursery.start_soon(work, store, sample)
