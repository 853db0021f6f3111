"""Exchanges with one HTTP server, for every store that speaks HTTP: the connections, and what a broken one means.

A request that was sent over an idle connection which turns out to have been closed is sent once more over a new one;
everything else that breaks is Unavailable with the reason. Redirects are never followed. A 429 or 503 with Retry-After
is obeyed: until then, but for 5 s at most, calls fail at once with the reason. Such a failure is Throttled, so that who
can wait knows for how long. Deadlines and other retries are the caller's.
"""

import math
import ssl
import time
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from typing import TypeAlias
from urllib.parse import urlsplit

import trio

from shardfs.core.digest import Bytes
from shardfs.errors import Unavailable
from shardfs.store.http_answer import retry_after
from shardfs.store.http_connection import Answer, Broken, Headers, HttpConnection
from shardfs.store.http_pool import HttpPool

CONNECTIONS_MAX = 32

Exchange: TypeAlias = tuple[HttpConnection, Answer]


class Throttled(Unavailable):
    """The server is well, has too much to do, and wants to be asked again in so many `seconds`."""

    def __init__(self, node: str, reason: str, seconds: float) -> None:
        super().__init__(node, reason)
        self.seconds = seconds


class HttpClient:
    """Connections to the server of `url` (http or https), for `node`. `tls` replaces the system's idea of trust."""

    def __init__(
        self,
        node: str,
        url: str,
        *,
        connections_max: int = CONNECTIONS_MAX,
        tls: ssl.SSLContext | None = None,
    ) -> None:
        parts = urlsplit(url)
        secure = parts.scheme == "https"
        self.node = node
        self.authority = parts.netloc
        self._quiet_until = -math.inf  # trio's clock
        self._pool = HttpPool(
            parts.hostname or "",
            parts.port or (443 if secure else 80),
            authority=parts.netloc,
            tls=(tls or ssl.create_default_context()) if secure else None,
            connections_max=connections_max,
        )

    @asynccontextmanager
    async def exchange(
        self, what: str, method: str, target: str, headers: Headers = (), parts: Sequence[Bytes] = ()
    ) -> AsyncIterator[Exchange]:
        """Ask and hand out the connection with the head of the answer; what breaks in the block is Unavailable too.

        `what` says in messages what was asked for. Throttled instead when the server has asked for a pause.
        """
        left = self._quiet_until - trio.current_time()
        if left > 0:
            reason = f"{what}: throttled, it asked to be left alone for {left:.1f} s more"
            raise Throttled(self.node, reason, left)
        wait: float | None = None
        try:
            for fresh in (False, True):
                async with self._pool.connection(fresh=fresh) as connection:
                    try:
                        answer = await connection.ask(method, target, headers, parts)
                    except Broken as error:
                        if error.answered or connection.uses == 0:
                            raise
                        continue  # closed while it was idle
                    wait = retry_after(answer, time.time())
                    if wait is not None:
                        self._quiet_until = trio.current_time() + wait
                    yield connection, answer
                    return
        except Broken as error:
            raise Unavailable(self.node, f"{what}: {error}") from error
        except Unavailable as error:  # what the caller made of the answer
            if wait is None:
                raise
            raise Throttled(self.node, error.reason, wait) from error

    def close(self) -> None:
        """Close what is idle now; what is in use closes when it comes back."""
        self._pool.close()
