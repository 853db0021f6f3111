"""What a put does before it sends, for servers that cannot check: the bytes are what their name says, or stay here.

Checking and hashing run in a thread (1 s/GiB), on a copy that belongs to the put; a cancelled put leaves that thread to
end by itself, within milliseconds, and nothing it does is seen by anybody. Small objects are checked at once, which
takes less than changing threads. Within one process puts of one key
take turns, so that exactly one of them creates the object, also on servers that know no conditions.
"""

import hashlib
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass

import trio

from shardfs.core.digest import Bytes
from shardfs.core.keys import ObjectKey
from shardfs.core.objects import size_limit, verify_object
from shardfs.errors import InvalidFormat, Unavailable

THREADS_MAX = 4
SMALL_BYTES_MAX = 64 * 1024
"""A small object: checked in place, and sent as soon as asked for."""


@dataclass(frozen=True, slots=True)
class Whole:
    """An object in one piece that matches its name. `sha256` is empty unless it was asked for."""

    data: bytes
    sha256: str


class Sending:
    """The puts of one store."""

    def __init__(self, node: str) -> None:
        self._node = node
        self._limiter = trio.CapacityLimiter(THREADS_MAX)
        self._turns: dict[ObjectKey, tuple[trio.Lock, int]] = {}  # lock and puts that hold or want it

    @asynccontextmanager
    async def turn(self, key: ObjectKey) -> AsyncIterator[None]:
        """One put of `key` at a time."""
        lock, users = self._turns.get(key, (trio.Lock(), 0))
        self._turns[key] = (lock, users + 1)
        try:
            async with lock:
                yield
        finally:
            users = self._turns[key][1] - 1
            if users:
                self._turns[key] = (lock, users)
            else:
                del self._turns[key]

    async def whole(self, key: ObjectKey, parts: Sequence[Bytes], *, sha256: bool = False) -> Whole:
        """The object in one piece, verified. Unavailable when it is not what `key` names."""
        views = [memoryview(part).cast("B") for part in parts]
        size = sum(len(view) for view in views)
        if size > size_limit(key):
            raise Unavailable(self._node, f"put {key} refused: {size} bytes, more than {size_limit(key)}")
        data = b"".join(views)

        def check() -> Whole:
            verify_object(key, data)
            return Whole(data, hashlib.sha256(data).hexdigest() if sha256 else "")

        try:
            if size <= SMALL_BYTES_MAX:
                await trio.lowlevel.checkpoint()
                return check()
            return await trio.to_thread.run_sync(check, abandon_on_cancel=True, limiter=self._limiter)
        except InvalidFormat as error:
            raise Unavailable(self._node, f"put {key} refused: {error}") from error
