"""One client's connection: heads through h11, bodies by sendfile and recv_into, and a time limit on each wait.

What can be done at once is done in the event loop: a request that has come whole is read, and an answer from memory is
sent, with no thread, timer or other task in between. Only what may wait for the disk runs in a thread. A client that
keeps up is waited for there, for a tenth of a second at most and only while other threads are idle; what waits for all
others is the event loop. So a stalled client holds a connection and a descriptor until its time is over, and a thread
for 10 ms.
"""

import socket
from collections.abc import Iterable, Sequence
from contextlib import suppress
from functools import partial
from http import HTTPStatus

import h11
import trio

from shardfs.core.digest import Bytes
from shardfs.server.disk import Disk
from shardfs.server.metrics import Metrics
from shardfs.server.options import ServerOptions
from shardfs.server.outgoing import Outgoing, Piece
from shardfs.server.patience import Patience, TooSlow
from shardfs.server.request import Refused, Request

_READ_BYTES = 8 * 1024
_LINGER_SECONDS = 2.0
_LINGER_READ_BYTES = 64 * 1024
_LINGER_BYTES_MAX = 64 * 1024 * 1024
_WAKE_BYTES = 256 * 1024
_CONTINUE = b"HTTP/1.1 100 Continue\r\n\r\n"
_STATUS_LINES = {
    status.value: f"HTTP/1.1 {status.value} {status.phrase}\r\nServer: shardfs\r\n" for status in HTTPStatus
}

Headers = Sequence[tuple[str, str]]


class Gone(Exception):
    """The client has closed, broken off or run out of time; there is nobody to answer. The text is for the log."""


class Connection:
    """Owns the socket. One request at a time: `next_request`, then perhaps its body, then one answer."""

    def __init__(self, sock: socket.socket, options: ServerOptions, metrics: Metrics) -> None:
        sock.setblocking(False)
        sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        # trio keeps at most 16 KiB unsent in a socket: bad for large bodies. 0 is the system's own limit.
        sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NOTSENT_LOWAT, 0)
        self._sock = sock
        self._readable = partial(trio.lowlevel.wait_readable, sock)
        self._writable = partial(trio.lowlevel.wait_writable, sock)
        self._options = options
        self._metrics = metrics
        self._h11 = h11.Connection(h11.SERVER)
        self._rest = b""  # received and not used yet: the start of a body or the next request
        self._method = ""
        self._body_left = 0
        self._wake_at = 1
        self._is_new = True
        self.closing = False
        """After this answer the connection ends."""
        self.answered = False
        """The head of the answer to this request is on its way; nothing else can be said."""

    async def next_request(self) -> Request | None:
        """The next head. None when the client has closed or was idle too long; Refused for what is no request."""
        first, self._is_new = self._is_new, False
        start = trio.current_time()
        self._h11 = h11.Connection(h11.SERVER, max_incomplete_event_size=self._options.header_bytes_max)
        self._method = ""
        self.answered = False
        if self._rest:
            await trio.lowlevel.checkpoint()  # who sends many requests at once shares the loop with the others
        else:
            with trio.move_on_after(self._options.header_seconds_max if first else self._options.idle_seconds_max):
                self._rest = await self._receive()
            if not self._rest:
                return None
        event = self._parsed(self._rest)
        if event is None:
            with trio.move_on_at((start if first else trio.current_time()) + self._options.header_seconds_max):
                while event is None:
                    event = self._parsed(await self._receive())
        if event is None:
            raise Refused(408, "the head of the request took too long")
        self._rest = self._h11.trailing_data[0]
        request = Request.parse(event)
        self._method = request.method
        self._body_left = request.length or 0
        self.closing = request.last or request.chunked
        return request

    def _parsed(self, data: bytes) -> h11.Request | None:
        """The head, when it is complete with `data`."""
        self.closing = True  # until the head is understood, where the next one begins is unknown
        try:
            self._h11.receive_data(data)
            event = self._h11.next_event()
        except h11.RemoteProtocolError as error:
            raise Refused(error.error_status_hint, f"not a valid request: {error}") from error
        if isinstance(event, h11.Request):
            return event
        if event is not h11.NEED_DATA or not data:
            raise Gone("closed in the head of a request")
        return None

    async def _receive(self) -> bytes:
        try:
            while True:
                await trio.lowlevel.wait_readable(self._sock)
                with suppress(BlockingIOError):
                    return self._sock.recv(_READ_BYTES)
        except OSError as error:
            raise Gone(str(error)) from error

    async def proceed(self) -> None:
        """Tell a client that asked first to send the body."""
        if self._h11.they_are_waiting_for_100_continue and not self._rest:
            await self.deliver(Outgoing(_CONTINUE))

    async def receive_into(self, view: memoryview, patience: Patience) -> int:
        """Fill `view` with body, less only at its end. Gone when the client is, or uses up `patience`."""
        wanted = min(len(view), self._body_left)
        done = min(len(self._rest), wanted)
        view[:done] = self._rest[:done]
        self._rest = self._rest[done:]
        try:
            while done < wanted:
                self._set_wake(min(_WAKE_BYTES, wanted - done))
                await patience.wait(self._readable)
                try:
                    count = self._sock.recv_into(view[done:wanted])
                except BlockingIOError:
                    patience.moved(0)
                    continue
                if count == 0:
                    raise Gone("closed in the body of a request")
                patience.moved(count)
                done += count
        except (OSError, TooSlow) as error:
            raise Gone(str(error)) from error
        finally:
            self._set_wake(1)
        self._body_left -= done
        self._metrics.received.inc(done)
        return done

    def _set_wake(self, size: int) -> None:
        if size != self._wake_at:
            self._sock.setsockopt(socket.SOL_SOCKET, socket.SO_RCVLOWAT, size)
            self._wake_at = size

    async def answer(self, status: int, headers: Headers, body: Bytes = b"") -> None:
        """Send the head and `body`, whose length is in `headers`."""
        await self.deliver(self.begin(status, headers, [body]))

    def begin(self, status: int, headers: Headers, pieces: Iterable[Piece], file: int = -1) -> Outgoing:
        """The answer to this request, from now on the only one. The caller sends it and closes it."""
        if self._body_left:
            self.closing = True  # what is left of it is not worth reading
        lines = [f"{name}: {value}\r\n" for name, value in headers]
        if self.closing:
            lines.append("Connection: close\r\n")
        head = f"{_STATUS_LINES[status]}{''.join(lines)}\r\n".encode("ascii")
        self.answered = True
        self._metrics.count(self._method, status)
        return Outgoing(head, () if self._method == "HEAD" else pieces, file)

    async def deliver(self, answer: Outgoing, disk: Disk | None = None) -> None:
        """Send what is left of an answer, in the threads of `disk` where its file is not in memory."""
        if not answer.done:
            await self._push_anywhere(answer, disk)
        if answer.done:
            return
        patience = Patience(self._options, self._options.answer_stall_seconds_max)
        patience.moved(answer.size - answer.body_left)
        while not answer.done:
            left = answer.left
            await patience.wait(self._writable)
            await self._push_anywhere(answer, disk)
            try:
                patience.moved(left - answer.left)
            except TooSlow as error:
                raise Gone(str(error)) from error

    async def _push_anywhere(self, answer: Outgoing, disk: Disk | None) -> None:
        if disk is None or answer.is_in_memory():
            self.push(answer)
        else:
            await disk.run(self.push, answer, disk.stay_seconds)

    def push(self, answer: Outgoing, stay_seconds: float = 0.0) -> None:
        """As `Outgoing.push`, and counted. Gone when the client is."""
        left = answer.body_left
        try:
            answer.push(self._sock, stay_seconds)
        except (ConnectionError, TimeoutError) as error:
            raise Gone(str(error)) from error
        finally:
            self._metrics.sent.inc(left - answer.body_left)

    async def linger(self) -> None:
        """After the last answer, before the close: let it arrive. Closing over unread bytes would reset it away."""
        left = _LINGER_BYTES_MAX
        with suppress(OSError), trio.move_on_after(_LINGER_SECONDS):
            self._sock.shutdown(socket.SHUT_WR)
            while left > 0:
                await trio.lowlevel.wait_readable(self._sock)
                with suppress(BlockingIOError):
                    count = len(self._sock.recv(_LINGER_READ_BYTES))
                    left = left - count if count else 0
