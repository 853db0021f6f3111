"""OPEN, READ and RELEASE of files, answered on the kernel's device itself.

Reading is what a mount does nearly all of the time, so it takes the shortest way: bytes that are in memory are written
back before the next request is looked at, and what is on its way is written back in the moment in which it is there,
without a task. Only a read that must wait for memory gets one.
"""

import errno
import os
from collections.abc import Awaitable, Callable, Coroutine
from functools import partial
from typing import Any

import trio
from pyfuse3 import FUSEError

from shardfs.fetch import Waiting
from shardfs.mount import wire
from shardfs.mount.backing import Backings
from shardfs.mount.guard import Guard
from shardfs.vfs import FileSystem

WRITE_FLAGS = os.O_WRONLY | os.O_RDWR | os.O_TRUNC | os.O_APPEND

Reply = Callable[[int, int, bytes | memoryview], None]
"""Answer request `unique` with an errno, or 0 and a body."""


class DataPath:
    """Given: filesystem, guard, the way back. Changing: the reads under way, by the number of their request.

    Of those that need a task `reads_max` are under way; the others wait for their turn, each within its own deadline.
    Nobody else does: an open asks no node, and whoever takes requests from the kernel must not stop for hung ones.
    """

    def __init__(
        self, filesystem: FileSystem, guard: Guard, reply: Reply, *, backings: Backings | None, reads_max: int
    ) -> None:
        self._fs = filesystem
        self._guard = guard
        self._reply = reply
        self._backings = backings
        self._room = trio.Semaphore(reads_max)
        self._waiting: dict[int, tuple[float, Waiting]] = {}  # with their deadlines, which are in the same order
        self._first = trio.Event()
        self._none = trio.lowlevel.ParkingLot()

    async def run(self) -> None:
        """Answer those that have waited too long, until cancelled."""
        while True:
            while not self._waiting:  # again when what came has ended before our turn
                self._first = trio.Event()
                await self._first.wait()
            unique, (deadline, waiting) = next(iter(self._waiting.items()))
            await trio.sleep_until(deadline)
            if unique in self._waiting:
                waiting.abandon()
                self._ended(unique, waiting, FUSEError(self._guard.late()))

    async def drain(self) -> None:
        """Until nobody waits any more; each has its deadline."""
        while self._waiting:
            await self._none.park()

    def close(self) -> None:
        """No answers any more."""
        for _, waiting in self._waiting.values():
            waiting.abandon()
        self._waiting.clear()

    def open(self, nursery: trio.Nursery, unique: int, inode: int, flags: int) -> None:
        nursery.start_soon(self._open, unique, inode, flags)

    def read(self, nursery: trio.Nursery, unique: int, handle: int, offset: int, size: int) -> int:
        """Answer at once and return how many bytes that were; or later, and if need be by a task of `nursery`."""
        try:
            answer = self._fs.request(handle, offset, size)
        except Exception as error:  # noqa: BLE001 - told and logged by the guard
            self._reply(unique, self._guard.errno(error), b"")
            return 0
        if isinstance(answer, memoryview):
            self._reply(unique, 0, answer)
            return len(answer)
        if isinstance(answer, Waiting):
            self._waiting[unique] = trio.current_time() + self._guard.deadline_seconds, answer
            self._first.set()
            answer.then(partial(self._ended, unique, answer))
        else:
            nursery.start_soon(self._read, unique, answer)
        return 0

    def _ended(self, unique: int, waiting: Waiting, failure: Exception | None) -> None:
        del self._waiting[unique]
        if failure is None:
            self._reply(unique, 0, waiting.bytes())
        else:
            self._reply(unique, self._guard.errno(failure), b"")
        if not self._waiting:
            self._none.unpark_all()

    def release(self, unique: int, inode: int, handle: int) -> None:
        """Answered on return."""
        number = 0
        try:
            lent = None if self._backings is None else self._backings.release(inode)
            if lent is not None:
                lent.close()
            self._fs.release(handle)
        except Exception as error:  # noqa: BLE001 - the same
            number = self._guard.errno(error)
        self._reply(unique, number, b"")

    async def _open(self, unique: int, inode: int, flags: int) -> None:
        async def call() -> bytes:
            if flags & WRITE_FLAGS:
                raise FUSEError(errno.EROFS)
            handle = await self._fs.open(inode)
            backing = await self._backing(inode, handle)
            if backing is not None:
                return wire.opened(handle, wire.OPENED_PASSTHROUGH | wire.OPENED_NO_FLUSH, backing)
            # Content never changes under an inode: what the kernel has cached stays right.
            return wire.opened(handle, wire.OPENED_KEEP_CACHE)

        await self._answer(unique, call)

    async def _backing(self, inode: int, handle: int) -> int | None:
        if self._backings is None:
            return None
        try:
            return await self._backings.open(inode, handle)
        except BaseException:
            self._fs.release(handle)
            raise

    async def _read(self, unique: int, answer: Coroutine[Any, Any, memoryview]) -> None:
        async def call() -> memoryview:
            try:
                self._room.acquire_nowait()
            except trio.WouldBlock:
                await self._room.acquire()
            try:
                return await answer
            finally:
                self._room.release()

        try:
            await self._answer(unique, call)
        finally:
            answer.close()  # it has not begun when its turn did not come in time

    async def _answer(self, unique: int, call: Callable[[], Awaitable[bytes | memoryview]]) -> None:
        try:
            # The answer goes out before the next checkpoint: until then a view of a read is valid.
            self._reply(unique, 0, await self._guard.answer(call))
        except FUSEError as error:
            self._reply(unique, error.errno, b"")
