"""Whether a NameNode is awake, asked in a way that can be cancelled.

The library has no time-out for its RPC: a thread that asks a frozen NameNode waits for as long as it is frozen. So
before a thread depends on a NameNode that has not been heard of for `ANSWER_SECONDS_MAX`, it is asked here. Hadoop's
RPC port answers an HTTP request with a hint for lost browsers, since 2.0 and without a login; that is enough.
"""

import math

import trio

from shardfs.errors import Unavailable
from shardfs.store.http_pool import reason_of

ANSWER_SECONDS_MAX = 1.0
ASK_SECONDS_MAX = 3.0
_QUESTION = b"GET / HTTP/1.0\r\n\r\n"


class NameNode:
    """The one at `host`:`port`; with port None it is a name service, which cannot be asked."""

    def __init__(self, node: str, host: str, port: int | None) -> None:
        self._node = node
        self._host = host
        self._port = port
        self._heard = -math.inf  # by trio's clock
        self._lock = trio.Lock()

    def heard(self) -> None:
        """It has answered something."""
        self._heard = trio.current_time()

    async def awake(self, what: str) -> None:
        """Return when it has been heard of lately. Unavailable when it cannot be reached or says nothing."""
        if self._port is None or trio.current_time() - self._heard <= ANSWER_SECONDS_MAX:
            return
        async with self._lock:  # one question for all who wait
            if trio.current_time() - self._heard <= ANSWER_SECONDS_MAX:
                return
            try:
                with trio.move_on_after(ASK_SECONDS_MAX):
                    await self._ask(self._port)
                    self.heard()
                    return
            except OSError as error:
                raise Unavailable(self._node, f"{what}: NameNode {self._where}: {reason_of(error)}") from error
            raise Unavailable(self._node, f"{what}: NameNode {self._where} says nothing for {ASK_SECONDS_MAX:.0f} s")

    async def _ask(self, port: int) -> None:
        stream = await trio.open_tcp_stream(self._host, port)
        try:
            await stream.send_all(_QUESTION)
            await stream.receive_some(1)  # anything, a closed connection too: somebody is awake
        except trio.BrokenResourceError:
            pass
        finally:
            stream.socket.close()

    @property
    def _where(self) -> str:
        return f"{self._host}:{self._port}"
