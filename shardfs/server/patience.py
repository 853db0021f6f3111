"""How long a node waits for a client in the middle of a body. Slowness of its own disk is not the client's.

At every moment the client may have kept the node waiting for `grace_seconds` and as long as the bytes so far take at
the least rate, in all; and for `stall_seconds` without a byte. So one that falls silent holds its place for some
seconds, one that trickles for not much longer, and how large a body was promised does not matter.
"""

from collections.abc import Awaitable, Callable

import trio

from shardfs.server.options import ServerOptions


class TooSlow(Exception):
    """The client has used up the patience."""


class Patience:
    """With one body. `wait`, then try to move bytes, then `moved`, which tells `told` when there were any."""

    def __init__(self, options: ServerOptions, stall_seconds: float, told: Callable[[], None] = lambda: None) -> None:
        self._stall_seconds = stall_seconds
        self._told = told
        self._rate = options.rate_min_bytes_per_second
        self._left_seconds = options.grace_seconds
        self._over = False

    async def wait(self, ready: Callable[[], Awaitable[None]]) -> None:
        """Until `ready`, or as long as there is patience now. A few bytes may have moved even so: try."""
        longest = min(self._left_seconds, self._stall_seconds)
        started = trio.current_time()
        with trio.move_on_after(longest) as scope:
            await ready()
        # Longer than that is the node's own fault: it was stopped, or had too much to do.
        self._left_seconds -= min(longest, trio.current_time() - started)
        self._over = scope.cancelled_caught

    def moved(self, count: int) -> None:
        """So many bytes since the last call. TooSlow when there were none, and the time for them is over."""
        if self._over and count == 0:
            raise TooSlow("too slow")
        self._left_seconds += count / self._rate
        if count:
            self._told()
