"""Sparse files through the two Linux calls that Python does not have: punch a hole, start write-back.

Both release the GIL. `fallocate` here only ever punches: it cannot make a file larger.
"""

import ctypes
import errno
import os

PAGE_BYTES = 4096
"""What a block's place on disk is rounded up to, and what direct IO must be aligned to."""

_KEEP_SIZE, _PUNCH_HOLE = 1, 2
_START_WRITE = 2

_libc = ctypes.CDLL(None, use_errno=True)
_libc.fallocate.argtypes = (ctypes.c_int, ctypes.c_int, ctypes.c_int64, ctypes.c_int64)
_sync_file_range = getattr(_libc, "sync_file_range", None)  # absent on some C libraries and machines
if _sync_file_range is not None:
    _sync_file_range.argtypes = (ctypes.c_int, ctypes.c_int64, ctypes.c_int64, ctypes.c_uint)


def round_up(size: int) -> int:
    """`size` in whole pages."""
    return -(-size // PAGE_BYTES) * PAGE_BYTES


def punch(fd: int, offset: int, length: int) -> None:
    """Give the pages of [offset, offset + length) back to the filesystem; they read as zeros. OSError."""
    while _libc.fallocate(fd, _KEEP_SIZE | _PUNCH_HOLE, offset, length) != 0:
        code = ctypes.get_errno()
        if code != errno.EINTR:
            raise OSError(code, os.strerror(code))


def start_write_back(fd: int, offset: int, length: int) -> None:
    """Begin to write dirty pages to the disk without waiting; a hint, so failures do not matter."""
    if _sync_file_range is not None:
        _sync_file_range(fd, offset, length, _START_WRITE)


def drop_pages(fd: int, offset: int, length: int) -> None:
    """Forget clean pages of the range; a hint too."""
    os.posix_fadvise(fd, offset, length, os.POSIX_FADV_DONTNEED)


def read_full(fd: int, offset: int, into: memoryview) -> bool:
    """Fill `into` from `offset`; False when the file ends before. OSError."""
    while len(into):
        got = os.preadv(fd, [into], offset)
        if got == 0:
            return False
        into, offset = into[got:], offset + got
    return True


def write_full(fd: int, offset: int, data: memoryview) -> None:
    """Write all of `data` at `offset`. OSError."""
    while len(data):
        done = os.pwrite(fd, data, offset)
        data, offset = data[done:], offset + done
