"""Several spans of an object over HTTP, whatever the server makes of such a request.

One that has a way of its own with several ranges is asked for each span by itself, and not bothered again; one that
breaks off or talks nonsense has failed like in any other answer.
"""

import random
import re

import pytest
import trio

from shardfs.core.health import NodeHealth
from shardfs.errors import Denied, NotFound, Unavailable
from shardfs.store.http import HttpStore
from shardfs.store.watched import WatchedStore
from shardfs.testing.memory_store import Fault, MemoryStore
from shardfs.testing.samples import sample_chunk
from tests.store.evil import evil_server, head, request_head, reset

SAMPLE = sample_chunk(1, 1000, block_size=4096)
KEY, DATA = SAMPLE.key, SAMPLE.data
SIZE = len(DATA)
SPANS = [(0, 100), (500, 600)]
RIGHT = [DATA[start:end] for start, end in SPANS]
TYPE = "Content-Type: multipart/byteranges; boundary=B"


def part(start: int, end: int, size: int = SIZE) -> bytes:
    return f"\r\n--B\r\nContent-Range: bytes {start}-{end - 1}/{size}\r\n\r\n".encode() + DATA[start:end]


def several(*parts: bytes, end: bytes = b"\r\n--B--\r\n", status: str = "206 OK") -> bytes:
    body = b"".join(parts) + end
    return head(status, f"Content-Length: {len(body)}", TYPE) + body


def single(start: int, end: int, size: int | str = SIZE) -> bytes:
    told = f"Content-Range: bytes {start}-{end - 1}/{size}"
    return head("206 OK", f"Content-Length: {end - start}", told) + DATA[start:end]


GOOD = several(part(0, 100), part(500, 600))


class Server:
    """Answers several ranges with `answer`, and one range as it should. `asked` are the ranges, in order."""

    def __init__(self, answer: bytes) -> None:
        self.answer = answer
        self.asked: list[str] = []
        self.connections = 0

    async def __call__(self, stream: trio.SocketStream, number: int) -> None:
        self.connections = max(self.connections, number + 1)
        while request := await request_head(stream):
            found = re.search(rb"bytes=([0-9,-]+)", request)
            assert found
            self.asked.append(found[1].decode())
            if b"," in found[1]:
                await stream.send_all(self.answer)
                if self.answer != GOOD:
                    return
            else:
                first, _, last = found[1].decode().partition("-")
                await stream.send_all(single(int(first), int(last) + 1))


async def get(store: HttpStore | WatchedStore) -> list[bytes] | None:
    memory = [bytearray(end - start) for start, end in SPANS]
    views = [(start, memoryview(into)) for (start, _), into in zip(SPANS, memory, strict=True)]
    counts = await store.get_spans(KEY, views)
    return None if counts is None else [bytes(m[:count]) for m, count in zip(memory, counts, strict=True)]


async def test_one_request_on_one_connection() -> None:
    server = Server(GOOD)
    async with evil_server(server) as store:
        for _ in range(10):
            assert await get(WatchedStore(store)) == RIGHT
    assert server.asked == ["0-99,500-599"] * 10
    assert server.connections == 1


async def test_an_answer_in_single_bytes() -> None:
    async def script(stream: trio.SocketStream, number: int) -> None:
        await request_head(stream)
        for byte in GOOD:
            await stream.send_all(bytes([byte]))
            await trio.lowlevel.checkpoint()

    async with evil_server(script) as store:
        assert await get(store) == RIGHT


OWN_WAYS = {
    "the whole object": head("200 OK", f"Content-Length: {SIZE}") + DATA,
    "the whole object, chunked": head("200 OK", "Transfer-Encoding: chunked") + b"0\r\n\r\n",
    "the first range only": single(0, 100),
    "the first range only, size not told": single(0, 100, "*"),
    "the last range only": single(500, 600),
    "both in one": single(0, 600),
    "merged into one part": several(part(0, 600)),
    "in another order": several(part(500, 600), part(0, 100)),
    "parts of unknown length": head("206 OK", "Transfer-Encoding: chunked", TYPE) + b"0\r\n\r\n",
    "another kind of parts": GOOD.replace(b"byteranges", b"mixed"),
    "a boundary that nobody uses": GOOD.replace(b"=B", b"=" + b"B" * 71),
    "no range": head("206 OK", "Content-Length: 4") + b"html",
    "nothing there, which is not so": head("416 No", f"Content-Range: bytes */{SIZE}", "Content-Length: 0"),
    "nothing there": head("416 No", "Content-Length: 0"),
}


@pytest.mark.parametrize("case", OWN_WAYS)
async def test_a_server_with_ways_of_its_own_is_asked_once(case: str) -> None:
    server = Server(OWN_WAYS[case])
    async with evil_server(server) as store:
        watched = WatchedStore(store)
        assert store.has_spans
        assert await get(watched) == RIGHT
        assert not store.has_spans
        assert await get(watched) == RIGHT
    assert server.asked[0] == "0-99,500-599"
    assert sorted(server.asked[1:]) == ["0-99", "0-99", "500-599", "500-599"]
    assert watched.health.failures == 0


NONSENSE = {
    "no parts": several(),
    "one part too few": several(part(0, 100)),
    "another second part": several(part(0, 100), part(501, 600)),
    "a short part": several(part(0, 100)[:-1], part(500, 600)),
    "another size": several(part(0, 100), part(500, 600, SIZE + 1)),
    "no end": several(part(0, 100), part(500, 600), end=b""),
    "more behind": several(part(0, 100), part(500, 600), end=b"\r\n--B--\r\nx"),
    "an endless head": several(b"\r\n--B\r\n" + b"X: y\r\n" * 100_000),
}


@pytest.mark.parametrize("case", NONSENSE)
async def test_nonsense_is_a_failure_and_not_asked_for_again(case: str) -> None:
    server = Server(NONSENSE[case])
    async with evil_server(server) as store:
        watched = WatchedStore(store)
        with pytest.raises(Unavailable) as caught:
            await get(watched)
        assert "node a" in str(caught.value)
        assert await get(watched) == RIGHT
    assert [asked for asked in server.asked if "," in asked] == ["0-99,500-599"]


@pytest.mark.parametrize("sent", [0, 10, 80, 100, 150, 250, len(GOOD) - 50, len(GOOD) - 1])
@pytest.mark.parametrize("how", ["closed", "reset"])
async def test_broken_off_says_nothing_about_what_the_server_can(sent: int, how: str) -> None:
    async def script(stream: trio.SocketStream, number: int) -> None:
        await request_head(stream)
        await stream.send_all(GOOD[:sent] if number == 0 else GOOD)
        if number == 0 and how == "reset":
            reset(stream)

    async with evil_server(script) as store:
        with pytest.raises(Unavailable):
            await get(store)
        assert store.has_spans
        assert await get(store) == RIGHT


@pytest.mark.parametrize(("status", "error"), [(401, Denied), (404, NotFound), (500, Unavailable), (302, Unavailable)])
async def test_refusals(status: int, error: type[Exception]) -> None:
    async with evil_server(Server(head(f"{status} No", "Content-Length: 0"))) as store:
        with pytest.raises(error):
            await get(store)
        assert store.has_spans


async def test_an_object_that_ends_before_the_last_span() -> None:
    """Its first part alone is what nginx and `shardfs node` send; a part of its own is allowed, too."""
    for answer in (single(0, 100, 300), several(part(0, 100, 300)), several(part(0, 100, 500))):
        async with evil_server(Server(answer)) as store:
            assert await get(store) == [DATA[:100], b""]
            assert store.has_spans
    async with evil_server(Server(head("416 No", "Content-Range: bytes */0", "Content-Length: 0"))) as store:
        assert await get(store) == [b"", b""]


async def test_the_time_of_one_answer_counts_once() -> None:
    """Health learns of the one request as it does of a `get`."""
    seen: list[float] = []

    class Health(NodeHealth):
        def measured(self, now: float, latency_seconds: float, *, pace: float | None = None) -> None:
            seen.append(latency_seconds)

    async with evil_server(Server(GOOD)) as store:
        assert await get(WatchedStore(store, Health())) == RIGHT
    assert len(seen) == 1


# ---------------------------------------------------------------------------------- stores that cannot do it at all


async def side_by_side(store: WatchedStore, arrived=None) -> list[bytes]:
    memory = [bytearray(end - start) for start, end in SPANS]
    views = [(start, memoryview(into)) for (start, _), into in zip(SPANS, memory, strict=True)]
    counts = await store.get_spans(KEY, views, arrived=arrived)
    return [bytes(m[:count]) for m, count in zip(memory, counts, strict=True)]


async def test_one_get_for_each(autojump_clock) -> None:
    memory = MemoryStore("a", objects={KEY: DATA}, pause=lambda op, key: 1.0)
    told = []
    assert await side_by_side(WatchedStore(memory), lambda number, count: told.append((number, count))) == RIGHT
    assert trio.current_time() == 1.0, "at the same time"
    assert sorted(told) == [(0, 100), (1, 100)]
    assert memory.calls == [("get", KEY)] * 2


async def test_the_first_failure_ends_the_other(autojump_clock) -> None:
    memory = MemoryStore("a", objects={KEY: DATA})
    memory.faults += [Fault(op="get", error="broken", times=1), Fault(op="get", hang=True)]
    with trio.fail_after(1), pytest.raises(Unavailable, match="broken"):
        await side_by_side(WatchedStore(memory, chance=random.Random(1).random))
    with pytest.raises(NotFound):
        await side_by_side(WatchedStore(MemoryStore("a")))


async def test_what_arrived_raises_comes_out_of_either(autojump_clock) -> None:
    for about in (0, 1):
        raised = RuntimeError("no more")

        def arrived(number: int, count: int, about: int = about, raised: RuntimeError = raised) -> None:
            if number == about:
                raise raised

        with pytest.raises(RuntimeError) as caught:
            await side_by_side(WatchedStore(MemoryStore("a", objects={KEY: DATA})), arrived)
        assert caught.value is raised
