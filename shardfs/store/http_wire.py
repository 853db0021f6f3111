"""The two kinds of byte stream an HTTP connection runs over: TCP, which is fast, and TLS, which copies.

`TcpWire` works on the bare socket. It waits first and reads then, with SO_RCVLOWAT set to what is worth waking up for:
a 4 MiB body takes a dozen wake-ups, and its bytes land in the caller's buffer with no copy in between.

Failures come out as OSError, whatever the layer below calls them. Closing never waits and never says goodbye.
"""

import socket
import ssl
from typing import Protocol

import trio

from shardfs.core.digest import Bytes

CONNECT_SECONDS_MAX = 10.0
_TLS_READ_BYTES = 64 * 1024


class Wire(Protocol):
    """A connected stream, used by one task for each direction."""

    async def send(self, data: Bytes) -> None:
        """Send all of `data`."""
        ...

    async def receive_into(self, view: memoryview, rest: memoryview | None = None) -> int:
        """Read at least one byte into `view`, and what more there is into `rest`; 0 when the other side has closed."""
        ...

    def wake_at(self, size: int) -> None:
        """A hint: wake up for `size` bytes or the end of the stream, not for less."""
        ...

    def is_stale(self) -> bool:
        """Whether an idle stream has been closed, or holds bytes that nobody asked for."""
        ...

    def close(self) -> None:
        """At once. Harmless a second time."""
        ...


async def connect(host: str, port: int, tls: ssl.SSLContext | None) -> Wire:
    """A new stream within CONNECT_SECONDS_MAX, handshake included; OSError otherwise."""
    with trio.move_on_after(CONNECT_SECONDS_MAX):
        try:
            stream = await trio.open_tcp_stream(host, port)
        except UnicodeError as error:  # an empty part, or one of more than 63 characters
            raise socket.gaierror(socket.EAI_NONAME, f"{host[:100]!r} cannot be the name of a host") from error
        if tls is None:
            return TcpWire(socket.socket(fileno=stream.socket.detach()))
        secure = trio.SSLStream(stream, tls, server_hostname=host, https_compatible=True)
        try:
            await secure.do_handshake()
        except BaseException as error:
            stream.socket.close()
            if isinstance(error, trio.BrokenResourceError):
                raise OSError(f"TLS handshake failed: {error.__cause__ or error}") from error
            raise
        return TlsWire(stream, secure)
    raise TimeoutError(f"no connection within {CONNECT_SECONDS_MAX:.0f} s")


class TcpWire:
    """Owns a connected socket."""

    def __init__(self, sock: socket.socket) -> None:
        sock.setblocking(False)
        sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        # trio keeps at most 16 KiB unsent in a socket: bad for uploads. 0 is the system's own limit.
        sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NOTSENT_LOWAT, 0)
        self._sock = sock
        self._wake_at = 1

    async def send(self, data: Bytes) -> None:
        view = memoryview(data)
        while view:
            try:
                view = view[self._sock.send(view) :]
            except BlockingIOError:
                await trio.lowlevel.wait_writable(self._sock)

    async def receive_into(self, view: memoryview, rest: memoryview | None = None) -> int:
        while True:
            await trio.lowlevel.wait_readable(self._sock)
            try:
                return self._sock.recv_into(view) if rest is None else self._sock.recvmsg_into((view, rest))[0]
            except BlockingIOError:
                continue

    def wake_at(self, size: int) -> None:
        if size != self._wake_at:
            self._sock.setsockopt(socket.SOL_SOCKET, socket.SO_RCVLOWAT, size)
            self._wake_at = size

    def is_stale(self) -> bool:
        try:
            self._sock.recv(1, socket.MSG_PEEK)
        except BlockingIOError:
            return False
        except OSError:
            return True
        return True

    def close(self) -> None:
        if self._sock.fileno() >= 0:
            trio.lowlevel.notify_closing(self._sock)
            self._sock.close()


class TlsWire:
    """Owns a TLS stream and the TCP stream below it. Puts nothing into `rest`."""

    def __init__(self, stream: trio.SocketStream, secure: "trio.SSLStream[trio.SocketStream]") -> None:
        self._stream = stream
        self._secure = secure

    async def send(self, data: Bytes) -> None:
        try:
            await self._secure.send_all(data)
        except (trio.BrokenResourceError, trio.ClosedResourceError) as error:
            raise OSError(f"TLS: {error.__cause__ or error}") from error

    async def receive_into(self, view: memoryview, rest: memoryview | None = None) -> int:  # noqa: ARG002
        try:
            data = await self._secure.receive_some(min(len(view), _TLS_READ_BYTES))
        except (trio.BrokenResourceError, trio.ClosedResourceError) as error:
            raise OSError(f"TLS: {error.__cause__ or error}") from error
        view[: len(data)] = data
        return len(data)

    def wake_at(self, size: int) -> None:
        """TLS reads record by record."""

    def is_stale(self) -> bool:
        try:
            with socket.socket(fileno=self._stream.socket.fileno()) as peek:
                try:
                    return (
                        peek.recv(1, socket.MSG_PEEK | socket.MSG_DONTWAIT) == b""
                    )  # anything else may be a session ticket
                finally:
                    peek.detach()
        except BlockingIOError:
            return False
        except OSError:
            return True

    def close(self) -> None:
        self._stream.socket.close()
