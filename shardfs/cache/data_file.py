"""The bytes of one cached file: a sparse file that is read and written around or through the page cache.

The kernel keeps the pages of the mounted file; a second copy of them here would only take memory. So:

- Writes go around the page cache where buffer and filesystem allow it, else through it with write-back started at
  once.
- A read near where another one ended goes through it, for the kernel's read-ahead, which brings large folios; the
  pages are dropped at once, from the 4 MiB boundary below, since the kernel drops large folios only whole. (Warm reads
  of 1 GiB through the mount, six of each in turns: 1458 MiB/s, 1305 to 1523, against 1149, 987 to 1738, around it: a
  slot's single pages make a request to the disk for each MiB.) One at a time for each file: the kernel keeps one
  read-ahead for a descriptor.
- Any other read goes around it: read-ahead would bring what nobody asked for.

Methods raise OSError.
"""

import errno
import os
import threading
from collections import deque
from pathlib import Path

import numpy as np

from shardfs.cache import holes
from shardfs.cache.descriptors import DescriptorPool
from shardfs.cache.folder import Medium
from shardfs.cache.openers import is_open

_NEAR_BYTES = 16 * 1024 * 1024
_FOLIO_BYTES = 4 * 1024 * 1024
_STREAMS_MAX = 8


class DataFile:
    """One existing data file of `size` bytes. Thread-safe: calls for different ranges do not meet."""

    def __init__(self, path: Path, size: int, *, pool: DescriptorPool, medium: Medium) -> None:
        self.path = path
        self.size = size
        self.inode = 0  # of the file that was made or found here; 0 before that
        self._pool = pool
        self._through_cache = threading.Lock()
        self._punches = medium.punches
        self._direct = medium.direct
        self._read_ends: deque[int] = deque(maxlen=_STREAMS_MAX)  # a hint: races only cost speed

    def read(self, offset: int, into: memoryview) -> None:
        """Read into `into`. What the file does not have is left as it was: the caller verifies all."""
        near = any(abs(offset - end) <= _NEAR_BYTES for end in list(self._read_ends))
        self._read_ends.append(offset + len(into))
        whole = 0 if near else self._direct_part(into)
        if whole and not self._read_direct(offset, into[:whole]):
            whole = 0
        if whole == len(into):
            return
        with self._through_cache, self._pool.use(self.path) as fd:
            start, end = offset + whole, offset + len(into)
            holes.read_full(fd, start, into[whole:])
            below = start - start % _FOLIO_BYTES
            holes.drop_pages(fd, below, end - below)

    def write(self, offset: int, data: memoryview) -> None:
        """Write all of `data` at `offset`, a multiple of the page size."""
        whole = self._direct_part(data)
        if whole and not self._write_direct(offset, data[:whole]):
            whole = 0
        if whole == len(data):
            return
        with self._pool.use(self.path) as fd:
            holes.write_full(fd, offset + whole, data[whole:])
            holes.start_write_back(fd, offset + whole, len(data) - whole)
            # Only what is clean by now goes: the rest goes with a later read or under pressure.
            holes.drop_pages(fd, offset + whole, len(data) - whole)

    def free(self, start: int, end: int) -> None:
        """Give the pages of [start, end) back; without hole punching those of the whole file."""
        with self._pool.use(self.path) as fd:
            if self._punches:
                holes.punch(fd, start, holes.round_up(end) - start)
            else:
                os.ftruncate(fd, 0)
                os.ftruncate(fd, self.size)

    def open_apart(self) -> int | None:
        """A descriptor for reading that nobody shares; None when another file, or one of another size, lies there."""
        with self._pool.noted():
            fd = os.open(self.path, os.O_RDONLY | os.O_NOFOLLOW | os.O_CLOEXEC)
            try:
                state = os.fstat(fd)
            except OSError:
                os.close(fd)
                raise
        if (state.st_ino, state.st_size) == (self.inode, self.size):
            return fd
        os.close(fd)
        return None

    def in_use(self) -> bool:
        """Whether anybody has the file open or mapped. A read of ours that runs counts, idle descriptors do not."""
        with self._pool.noted():
            self._pool.forget(self.path)
            return is_open(self.path)

    def _direct_part(self, data: memoryview) -> int:
        """How many bytes at the start of `data` may go around the page cache: whole pages of an aligned buffer."""
        if not self._direct or np.frombuffer(data, dtype=np.uint8).ctypes.data % holes.PAGE_BYTES:
            return 0
        return len(data) - len(data) % holes.PAGE_BYTES

    def _read_direct(self, offset: int, into: memoryview) -> bool:
        try:
            with self._pool.use(self.path, os.O_RDWR | os.O_DIRECT) as fd:
                holes.read_full(fd, offset, into)
        except OSError as error:
            return self._give_up_direct(error)
        return True

    def _write_direct(self, offset: int, data: memoryview) -> bool:
        try:
            with self._pool.use(self.path, os.O_RDWR | os.O_DIRECT) as fd:
                holes.write_full(fd, offset, data)
        except OSError as error:
            return self._give_up_direct(error)
        return True

    def _give_up_direct(self, error: OSError) -> bool:
        """This file or device wants larger steps than it said: False. Other errors come out."""
        if error.errno != errno.EINVAL:
            raise error
        self._direct = False
        return False
