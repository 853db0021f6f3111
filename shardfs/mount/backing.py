"""Complete files of the disk cache, handed to the kernel: their reads never reach the daemon (FUSE passthrough).

The kernel wants a file to be open either through the daemon or through its backing file, not both at once. So whoever
opens a file first decides for all who open it before everybody has closed it. A file that cannot be handed over is
served as ever, and so is one that the disk has not opened in `LEND_SECONDS`: no open fails because of the cache.

It takes Linux 6.9 and CAP_SYS_ADMIN, and a cache folder on a filesystem that has leases and is not itself stacked on
another.
"""

import errno
import fcntl
import logging
import os
import threading
from collections import Counter
from dataclasses import dataclass
from struct import Struct
from weakref import WeakValueDictionary

import trio

from shardfs.cache import Lent
from shardfs.vfs import FileSystem

logger = logging.getLogger(__name__)

LEND_SECONDS = 1.0
"""How long an open waits for the disk."""
THREADS = 8
"""For all files together. One that hangs is one less for the others, which then are served."""

_MAP = Struct("=iIQ")  # descriptor, flags, padding: struct fuse_backing_map
_NUMBER = Struct("=i")


def _iow(number: int, size: int) -> int:
    """The number of a write-only call of /dev/fuse: `_IOW(229, number, size)` of `asm-generic/ioctl.h`."""
    return 1 << 30 | size << 16 | 229 << 8 | number


_BACKING_OPEN = _iow(1, _MAP.size)
_BACKING_CLOSE = _iow(2, _NUMBER.size)


@dataclass(slots=True)
class _Backing:
    number: int
    lent: Lent
    opens: int = 1


class Backings:
    """Which inodes are open through what. Nothing is handed over until the kernel has agreed (`allow`).

    `allowed`: files are handed over as far as is known.
    """

    def __init__(self, filesystem: FileSystem, device: int) -> None:
        self._fs = filesystem
        self._device = device
        self.allowed = False
        self._turns: WeakValueDictionary[int, trio.Lock] = WeakValueDictionary()
        self._threads = trio.CapacityLimiter(THREADS)
        self._open: dict[int, _Backing] = {}
        self._served: Counter[int] = Counter()

    def allow(self, offered: bool) -> None:
        """The kernel said whether it can."""
        root = os.geteuid() == 0
        self.allowed = offered and root and self._fs.lends
        if not offered:
            logger.warning("passthrough: this kernel cannot (Linux 6.9 or newer can); files are served as ever")
        elif not root:
            logger.warning("passthrough: the kernel lets only root do this; files are served as ever")
        elif not self.allowed:
            logger.warning(
                "passthrough: nobody says who has a file of the cache folder open (no leases there); "
                "choose another with --cache; files are served as ever"
            )
        else:
            logger.info("passthrough: whole cached files are handed to the kernel")

    async def open(self, inode: int, handle: int) -> int | None:
        """The number of the backing file for one more open of `inode`; None when the daemon serves it."""
        turn = self._turns.setdefault(inode, trio.Lock())
        async with turn:
            backing = self._open.get(inode)
            if backing is not None:
                backing.opens += 1
                return backing.number
            if self.allowed and not self._served[inode]:
                lent = await self._lend(handle)
                number = None if lent is None else self._hand_over(lent)
                if lent is not None and number is not None:
                    self._open[inode] = _Backing(number, lent)
                    return number
            self._served[inode] += 1
            return None

    def release(self, inode: int) -> Lent | None:
        """One open of `inode` less. What the kernel has no more use for is to be closed, which takes no time."""
        backing = self._open.get(inode)
        if backing is None:
            self._served[inode] -= 1
            if self._served[inode] <= 0:
                del self._served[inode]
            return None
        backing.opens -= 1
        if backing.opens:
            return None
        del self._open[inode]
        self._take_back(backing)
        return backing.lent

    def close(self) -> None:
        """Take everything back, at the end of the mount. What may block then is left to the cache."""
        for backing in self._open.values():
            self._take_back(backing)
            backing.lent.close()
        self._open.clear()

    async def _lend(self, handle: int) -> Lent | None:
        """The file from the cache. Whoever gives up leaves the thread alone, and nothing lent behind."""
        settled = threading.Lock()  # taken by the thread when it has lent, or by us when we give up: who is first
        found: list[Lent] = []

        def lend() -> None:
            lent = self._fs.lend(handle)
            if lent is not None:
                found.append(lent)
                if not settled.acquire(blocking=False):
                    lent.close()

        lent = None
        try:
            with trio.move_on_after(LEND_SECONDS):
                await trio.to_thread.run_sync(lend, abandon_on_cancel=True, limiter=self._threads)
                lent = found[0] if found else None
        finally:
            if lent is None and not settled.acquire(blocking=False):
                found[0].close()
        return lent

    def _hand_over(self, lent: Lent) -> int | None:
        try:
            wanted = bytearray(_MAP.pack(lent.fd, 0, 0))
            number: int = fcntl.ioctl(self._device, _BACKING_OPEN, wanted)
        except OSError as error:
            lent.close()
            self.allowed = False
            logger.warning("passthrough: %s; files are served as ever", _explain(error))
            return None
        lent.detach()  # the kernel has the open file itself now: a program may open more files than we have descriptors
        return number

    def _take_back(self, backing: _Backing) -> None:
        try:
            fcntl.ioctl(self._device, _BACKING_CLOSE, _NUMBER.pack(backing.number))
        except OSError as error:
            logger.debug("backing file %d: %s", backing.number, error)


def _explain(error: OSError) -> str:
    if error.errno == errno.EPERM:
        return "the kernel lets only who has CAP_SYS_ADMIN do this"
    if error.errno == errno.ELOOP:
        return "the cache folder lies on a stacked filesystem (overlayfs); choose another with --cache"
    return os.strerror(error.errno or 0)
