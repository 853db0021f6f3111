"""What stands around every call: a hard deadline, and the one catch-all of the program.

A reader that waits for FUSE cannot even be killed, and pyfuse3 ends the whole mount when a handler raises anything but
FUSEError.
"""

import errno
import logging
from collections.abc import Awaitable, Callable
from typing import TypeVar

import trio
from pyfuse3 import FUSEError

from shardfs.errors import ShardfsError
from shardfs.mount.errno_table import errno_of

logger = logging.getLogger(__name__)

T = TypeVar("T")


class Guard:
    """`deadline_seconds` for each call."""

    def __init__(self, deadline_seconds: float) -> None:
        self.deadline_seconds = deadline_seconds

    async def answer(self, call: Callable[[], Awaitable[T]]) -> T:
        """What `call` gives. FUSEError for all that goes wrong, EIO after the deadline."""
        try:
            # What `trio.fail_after` does, without its two generators: this is on the way of every read.
            with trio.CancelScope(deadline=trio.current_time() + self.deadline_seconds):
                return await call()
        except Exception as error:  # noqa: BLE001 - the one catch-all; `errno` logs
            raise FUSEError(self.errno(error)) from None
        raise FUSEError(self.late())

    def late(self) -> int:
        """What a program is told that has waited for longer than the deadline."""
        logger.warning("no answer within %g s", self.deadline_seconds)
        return errno.EIO

    @staticmethod
    def errno(error: Exception) -> int:
        """What a program is told of `error`; a bug is logged."""
        match error:
            case FUSEError():
                return error.errno
            case ShardfsError():
                return errno_of(error)
        logger.error("bug: this call fails with EIO, the mount goes on", exc_info=error)
        return errno.EIO
