"""Puts fetched bytes into the kernel's page cache (`notify_store`), a few at a time, in threads.

In threads, because the kernel may make the caller wait for a page that one of our own answers is about to fill.
"""

import logging
from collections.abc import Callable
from typing import cast

import pyfuse3
import trio

logger = logging.getLogger(__name__)

WAITING_MAX = 8
THREADS = 2

_Job = tuple[int, int, memoryview, Callable[[], None]]


class Pusher:
    """A bounded queue of pushes. `offer` is for the event loop; `run` does the work until cancelled."""

    def __init__(self) -> None:
        self._send, self._receive = trio.open_memory_channel[_Job](WAITING_MAX)

    def offer(self, inode: int, offset: int, view: memoryview, done: Callable[[], None]) -> bool:
        """Push `view` when there is time, then call `done`; False (and no call of `done`) when too many wait."""
        try:
            self._send.send_nowait((inode, offset, view, done))
        except trio.WouldBlock:
            return False
        return True

    async def run(self) -> None:
        async with trio.open_nursery() as nursery:
            for _ in range(THREADS):
                nursery.start_soon(self._work)

    async def _work(self) -> None:
        async for inode, offset, view, done in self._receive:
            try:
                # The stub says bytes; any contiguous buffer will do.
                await trio.to_thread.run_sync(pyfuse3.notify_store, inode, offset, cast(bytes, view))
            except OSError as error:
                # The kernel has forgotten the inode, or is short of memory: it will ask.
                logger.debug("push of inode %d at %d: %s", inode, offset, error)
            finally:
                done()
