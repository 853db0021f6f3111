"""One client's connection: heads through h11, bodies by sendfile and recv_into, and a time limit on each wait.

`send_file` asks the kernel to move bytes from the page cache to the socket. The call runs in a thread because it may
have to wait for the disk, but on a socket that does not block. A client that keeps up is waited for in the thread, for
a tenth of a second at most and only while other threads are idle; what waits for all others is the event loop. So a
stalled client holds a connection and a descriptor until its time is over, and a thread for 10 ms.
"""

import os
import select
import socket
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress

import h11
import trio

from shardfs.core.digest import Bytes
from shardfs.server.disk import Disk
from shardfs.server.metrics import Metrics
from shardfs.server.options import ServerOptions
from shardfs.server.request import Refused, Request

_READ_BYTES = 8 * 1024
_TOGETHER_BYTES = 16 * 1024  # copied behind the head, which is cheaper than another call
_LINGER_SECONDS = 2.0
_LINGER_READ_BYTES = 64 * 1024
_LINGER_BYTES_MAX = 64 * 1024 * 1024
_WAKE_BYTES = 256 * 1024
_STAY_SECONDS = 0.1  # of a thread, for one client that takes what it is sent
_KEEPS_UP_SECONDS = 0.01

Headers = Sequence[tuple[str, str]]


class Gone(Exception):
    """The client has closed, broken off or run out of time; there is nobody to answer. The text is for the log."""


class Connection:
    """Owns the socket. One request at a time: `next_request`, then perhaps its body, then one answer."""

    def __init__(self, sock: trio.socket.SocketType, options: ServerOptions, metrics: Metrics) -> None:
        sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        # trio keeps at most 16 KiB unsent in a socket: bad for large bodies. 0 is the system's own limit.
        sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NOTSENT_LOWAT, 0)
        self._sock = sock
        self._options = options
        self._metrics = metrics
        self._h11 = h11.Connection(h11.SERVER)
        self._rest = b""  # received and not used yet: the start of a body or the next request
        self._method = ""
        self._body_left = 0
        self._wake_at = 1
        self.closing = False
        """After this answer the connection ends."""
        self.answered = False
        """The head of the answer to this request is on its way; nothing else can be said."""

    async def next_request(self) -> Request | None:
        """The next head. None when the client has closed or was idle too long; Refused for what is no request."""
        self._h11 = h11.Connection(h11.SERVER, max_incomplete_event_size=self._options.header_bytes_max)
        self._method = ""
        self.answered = False
        if not self._rest:
            with trio.move_on_after(self._options.idle_seconds_max):
                self._rest = await self._receive()
            if not self._rest:
                return None
        with trio.move_on_after(self._options.header_seconds_max):
            event = await self._read_head()
            self._rest = self._h11.trailing_data[0]
            request = Request.parse(event)
            self._method = request.method
            self._body_left = request.length or 0
            self.closing = request.last or request.chunked
            return request
        self.closing = True
        raise Refused(408, "the head of the request took too long")

    async def _read_head(self) -> h11.Request:
        self.closing = True  # until the head is understood, where the next one begins is unknown
        data = self._rest
        try:
            while True:
                self._h11.receive_data(data)
                event = self._h11.next_event()
                if isinstance(event, h11.Request):
                    return event
                if event is not h11.NEED_DATA or not data:
                    raise Gone("closed in the head of a request")
                data = await self._receive()
        except h11.RemoteProtocolError as error:
            raise Refused(error.error_status_hint, f"not a valid request: {error}") from error

    async def _receive(self) -> bytes:
        try:
            return await self._sock.recv(_READ_BYTES)
        except OSError as error:
            raise Gone(str(error)) from error

    async def proceed(self) -> None:
        """Tell a client that asked first to send the body."""
        if self._h11.they_are_waiting_for_100_continue and not self._rest:
            await self._send(self._h11.send(h11.InformationalResponse(status_code=100, headers=[])))

    async def receive_into(self, view: memoryview) -> int:
        """Fill `view` with body, less only at its end. The caller limits the time."""
        wanted = min(len(view), self._body_left)
        done = min(len(self._rest), wanted)
        view[:done] = self._rest[:done]
        self._rest = self._rest[done:]
        try:
            while done < wanted:
                self._set_wake(min(_WAKE_BYTES, wanted - done))
                await trio.lowlevel.wait_readable(self._sock)
                count = await self._sock.recv_into(view[done:wanted])
                if count == 0:
                    raise Gone("closed in the body of a request")
                done += count
        except OSError as error:
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

    async def answer(self, status: int, headers: Headers, body: Bytes = b"", *, more: bool = False) -> None:
        """Send the head and `body`, whose length is in `headers`. With `more`, `send_file` follows."""
        if self._body_left:
            self.closing = True  # what is left of it is not worth reading
        last = [("Connection", "close")] if self.closing else []
        head = self._h11.send(h11.Response(status_code=status, headers=[("Server", "shardfs"), *headers, *last]))
        self.answered = True
        self._metrics.count(self._method, status)
        if self._method == "HEAD":
            body = b""
        with time_limit(self._options.body_seconds(len(body))):
            if len(body) <= _TOGETHER_BYTES:
                await self._send(head + bytes(body), more=more)
            else:
                await self._send(head, more=True)
                await self._send(body, more=more)
        self._metrics.sent.inc(len(body))

    async def _send(self, data: Bytes, *, more: bool = False) -> None:
        view = memoryview(data)
        try:
            while view:
                view = view[await self._sock.send(view, socket.MSG_MORE if more else 0) :]
        except OSError as error:
            raise Gone(str(error)) from error

    async def send_file(self, file: int, start: int, end: int, disk: Disk, *, after: bytes = b"") -> None:
        """Send bytes [start, end) of an open file, and a few more after them."""
        at, last = start, end + len(after)
        with time_limit(self._options.body_seconds(last - start)):
            while at < last:
                stay = _STAY_SECONDS if disk.idle else 0.0
                try:
                    count = await disk.run(_send_some, self._sock.fileno(), file, at, end, after, stay)
                except ConnectionError as error:
                    raise Gone(str(error)) from error
                at += count
                self._metrics.sent.inc(count)
                if at < last:
                    await trio.lowlevel.wait_writable(self._sock)

    async def linger(self) -> None:
        """After the last answer, before the close: let it arrive. Closing over unread bytes would reset it away."""
        left = _LINGER_BYTES_MAX
        with suppress(OSError), trio.move_on_after(_LINGER_SECONDS):
            self._sock.shutdown(socket.SHUT_WR)
            while left > 0 and (data := await self._sock.recv(_LINGER_READ_BYTES)):
                left -= len(data)


@contextmanager
def time_limit(seconds: float) -> Iterator[None]:
    """Gone when the block takes longer."""
    with trio.move_on_after(seconds) as scope:
        yield
    if scope.cancelled_caught:
        raise Gone("too slow")


def _send_some(sock: int, file: int, start: int, end: int, after: bytes, stay_seconds: float) -> int:
    """Send bytes [start, end) and `after` until the socket stays full; return how many went.

    `start` may lie within `after`, which counts on from `end`. Every return costs a change of threads, so a client that
    keeps up is waited for here, `stay_seconds` in all.
    """
    at, last = start, end + len(after)
    writable: select.poll | None = None
    until = time.monotonic() + stay_seconds
    while at < last:
        try:
            count = os.sendfile(sock, file, at, end - at) if at < end else os.write(sock, after[at - end :])
        except BlockingIOError:
            if writable is None:
                writable = select.poll()
                writable.register(sock, select.POLLOUT)
            left = min(until - time.monotonic(), _KEEPS_UP_SECONDS)
            if left <= 0 or not writable.poll(left * 1000):
                break
            continue
        if count == 0:
            raise OSError(f"the object ends at {at} instead of {end}")
        at += count
    return at - start
