"""Whether an S3 server keeps `If-None-Match: *`, found out by trying: most do, some ignore it and overwrite.

Where it is not known to be kept, the object is asked for before it is sent. That costs a request, which for a small
object costs as much as sending it. So the first object that is created is sent once more, on the same condition: a
server that refuses it has kept the condition, and from then on nothing is asked for before. One that takes it has
written the same bytes again, as any two puts of one key may do there.

This is for small objects only, and holds for as long as the store is open.
"""

from collections.abc import Awaitable, Callable
from contextlib import suppress

import trio

from shardfs.errors import StoreError


class Condition:
    """Changing, under the lock: `kept`. None until it has been seen."""

    def __init__(self) -> None:
        self.kept: bool | None = None
        self._finding_out = trio.Lock()

    async def put(self, *, absent: Callable[[], Awaitable[bool]], create: Callable[[], Awaitable[bool]]) -> bool:
        """What `create` says: whether it made the object. It is not called where `absent` had to be asked and says no.

        `create` sends the object on condition. Raises what they raise.
        """
        if self.kept is None:
            async with self._finding_out:  # the others wait: what the first one finds out spares each of them a request
                if self.kept is None:
                    return await self._put_and_see(absent, create)
        return (self.kept or await absent()) and await create()

    async def _put_and_see(self, absent: Callable[[], Awaitable[bool]], create: Callable[[], Awaitable[bool]]) -> bool:
        if not await absent():
            return False
        if not await create():  # somebody was quicker, and the server saw it
            self.kept = True
            return False
        with suppress(StoreError):  # it is stored, whatever comes of this
            self.kept = not await create()
        return True
