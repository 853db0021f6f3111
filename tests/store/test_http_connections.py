"""Connections of the client: reused when their state is known, replaced unseen when they had died, closed otherwise."""

import pytest
import trio
import trio.testing

from shardfs.errors import Unavailable, UsageError
from shardfs.store.http import HttpStore
from shardfs.testing.samples import sample_chunk
from tests.store.evil import evil_server, head, request_head, reset

KEY = sample_chunk(1).key
ANSWER = head("206 OK", "Content-Length: 100", "Content-Range: bytes 0-99/1000") + bytes(100)


async def get(store: HttpStore) -> int:
    return await store.get(KEY, memoryview(bytearray(100)))


async def test_one_connection_serves_many_requests() -> None:
    seen: list[int] = []

    async def script(stream: trio.SocketStream, number: int) -> None:
        while await request_head(stream):
            seen.append(number)
            await stream.send_all(ANSWER)

    async with evil_server(script) as store:
        for _ in range(20):
            assert await get(store) == 100
    assert seen == [0] * 20


async def test_a_missing_object_keeps_the_connection() -> None:
    seen: list[int] = []

    async def script(stream: trio.SocketStream, number: int) -> None:
        while await request_head(stream):
            seen.append(number)
            await stream.send_all(head("404 Not Found", "Content-Length: 5") + b"none\n")

    async with evil_server(script) as store:
        for _ in range(5):
            assert await store.delete(KEY) is False
    assert seen == [0] * 5


@pytest.mark.parametrize("how", ["close", "reset", "close after the request", "reset after the request"])
async def test_an_idle_connection_that_died_is_replaced(how: str) -> None:
    """Seen before the next request, or only after it was sent: the caller notices neither."""
    died = trio.Event()
    seen: list[int] = []

    async def script(stream: trio.SocketStream, number: int) -> None:
        while await request_head(stream):
            seen.append(number)
            await stream.send_all(ANSWER)
            if number == 0:
                if how.endswith("request"):
                    await request_head(stream)
                if how.startswith("reset"):
                    reset(stream)
                died.set()
                return

    async with evil_server(script) as store:
        assert await get(store) == 100
        if not how.endswith("request"):
            await died.wait()
            await trio.testing.wait_all_tasks_blocked(0.01)
        assert await get(store) == 100
        assert await get(store) == 100
    assert seen == [0, 1, 1]


@pytest.mark.parametrize("method", ["get", "put"])
async def test_a_fresh_connection_that_dies_is_an_error(method: str) -> None:
    """Only an idle connection may be replaced, and only once: else a dead node would be asked for ever."""
    requests = 0

    async def script(stream: trio.SocketStream, number: int) -> None:
        nonlocal requests
        await request_head(stream)
        requests += 1

    async with evil_server(script) as store:
        with pytest.raises(Unavailable, match="closed before the answer"):
            await (get(store) if method == "get" else store.put(KEY, [bytes(100)]))
    assert requests == 1


async def test_an_answer_that_began_is_not_asked_for_again() -> None:
    requests = 0

    async def script(stream: trio.SocketStream, number: int) -> None:
        nonlocal requests
        await request_head(stream)
        requests += 1
        await stream.send_all(ANSWER)
        if await request_head(stream):
            requests += 1
            await stream.send_all(b"HTTP/1.1 206")

    async with evil_server(script) as store:
        assert await get(store) == 100
        with pytest.raises(Unavailable):
            await get(store)
    assert requests == 2


async def test_cancelling_closes_the_connection() -> None:
    """A drip feed that is cancelled: the server sees the end, and the next request goes elsewhere."""
    closed = trio.Event()

    async def script(stream: trio.SocketStream, number: int) -> None:
        await request_head(stream)
        await stream.send_all(ANSWER[:-50])
        if number == 0:
            assert await stream.receive_some() == b""
            closed.set()
        else:
            await stream.send_all(ANSWER[-50:])

    async with evil_server(script) as store:
        with trio.CancelScope() as scope:
            await store.get(KEY, memoryview(bytearray(100)), arrived=lambda _: scope.cancel())
        assert scope.cancelled_caught
        await closed.wait()
        assert await get(store) == 100


async def test_no_more_connections_than_allowed() -> None:
    open_now = most = 0
    three, release = trio.Event(), trio.Event()

    async def script(stream: trio.SocketStream, number: int) -> None:
        nonlocal open_now, most
        open_now += 1
        most = max(most, open_now)
        if open_now == 3:
            three.set()
        try:
            while await request_head(stream):
                await release.wait()
                await stream.send_all(ANSWER)
        finally:
            open_now -= 1

    async with evil_server(script) as shared:
        store = HttpStore("a", f"http://{shared._client.authority}", connections_max=3)
        async with trio.open_nursery() as nursery:
            for _ in range(20):
                nursery.start_soon(get, store)
            await three.wait()
            await trio.testing.wait_all_tasks_blocked(0.01)  # time for a fourth
            release.set()
        await store.aclose()
    assert most == 3


async def test_an_early_refusal_ends_a_put() -> None:
    """The server answers after the head and reads no further: the client must not wait for it to take the body."""

    async def script(stream: trio.SocketStream, number: int) -> None:
        await request_head(stream)
        await stream.send_all(head("413 Too Large", "Content-Length: 9") + b"too large")
        await stream.send_eof()
        await trio.sleep_forever()

    async with evil_server(script) as store:
        with pytest.raises(Unavailable, match="HTTP 413, too large"):
            await store.put(KEY, [bytes(64 * 1024 * 1024)])


async def test_a_put_to_a_server_that_resets() -> None:
    async def script(stream: trio.SocketStream, number: int) -> None:
        await request_head(stream)
        reset(stream)

    async with evil_server(script) as store:
        with pytest.raises(Unavailable):
            await store.put(KEY, [bytes(8 * 1024 * 1024)])


async def test_headers_of_a_request() -> None:
    heads: list[bytes] = []

    async def script(stream: trio.SocketStream, number: int) -> None:
        heads.append(await request_head(stream))
        await stream.send_all(ANSWER)

    async with evil_server(script) as shared:
        authority = shared._client.authority
        store = HttpStore("a", f"http://{authority}/some/path/", token="s3cret")
        await get(store)
        await store.aclose()
    lines = heads[0].decode().split("\r\n")
    assert lines[0] == f"GET /some/path/{KEY} HTTP/1.1"
    assert f"Host: {authority}" in lines
    assert "Authorization: Bearer s3cret" in lines
    assert "Range: bytes=0-99" in lines


@pytest.mark.parametrize(
    "url", ["ftp://host", "http://", "http://user:pw@host/", "http://host/?x=1", "http://host/#x", "x"]
)
def test_urls_that_are_refused(url: str) -> None:
    with pytest.raises(UsageError, match="node a"):
        HttpStore("a", url)
