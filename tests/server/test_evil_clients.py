"""Whatever a client sends, it gets one clear answer or the end of its connection, and the others notice nothing."""

from pathlib import Path

import pytest
import trio
import trio.testing

from shardfs.testing.samples import sample_chunk
from tests.server.raw import Node, parse, read_all, read_answer, serving

SAMPLE = sample_chunk(1, 300_000)
KEY = SAMPLE.key.encode()
HOST = b"Host: x\r\n"


def put_head(length: object, *more: str) -> bytes:
    lines = [f"PUT /{SAMPLE.key} HTTP/1.1", "Host: x", f"Content-Length: {length}", *more, "", ""]
    return "\r\n".join(lines).encode()


MALFORMED = {
    # name: (what the client says, status of the only answer)
    "binary": (bytes(range(256)), 400),
    "tls hello": (b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03" + bytes(300) + b"\r\n\r\n", 400),
    "half a line": (b"GET\r\n\r\n", 400),
    "very old protocol": (b"GET /\r\n\r\n", 400),
    "no host": (b"GET /" + KEY + b" HTTP/1.1\r\n\r\n", 400),
    "two hosts": (b"GET /" + KEY + b" HTTP/1.1\r\n" + HOST * 2 + b"\r\n", 400),
    "header without colon": (b"GET / HTTP/1.1\r\n" + HOST + b"nonsense\r\n\r\n", 400),
    "header with nul": (b"GET / HTTP/1.1\r\n" + HOST + b"X: a\0b\r\n\r\n", 400),
    "space before colon": (b"GET / HTTP/1.1\r\n" + HOST + b"Content-Length : 5\r\n\r\n", 400),
    "endless line": (b"GET /" + b"a" * 40_000, 431),
    "endless header": (b"GET / HTTP/1.1\r\n" + HOST + b"X: " + b"a" * 40_000, 431),
    "endless headers": (b"GET / HTTP/1.1\r\n" + HOST + b"X: a\r\n" * 10_000, 431),
    "length is no number": (put_head("abc"), 400),
    "negative length": (put_head(-1), 400),
    "two lengths": (put_head(5, "Content-Length: 6"), 400),
    "huge length": (put_head("9" * 5000), 400),
    "no length": (f"PUT /{SAMPLE.key} HTTP/1.1\r\nHost: x\r\n\r\n".encode(), 411),
    "chunked": (f"PUT /{SAMPLE.key} HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n".encode(), 411),
    "chunked and length": (put_head(5, "Transfer-Encoding: chunked") + b"0\r\n\r\n", 411),
    "too large": (put_head(10**12), 413),
    "get with body": (b"GET /" + KEY + b" HTTP/1.1\r\n" + HOST + b"Content-Length: 5\r\n\r\nhello", 400),
    "delete with body": (b"DELETE /" + KEY + b" HTTP/1.1\r\n" + HOST + b"Content-Length: 5\r\n\r\nhello", 400),
    "long query": (b"GET /-/list?" + b"a" * 5000 + b" HTTP/1.1\r\n" + HOST + b"\r\n", 414),
}


@pytest.mark.parametrize("case", MALFORMED)
async def test_malformed_requests(case: str, tmp_path: Path) -> None:
    data, status = MALFORMED[case]
    async with serving(tmp_path / "a") as node:
        answer = await node.say(data)
        got, headers, body = parse(answer)
        assert got == status
        assert headers["connection"] == "close"
        assert body.endswith(b"\n")
        assert body.count(b"\n") == 1
        assert b"Traceback" not in body
        assert await node.is_well()
        assert node.temps() == []


TARGETS = [
    "/../node.json",
    "/../../etc/passwd",
    "/chunks/../node.json",
    "/chunks/../../../../etc/passwd",
    "/%2e%2e/node.json",
    "/%2e%2e%2fnode.json",
    "/..%2f..%2fetc%2fpasswd",
    "//etc/passwd",
    "/etc/passwd",
    "/node.json",
    "/lock",
    "/tmp/x",
    "/chunks",
    "/chunks/",
    "/chunks/aa/" + "a" * 63,
    "/chunks/ab/" + "a" * 64,
    "/chunks/AA/" + "A" * 64,
    "/chunks/aa/" + "a" * 64 + "/",
    "/chunks/aa/" + "a" * 64 + "%00",
    "/refs/../" + "0" * 15 + "1-" + "a" * 64,
    "/refs/./" + "0" * 15 + "1-" + "a" * 64,
    "/refs/a%2fb/" + "0" * 15 + "1-" + "a" * 64,
    "/-/../node.json",
    "/-/nothing",
    f"/{SAMPLE.key}?x=1",
    f"http://x/{SAMPLE.key}",
    "*",
    SAMPLE.key,
]


@pytest.mark.parametrize("method", ["GET", "HEAD", "DELETE", "PUT"])
async def test_targets_that_are_no_objects(method: str, tmp_path: Path) -> None:
    """The folder's own files, the world outside, other spellings: none is reached, none is touched."""
    async with serving(tmp_path / "a") as node:
        await node.store.put(SAMPLE.key, [SAMPLE.data])
        identity = (node.data / "node.json").read_bytes()
        for target in TARGETS:
            length = "Content-Length: 5\r\n" if method == "PUT" else ""
            body = b"hello" if method == "PUT" else b""
            head = f"{method} {target} HTTP/1.1\r\nHost: x\r\nConnection: close\r\n{length}\r\n"
            status, _, text = parse(await node.say(head.encode() + body))
            assert status in (400, 404, 405), target
            assert b"shardfs" not in text
            assert b"root" not in text
        assert (node.data / "node.json").read_bytes() == identity
        assert sorted(path.name for path in node.data.iterdir()) == ["chunks", "lock", "node.json", "tmp"]
        assert await node.store.size(SAMPLE.key) == len(SAMPLE.data)


@pytest.mark.parametrize("method", ["POST", "PATCH", "OPTIONS", "TRACE", "CONNECT", "PROPFIND", "get", "X" * 100])
async def test_methods(method: str, tmp_path: Path) -> None:
    async with serving(tmp_path / "a") as node:
        assert (await node.ask(method, SAMPLE.key))[0] == 405
        assert b'method="other",status="405"' in (await node.ask("GET", "-/metrics"))[2]


async def test_pipelining(tmp_path: Path) -> None:
    """Requests sent at once are answered in order; junk after them ends the connection, after their answers."""
    async with serving(tmp_path / "a") as node:
        await node.store.put(SAMPLE.key, [SAMPLE.data])
        head = b"HEAD /" + KEY + b" HTTP/1.1\r\n" + HOST + b"\r\n"
        get = b"GET /" + KEY + b" HTTP/1.1\r\n" + HOST + b"Range: bytes=5-9\r\n\r\n"
        put = put_head(len(SAMPLE.data)) + SAMPLE.data
        answer = await node.say(get + head + put + get + b"\0junk\r\n\r\n")
        statuses = [int(part[:3]) for part in answer.split(b"HTTP/1.1 ")[1:]]
        assert statuses == [206, 200, 200, 206, 400]
        assert answer.count(b"\r\n\r\n" + SAMPLE.data[5:10]) == 2


async def test_lying_length_leaves_nothing(tmp_path: Path) -> None:
    """The client promises more than it sends, or sends more than it promised."""
    async with serving(tmp_path / "a") as node:
        for length in (len(SAMPLE.data) + 1, len(SAMPLE.data) * 2):
            async with await node.connect() as stream:
                await stream.send_all(put_head(length) + SAMPLE.data)
                await stream.send_eof()
                assert await read_all(stream) == b""
        status, _, _ = parse(await node.say(put_head(len(SAMPLE.data) - 1) + SAMPLE.data + b"\r\n\r\n"))
        assert status == 422
        assert await node.store.size(SAMPLE.key) is None
        assert node.temps() == []


async def test_slow_header(tmp_path: Path) -> None:
    """Slowloris: many clients that never finish their heads are cut off, and a good client is served meanwhile."""
    async with serving(tmp_path / "a", header_seconds_max=0.3) as node:
        answers: list[bytes] = []

        async def drip() -> None:
            async with await node.connect() as stream:
                await stream.send_all(b"GET /-/health HTTP/1.1\r\nHost: x\r\nX: ")
                answers.append(await read_all(stream))

        async with trio.open_nursery() as nursery:
            for _ in range(50):
                nursery.start_soon(drip)
            assert await node.is_well()
        assert {parse(answer)[0] for answer in answers} == {408}


async def stalled(node: Node, sample_key: str, clients: int) -> int:
    """Ask for an object and read nothing until the server has given up so many clients; how much had come."""
    async with await node.connect() as stream:
        await stream.send_all(f"GET /{sample_key} HTTP/1.1\r\nHost: x\r\n\r\n".encode())
        await gone(node, clients)
        return len(await read_all(stream))


async def gone(node: Node, clients: int) -> None:
    """Wait until the server has counted so many lost clients."""
    while await node.errors("gone") < clients:
        await trio.lowlevel.checkpoint()


async def test_clients_that_do_not_read(tmp_path: Path) -> None:
    """More stalled clients than threads: none of them holds one, and they are cut off when their time is over."""
    clients = 8
    sample = sample_chunk(2, 32 * 1024 * 1024)
    limits = {"disk_threads_max": 2, "grace_seconds": 1.0, "rate_min_bytes_per_second": 1 << 30}
    async with serving(tmp_path / "a") as node:  # without the limits, which hold for uploads too
        await node.store.put(sample.key, [sample.data])
        await node.store.put(SAMPLE.key, [SAMPLE.data])
    async with serving(tmp_path / "a", **limits) as node, trio.open_nursery() as nursery:

        async def stall() -> None:
            # One that began to read when the first was given up might be served to the end.
            assert await stalled(node, sample.key, clients) < len(sample.data)

        for _ in range(clients):
            nursery.start_soon(stall)
        assert await node.store.read(SAMPLE.key, limit=1 << 20) == SAMPLE.data


async def test_clients_that_do_not_send(tmp_path: Path) -> None:
    """An upload that stops is cut off; its temp file goes, and the uploads that waited for its place go on."""
    limits = {"uploads_max": 1, "grace_seconds": 1.0, "rate_min_bytes_per_second": 1 << 30}
    async with serving(tmp_path / "a", **limits) as node:
        async with await node.connect() as stream:
            await stream.send_all(put_head(len(SAMPLE.data)) + SAMPLE.data[:1000])
            assert await node.store.put(SAMPLE.key, [SAMPLE.data]) is True
            assert await read_all(stream) == b""
        assert node.temps() == []


async def test_a_refused_upload_is_told_why(tmp_path: Path) -> None:
    """The answer reaches a client that is still sending: it must not be lost in a reset."""
    async with serving(tmp_path / "a", token="secret") as node:
        for _ in range(5):
            async with await node.connect() as stream, trio.open_nursery() as nursery:
                nursery.start_soon(stream.send_all, put_head(8_000_000) + bytes(8_000_000))
                assert (await read_answer(stream))[0] == 401
                nursery.cancel_scope.cancel()
