"""Whatever a server says, the client ends with the right bytes or with one clear error."""

import re

import pytest
import trio
import trio.testing

from shardfs.errors import Denied, NoSpace, NotFound, StoreError, Unavailable
from shardfs.store.http import HttpStore
from shardfs.testing.samples import sample_chunk
from tests.store.evil import evil_server, head, request_head, reset, says

KEY = sample_chunk(1).key
BODY = bytes(range(100))


def partial(first: int, last: int, size: int | str = 1000) -> str:
    return f"Content-Range: bytes {first}-{last}/{size}"


LENGTH = "Content-Length: 100"
WRONG_GETS = {
    # name: (offset, what the server says, reason), asked for 100 bytes
    "closes at once": (0, b"", "closed before the answer"),
    "half a head": (0, b"HTTP/1.1 206 Partial", "closed before the answer"),
    "garbage": (0, b"\x00\x01\x02\x03 hello\r\n\r\n", "not a valid answer"),
    "another protocol": (0, b"SSH-2.0-OpenSSH_9.2\r\n\r\n", "not a valid answer"),
    "html": (0, head("206 OK", "Content-Type: text/html", "Content-Length: 13") + b"<html></html>", "Content-Range"),
    "endless header": (0, b"HTTP/1.1 206 OK\r\nX: " + b"a" * 200_000, "not a valid answer"),
    "endless headers": (0, b"HTTP/1.1 206 OK\r\n" + b"X: a\r\n" * 50_000, "not a valid answer"),
    "endless interim answers": (0, head("102 Processing") * 1000, "interim"),
    "two lengths": (0, head("206 OK", LENGTH, "Content-Length: 99", partial(0, 99)) + BODY, "not a valid answer"),
    "negative length": (0, head("206 OK", "Content-Length: -5", partial(0, 99)) + BODY, "not a valid answer"),
    "huge length": (0, head("206 OK", "Content-Length: " + "9" * 5000, partial(0, 99)), "not a valid answer"),
    "no length": (0, head("206 OK", partial(0, 99)) + BODY, "without Content-Length"),
    "chunked": (0, head("206 OK", "Transfer-Encoding: chunked", partial(0, 99)) + b"64\r\n" + BODY, "Content-Length"),
    "truncated": (0, head("206 OK", LENGTH, partial(0, 99)) + BODY[:50], "closed after 50 of 100 bytes"),
    "no body": (0, head("206 OK", LENGTH, partial(0, 99)), "closed after 0 of 100 bytes"),
    "short answer": (0, head("206 OK", "Content-Length: 50", partial(0, 49)) + BODY[:50], "cut short"),
    "short, size unknown": (0, head("206 OK", "Content-Length: 50", partial(0, 49, "*")) + BODY[:50], "cut short"),
    "long answer": (0, head("206 OK", "Content-Length: 101", partial(0, 100)) + BODY + b"x", "asked for 100"),
    "another range": (0, head("206 OK", LENGTH, partial(100, 199)) + BODY, "asked for 100"),
    "range and length differ": (0, head("206 OK", LENGTH, partial(0, 49)) + BODY, "asked for 100"),
    "backwards": (0, head("206 OK", LENGTH, partial(99, 0)) + BODY, "asked for 100"),
    "no range": (0, head("206 OK", LENGTH) + BODY, "Content-Range"),
    "several ranges": (0, head("206 OK", LENGTH, "Content-Type: multipart/byteranges; boundary=x") + BODY, "Range"),
    "huge range": (0, head("206 OK", LENGTH, partial(0, int("9" * 30))) + BODY, "Content-Range"),
    "ignores the range": (10, head("200 OK", "Content-Length: 1000") + BODY * 10, "ignores Range"),
    "nothing there": (10, head("416 No", "Content-Length: 0", "Content-Range: bytes */1000"), "HTTP 416"),
    "nothing there, no size": (10, head("416 No", "Content-Length: 0"), "HTTP 416"),
    "server error": (0, head("500 No", "Content-Length: 5") + b"oops\n", "HTTP 500, oops"),
    "busy": (0, head("503 No", "Content-Length: 0"), "HTTP 503"),
    "redirect": (0, head("302 Found", "Location: http://127.0.0.1:1/", "Content-Length: 0"), "redirects are not"),
    "no content": (0, head("204 OK"), "HTTP 204"),
}


@pytest.mark.parametrize("case", WRONG_GETS)
async def test_wrong_answers_to_get(case: str) -> None:
    offset, answer, reason = WRONG_GETS[case]
    memory = bytearray(300)
    async with evil_server(says(answer)) as store:
        with pytest.raises(Unavailable, match=re.escape(reason)) as caught:
            await store.get(KEY, memoryview(memory)[100:200], offset=offset)
    assert "\n" not in str(caught.value)
    assert len(str(caught.value)) < 500
    assert memory[:100] == memory[200:] == bytes(100)


RIGHT_GETS = {
    # name: (offset, what the server says, bytes that come), asked for 100 bytes
    "partial": (0, head("206 OK", LENGTH, partial(0, 99)) + BODY, 100),
    "to the end": (950, head("206 OK", "Content-Length: 50", partial(950, 999)) + BODY[:50], 50),
    "size unknown": (7, head("206 OK", LENGTH, partial(7, 106, "*")) + BODY, 100),
    "whole object": (0, head("200 OK", LENGTH) + BODY, 100),
    "shorter whole object": (0, head("200 OK", "Content-Length: 40") + BODY[:40], 40),
    "longer whole object": (0, head("200 OK", "Content-Length: 1000") + BODY * 10, 100),
    "empty object": (0, head("200 OK", "Content-Length: 0"), 0),
    "beyond the end": (1000, head("416 No", "Content-Range: bytes */1000", "Content-Length: 0"), 0),
    "interim answer first": (0, head("103 Early") + head("206 OK", LENGTH, partial(0, 99)) + BODY, 100),
    "old protocol": (0, (head("206 OK", LENGTH, partial(0, 99)) + BODY).replace(b"/1.1", b"/1.0", 1), 100),
    "junk after the body": (0, head("206 OK", LENGTH, partial(0, 99)) + BODY + b"HTTP/1.1 200 junk", 100),
}


@pytest.mark.parametrize("case", RIGHT_GETS)
async def test_right_answers_to_get(case: str) -> None:
    offset, answer, count = RIGHT_GETS[case]
    memory = bytearray(100)
    async with evil_server(says(answer)) as store:
        for _ in range(3):  # what one answer leaves on its connection must not reach the next
            assert await store.get(KEY, memoryview(memory), offset=offset) == count
            assert memory[:count] == BODY[:count]


async def test_answer_in_single_bytes() -> None:
    answer = head("206 OK", LENGTH, partial(0, 99)) + BODY

    async def script(stream: trio.SocketStream, number: int) -> None:
        await request_head(stream)
        for byte in answer:
            await stream.send_all(bytes([byte]))
            await trio.lowlevel.checkpoint()

    memory, progress = bytearray(100), list[int]()
    async with evil_server(script) as store:
        assert await store.get(KEY, memoryview(memory), arrived=progress.append) == 100
    assert memory == BODY
    assert progress == sorted(set(progress))
    assert progress[-1] == 100


@pytest.mark.parametrize("sent", [0, 1, 20, 60, 100, 150])
async def test_reset_after_some_bytes(sent: int) -> None:
    answer = head("206 OK", LENGTH, partial(0, 99)) + BODY[:99]

    async def script(stream: trio.SocketStream, number: int) -> None:
        await request_head(stream)
        await stream.send_all(answer[:sent])
        reset(stream)

    async with evil_server(script) as store:
        with pytest.raises(Unavailable):
            await store.get(KEY, memoryview(bytearray(100)))


@pytest.mark.parametrize(
    ("status", "error"), [(401, Denied), (403, Denied), (404, NotFound), (507, NoSpace), (500, Unavailable)]
)
async def test_refusals(status: int, error: type[StoreError]) -> None:
    async with evil_server(says(head(f"{status} No", "Content-Length: 0"))) as store:
        with pytest.raises(error):
            await store.get(KEY, memoryview(bytearray(100)))
        with pytest.raises(error):
            await store.read(KEY, limit=100)
        if status != 404:
            for call in (
                store.size(KEY),
                store.delete(KEY),
                store.put(KEY, [BODY]),
                store.list("chunks/"),
                store.stat(),
            ):
                with pytest.raises(error):
                    await call


async def test_refusal_text_is_harmless() -> None:
    answer = head("500 No", "Content-Length: 1000") + b"a\x1b[31m\x00\xff" + b"b" * 990 + b"\nsecond"
    async with evil_server(says(answer)) as store:
        with pytest.raises(Unavailable) as caught:
            await store.read(KEY, limit=100)
    assert str(caught.value).isprintable()
    assert len(str(caught.value)) < 400


async def test_nobody_listens() -> None:
    listener = (await trio.open_tcp_listeners(0, host="127.0.0.1"))[0]
    port = listener.socket.getsockname()[1]
    await listener.aclose()
    store = HttpStore("a", f"http://127.0.0.1:{port}")
    with pytest.raises(Unavailable, match="cannot connect: Connection refused"):
        await store.stat()


@pytest.mark.parametrize("host", ["a..b", ".a", "a" * 64, "%s.b" % ("a" * 70)])
async def test_a_host_that_cannot_be(host: str) -> None:
    store = HttpStore("a", f"http://{host}:1")
    with pytest.raises(Unavailable, match=f"cannot connect: '{host}' cannot be the name of a host"):
        await store.stat()


LISTINGS = {
    "no json": b"<html>",
    "no object": b"[]",
    "wrong types": b'{"keys": [1], "end": true}',
    "no key": b'{"keys": ["../../etc/passwd"], "end": true}',
    "another prefix": b'{"keys": ["manifests/%s"], "end": true}' % (b"0" * 64),
    "not after": b'{"keys": ["chunks/00/%s"], "end": true}' % (b"0" * 64),
    "not sorted": b'{"keys": ["chunks/22/2%s", "chunks/11/1%s"], "end": true}' % (b"2" * 63, b"1" * 63),
    "twice": b'{"keys": ["chunks/22/2%s", "chunks/22/2%s"], "end": true}' % (b"2" * 63, b"2" * 63),
    "too many": b'{"keys": ["chunks/22/%s", "chunks/33/%s", "chunks/44/%s"], "end": true}'
    % (b"2" * 64, b"3" * 64, b"4" * 64),
    "never ends": b'{"keys": [], "end": false}',
    "too large": b'{"keys": [], "end": true}' + b" " * 2_000_000,
    "deep": b'{"keys": ' + b"[" * 100_000,
    "deep beside it": b'{"x": ' + b"[" * 100_000,
    "no UTF-8": b'{"keys": ["\xff"], "end": true}',
}


@pytest.mark.parametrize("case", LISTINGS)
async def test_wrong_listings(case: str) -> None:
    body = LISTINGS[case]
    async with evil_server(says(head("200 OK", f"Content-Length: {len(body)}") + body)) as store:
        with pytest.raises(Unavailable):
            await store.list("chunks/", after="chunks/00/" + "0" * 64, limit=2)


async def test_stat_of_another_node() -> None:
    body = b'{"id": "b", "version": "1", "capacity": 1, "free": 1}'
    async with evil_server(says(head("200 OK", f"Content-Length: {len(body)}") + body)) as store:
        with pytest.raises(Unavailable, match="calls itself 'b'"):
            await store.stat()


@pytest.mark.parametrize("body", [b"", b"[]", b'{"id": "\xff"}', b'{"id": "a", "x": ' + b"[" * 100_000])
async def test_stat_of_something_else(body: bytes) -> None:
    async with evil_server(says(head("200 OK", f"Content-Length: {len(body)}") + body)) as store:
        with pytest.raises(Unavailable, match="stat: not the JSON that was expected"):
            await store.stat()


async def test_stat_of_a_plain_web_server() -> None:
    async with evil_server(says(head("404 No", "Content-Length: 0"))) as store:
        assert (await store.stat()).capacity_bytes is None


@pytest.mark.parametrize(
    "chunks", [b"5\r\nhello\r\n5\r\nworld\r\n0\r\n\r\n", b"a;x=y\r\nhelloworld\r\n0\r\nT: x\r\n\r\n"]
)
async def test_read_takes_chunked_answers(chunks: bytes) -> None:
    async with evil_server(says(head("200 OK", "Transfer-Encoding: chunked") + chunks)) as store:
        assert await store.read(KEY, limit=10) == b"helloworld"
        with pytest.raises(Unavailable, match="more than 9 bytes"):
            await store.read(KEY, limit=9)


async def test_read_takes_answers_that_end_with_the_connection() -> None:
    async with evil_server(says(head("200 OK") + b"helloworld")) as store:
        assert await store.read(KEY, limit=10) == b"helloworld"


async def test_read_of_an_endless_answer_ends() -> None:
    async def script(stream: trio.SocketStream, number: int) -> None:
        await request_head(stream)
        await stream.send_all(head("200 OK", "Transfer-Encoding: chunked"))
        while True:
            await stream.send_all(b"1000\r\n" + b"x" * 4096 + b"\r\n")

    async with evil_server(script) as store:
        with pytest.raises(Unavailable, match="more than 100000 bytes"):
            await store.read(KEY, limit=100_000)
