"""The connections to one HTTP server: at most `connections_max` in use, idle ones kept for the next request.

The last one put back is the first to be taken, so that what is too many grows old; a connection that has been idle for
IDLE_SECONDS_MAX, or that the server has closed or written to in the meantime, is not used again. A block that ends
before its answer was read to the end (by cancellation, say) closes its connection.
"""

import os
import ssl
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import trio

from shardfs.store.http_connection import Broken, HttpConnection
from shardfs.store.http_wire import connect

IDLE_SECONDS_MAX = 60.0


class HttpPool:
    """Connections to `host`:`port`; `authority` is what goes into the Host header."""

    def __init__(
        self, host: str, port: int, *, authority: str, tls: ssl.SSLContext | None, connections_max: int
    ) -> None:
        self._host = host
        self._port = port
        self._authority = authority
        self._tls = tls
        self._slots = trio.Semaphore(connections_max)
        self._idle: list[tuple[float, HttpConnection]] = []  # oldest first, at most `connections_max`
        self._closed = False

    @asynccontextmanager
    async def connection(self, *, fresh: bool = False) -> AsyncIterator[HttpConnection]:
        """A connection for one exchange; waits while all are in use. Broken when none can be made."""
        try:
            self._slots.acquire_nowait()  # spares a turn of the event loop
        except trio.WouldBlock:
            await self._slots.acquire()
        try:
            connection = None if fresh else self._take_idle()
            if connection is None:
                connection = await self._connect()
            try:
                yield connection
            finally:
                if connection.clean and not self._closed:
                    self._idle.append((trio.current_time(), connection))
                else:
                    connection.close()
        finally:
            self._slots.release()

    def _take_idle(self) -> HttpConnection | None:
        oldest = trio.current_time() - IDLE_SECONDS_MAX
        while self._idle and self._idle[0][0] < oldest:
            self._idle.pop(0)[1].close()
        while self._idle:
            connection = self._idle.pop()[1]
            if not connection.is_stale():
                return connection
            connection.close()
        return None

    async def _connect(self) -> HttpConnection:
        try:
            wire = await connect(self._host, self._port, self._tls)
        except OSError as error:
            raise Broken(f"cannot connect: {reason_of(error)}") from error
        return HttpConnection(wire, self._authority)

    def close(self) -> None:
        """Close what is idle now; what is in use closes when it comes back."""
        self._closed = True
        while self._idle:
            self._idle.pop()[1].close()


def reason_of(error: OSError) -> str:
    """trio wraps the failures of all addresses of a host; the first one says enough."""
    cause = error.__cause__
    while isinstance(cause, BaseExceptionGroup):
        cause = cause.exceptions[0]
    shown = cause if isinstance(cause, OSError) else error
    if shown.errno is not None and shown.errno > 0:  # not a failed name look-up, whose numbers are others
        return os.strerror(shown.errno)
    return shown.strerror or str(shown)
