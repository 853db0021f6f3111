"""What a folder gives without waiting for a disk: for the event loop, where everybody waits for everybody.

`Glance.open` opens an object that the kernel finds in its memory (openat2 with RESOLVE_CACHED: no link, no way out of
the folder, no other file system). `in_memory` says whether bytes of a file are all in the page cache: cachestat counts
the pages, and some are tried, since a page counts as soon as the disk has been asked for it. A page can be dropped
between the answer and its use; then the loop waits for the disk after all, once.

None and False mean "perhaps": ask in a thread. That is always so before Linux 6.5, where a sandbox forbids the calls,
and on file systems that are not known to be local: an open may have to ask their server. The kind of file system is
looked at once; whoever mounts another kind there restarts the server.
"""

import ctypes
import mmap
import os
import stat
import struct
from pathlib import Path

# Numbers that all architectures share. Nothing here blocks, so the GIL is not given away (PyDLL).
_OPENAT2, _CACHESTAT = 437, 451
_AT_FDCWD = -100
_NO_XDEV, _NO_SYMLINKS, _BENEATH, _CACHED = 0x01, 0x04, 0x08, 0x20
_HOW = struct.Struct("=QQQ")  # flags, mode, resolve
_ROOT = _HOW.pack(os.O_PATH | os.O_DIRECTORY | os.O_CLOEXEC, 0, _CACHED)
_OBJECT = _HOW.pack(
    os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC, 0, _NO_XDEV | _NO_SYMLINKS | _BENEATH | _CACHED
)
_LOCAL = {0xEF53, 0x58465342, 0x9123683E, 0xF2F52010, 0x01021994}  # ext, XFS, Btrfs, F2FS, tmpfs

_RANGE = struct.Struct("=QQ")  # offset, length
_COUNTS_BYTES = 40  # five numbers; the first counts the pages that are there
_STATFS_BYTES = 256  # more than any architecture's; the first word is the kind of file system
_TRY_BYTES = 512 * 1024

_libc = ctypes.PyDLL(None)
_syscall = _libc.syscall
_syscall.restype = ctypes.c_long
_statfs = _libc.statfs


class Glance:
    """Opens what is below `root`, which may itself be reached by links."""

    def __init__(self, root: Path) -> None:
        """Blocks: it asks for the kind of file system. A root that cannot be asked about is not looked at again."""
        self._root = os.fsencode(root)
        self._local = _is_local(root)

    def open(self, key: str) -> tuple[int, int] | None:
        """Descriptor and size of an object, which the caller closes. None when only a disk can tell."""
        if not self._local:
            return None
        root = _openat2(_AT_FDCWD, self._root, _ROOT)
        if root < 0:
            return None
        try:
            file = _openat2(root, key.encode(), _OBJECT)
        finally:
            os.close(root)
        if file < 0:
            return None
        status = os.fstat(file)
        if not stat.S_ISREG(status.st_mode):
            os.close(file)
            return None
        return file, status.st_size


def in_memory(file: int, start: int, end: int) -> bool:
    """Whether bytes [start, end) can be read without a disk; at least one byte."""
    counts = ctypes.create_string_buffer(_COUNTS_BYTES)
    span = _RANGE.pack(start, end - start)
    if _syscall(_CACHESTAT, ctypes.c_int(file), span, counts, ctypes.c_uint(0)) != 0:
        return False
    pages = (end - 1) // mmap.PAGESIZE - start // mmap.PAGESIZE + 1
    if ctypes.c_uint64.from_buffer(counts).value < pages:
        return False
    byte = [bytearray(1)]
    try:
        return all(os.preadv(file, byte, at, os.RWF_NOWAIT) for at in (end - 1, *range(start, end - 1, _TRY_BYTES)))
    except OSError:  # EAGAIN, or a file system that cannot tell
        return False


def _openat2(at: int, path: bytes, how: bytes) -> int:
    return int(_syscall(_OPENAT2, ctypes.c_int(at), path, how, ctypes.c_size_t(len(how))))


def _is_local(root: Path) -> bool:
    status = ctypes.create_string_buffer(_STATFS_BYTES)
    kind = ctypes.c_ulong.from_buffer(status)
    return _statfs(os.fsencode(root), status) == 0 and kind.value & 0xFFFFFFFF in _LOCAL
