"""One HTTP/1.1 connection of a client: one request at a time, heads through h11, bodies straight into buffers.

h11 checks every head and bounds it; it never sees a body whose length is known. After each answer `clean` says whether
the connection is in a known state and may be used again; cancellation and all that is unexpected make it unclean.

Failures are `Broken`. `answered` tells whether the other side had sent anything for this request: when it had not, and
the connection had been used before, it had simply been closed while idle.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Protocol

import h11
import trio

from shardfs.core.digest import Bytes
from shardfs.store.http_secrets import hide
from shardfs.store.http_wire import Wire

HEAD_BYTES_MAX = 64 * 1024
INTERIM_MAX = 10
WAKE_BYTES = 256 * 1024  # first, so that whoever waits for the beginning has it soon
NEXT_WAKE_BYTES = 512 * 1024  # each waking up costs about as much as hashing that
PIECE_BYTES = 320 * 1024  # the first one: a block and its chunk's header. Whoever waits for them goes before the rest
NEXT_PIECE_BYTES = 1024 * 1024  # copying more at a time would hold up everybody else for a millisecond
LARGE_BYTES = 2 * WAKE_BYTES
_HEAD_READ_BYTES = 16 * 1024  # small: what comes with the head of the body is copied
_DRAIN_READ_BYTES = 64 * 1024
_SHOWN_CHARACTERS = 200

Headers = Sequence[tuple[str, str]]


class Broken(Exception):
    """The exchange cannot go on; the connection has to be closed."""

    def __init__(self, reason: str, *, answered: bool = True) -> None:
        super().__init__(reason)
        self.answered = answered


@dataclass(frozen=True, slots=True)
class Answer:
    """The head of an answer. `length` is that of the body, None where only its end will tell."""

    status: int
    headers: dict[bytes, bytes]
    length: int | None
    last: bool
    """The other side will close the connection."""


class Sink(Protocol):
    """Whoever takes a body apart as it comes."""

    def room(self) -> tuple[memoryview, memoryview | None]:
        """Where the next bytes go, and those after them, if it matters; neither is empty."""
        ...

    def took(self, count: int) -> None:
        """So many have come there."""
        ...


class HttpConnection:
    """Owns a wire. `uses` counts the requests that were answered before this one."""

    def __init__(self, wire: Wire, host: str) -> None:
        self._wire = wire
        self._host = host
        self._h11 = h11.Connection(h11.CLIENT)
        self._buffer = memoryview(bytearray(_HEAD_READ_BYTES))
        self._early = b""  # bytes of the body that came with the head
        self._left = 0  # bytes of the body that are still to come, `_early` not counted
        self._answered = False
        self._sent: Headers = ()
        self.uses = 0
        self.clean = True

    def is_stale(self) -> bool:
        return self._wire.is_stale()

    def close(self) -> None:
        self.clean = False
        self._wire.close()

    async def ask(self, method: str, target: str, headers: Headers, parts: Sequence[Bytes] = ()) -> Answer:
        """Send a request and return the head of its answer; its body is then to be read."""
        self.clean = False
        self._answered = False
        self._h11 = h11.Connection(h11.CLIENT, max_incomplete_event_size=HEAD_BYTES_MAX)
        self._sent = headers
        try:
            head = self._h11.send(h11.Request(method=method, target=target, headers=[("Host", self._host), *headers]))
        except (h11.LocalProtocolError, UnicodeError):
            # Only that it is so: what h11 says quotes the value, which may be a secret.
            raise Broken("its address or a header has characters that HTTP does not allow: not sent") from None
        try:
            if parts:
                answer = await self._ask_with_body(head, parts)
            else:
                self._h11.send(h11.EndOfMessage())
                await self._wire.send(head)
                answer = await self._read_answer(method)
        except h11.RemoteProtocolError as error:
            raise self._invalid(error) from None
        except OSError as error:
            raise Broken(error.strerror or str(error), answered=self._answered) from error
        self.uses += 1
        return answer

    async def _ask_with_body(self, head: bytes, parts: Sequence[Bytes]) -> Answer:
        """Watch for the answer while the body goes out: an early refusal saves the rest, and may be all we get."""
        sent = False
        problem: Exception | None = None
        answer: Answer | None = None

        async def send() -> None:
            nonlocal sent
            try:
                for part in (head, *parts):
                    await self._wire.send(part)
                sent = True
            except OSError:
                pass  # what came of it is for the reader to find out: an answer or the same error

        async with trio.open_nursery() as nursery:
            nursery.start_soon(send)
            try:
                answer = await self._read_answer("PUT")
            except (OSError, h11.RemoteProtocolError, Broken) as error:
                problem = error
            nursery.cancel_scope.cancel()
        if problem is not None or answer is None:
            raise problem or Broken("no answer")
        if sent:
            return answer
        self.clean = False
        return Answer(answer.status, answer.headers, answer.length, last=True)

    async def _read_answer(self, method: str) -> Answer:
        buffer = self._buffer
        self._wire.wake_at(1)
        interim = 0
        while True:
            event = self._h11.next_event()
            if event is h11.NEED_DATA:
                count = await self._wire.receive_into(buffer)
                if count == 0:
                    raise Broken("connection closed before the answer", answered=self._answered)
                self._answered = True
                self._h11.receive_data(bytes(buffer[:count]))
            elif isinstance(event, h11.InformationalResponse):
                interim += 1
                if interim > INTERIM_MAX:
                    raise Broken("endless interim answers")
            elif isinstance(event, h11.Response):
                return self._accept(method, event)
            else:
                raise Broken("not a valid answer")

    def _accept(self, method: str, event: h11.Response) -> Answer:
        headers = dict(event.headers)
        early = self._h11.trailing_data[0]
        length: int | None = None
        if method == "HEAD" or event.status_code in (204, 304):
            length = 0
        elif b"transfer-encoding" not in headers and b"content-length" in headers:
            length = int(headers[b"content-length"])
        last = event.http_version < b"1.1" or b"close" in headers.get(b"connection", b"").lower()
        self._early, self._left = early, 0
        if length is not None:
            self._early, self._left = early[:length], max(0, length - len(early))
            self.clean = not last and self._left == 0 and len(early) == length
        return Answer(event.status_code, headers, length, last)

    async def body_into(self, answer: Answer, view: memoryview, arrived: Callable[[int], None] | None) -> None:
        """Fill `view` with the first bytes of a body of known length; Broken when it ends before."""
        self.clean = False
        done = min(len(self._early), len(view))
        view[:done] = self._early[:done]
        if done and arrived is not None:
            arrived(done)
        # For little it costs more than it saves: each change of the mark makes the kernel go through what has arrived.
        large = len(view) - done >= LARGE_BYTES
        while done < len(view):
            wake, piece = (WAKE_BYTES, PIECE_BYTES) if done < WAKE_BYTES else (NEXT_WAKE_BYTES, NEXT_PIECE_BYTES)
            if large:
                self._wire.wake_at(min(wake, len(view) - done))
            done += await self._receive_into(view[done : done + piece], done, len(view))
            if arrived is not None:
                arrived(done)
        self.clean = not answer.last and done == answer.length

    async def body_through(self, answer: Answer, sink: Sink) -> None:
        """Hand all of a body of known length to `sink`; Broken when it ends before."""
        self.clean = False
        length = answer.length or 0
        early = memoryview(self._early)
        done = 0
        while done < length:
            wake, piece = (WAKE_BYTES, PIECE_BYTES) if done < WAKE_BYTES else (NEXT_WAKE_BYTES, NEXT_PIECE_BYTES)
            room, rest = sink.room()
            left = min(length - done, piece)
            count = min(len(room), len(early) - done)
            if count > 0:
                room[:count] = early[done : done + count]
            else:
                if length >= LARGE_BYTES:
                    self._wire.wake_at(min(wake, left))
                rest = rest[: left - len(room)] if rest is not None and left > len(room) else None
                count = await self._receive_into(room[:left], done, length, rest)
            done += count
            sink.took(count)
        self.clean = not answer.last

    async def _receive_into(self, view: memoryview, done: int, length: int, rest: memoryview | None = None) -> int:
        try:
            count = await self._wire.receive_into(view, rest)
        except OSError as error:
            raise Broken(f"{error.strerror or error} after {done} of {length} bytes") from error
        if count == 0:
            raise Broken(f"closed after {done} of {length} bytes")
        return count

    async def body(self, answer: Answer, limit: int) -> bytes:
        """The whole body, however it is framed; Broken when it has more than `limit` bytes."""
        if answer.length is not None:
            if answer.length > limit:
                raise Broken(f"answer of {answer.length} bytes, more than {limit}")
            data = bytearray(answer.length)
            await self.body_into(answer, memoryview(data), None)
            return bytes(data)
        try:
            return await self._body_by_h11(answer, limit)
        except h11.RemoteProtocolError as error:
            raise self._invalid(error) from None
        except OSError as error:
            raise Broken(error.strerror or str(error)) from error

    async def _body_by_h11(self, answer: Answer, limit: int) -> bytes:
        data = bytearray()
        buffer = memoryview(bytearray(_DRAIN_READ_BYTES))
        while True:
            event = self._h11.next_event()
            if event is h11.NEED_DATA:
                count = await self._wire.receive_into(buffer)
                self._h11.receive_data(bytes(buffer[:count]))
            elif isinstance(event, h11.Data):
                data += event.data
                if len(data) > limit:
                    raise Broken(f"answer of more than {limit} bytes")
            elif isinstance(event, h11.EndOfMessage):
                self.clean = not answer.last and not any(self._h11.trailing_data)
                return bytes(data)
            else:
                raise Broken("not a valid answer")

    def early_text(self) -> str:
        """What came with the head of an error's body, for a message: one line of at most 200 plain characters."""
        return self.shown(self._early.decode("ascii", "replace").partition("\n")[0])

    def shown(self, text: str) -> str:
        """The server's words for a message: at most 200 plain characters, without secrets of the last request."""
        line = self.hide(text)[:_SHOWN_CHARACTERS]
        return "".join(c if c.isprintable() and c.isascii() else "?" for c in line).strip()

    def hide(self, text: str) -> str:
        """The server's words, whole, without secrets of the last request."""
        return hide(text, self._sent)

    def _invalid(self, error: h11.RemoteProtocolError) -> Broken:
        return Broken(f"not a valid answer: {self.shown(str(error))}")  # it quotes what came
