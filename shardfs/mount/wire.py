"""The FUSE messages that are read or written here and not by libfuse: `linux/fuse.h`, protocol 7.

Numbers are in the machine's own byte order. A request is a header and what its operation says; an answer is a
header and the rest.
"""

import struct
from dataclasses import dataclass
from enum import IntEnum
from struct import Struct

from shardfs.core.digest import Bytes

REQUEST_BYTES_MIN = 8192
"""The kernel wants to be read from with a buffer of at least this, or of what a write may bring, if that is more."""

_REQUEST = Struct("=IIQQIIIHH")  # length, operation, unique, inode, uid, gid, pid, extensions, padding
_ANSWER = Struct("=IiQ")  # length, negative errno, unique
_READ = Struct("=QQI")  # handle, offset, size
_READ_SIZE_AT = _REQUEST.size + 16
_OPEN = Struct("=I")  # flags of open(2)
_OPENED = Struct("=QIi")  # handle, flags, number of the backing file
_RELEASE = Struct("=Q")  # handle
_OFFER = Struct("=IIIII")  # INIT asked: major, minor, read-ahead, flags, more flags
_INIT = Struct("=IIIIHHIIHHII")
"""INIT answered: major, minor, read-ahead, flags, background, congestion, most bytes of a write, granularity of time,
most pages of a request, alignment, more flags, most filesystems stacked."""
_INIT_FLAGS, _INIT_WRITE, _INIT_MORE, _INIT_STACKED = 3, 6, 10, 11

INIT_EXTENDED = 1 << 30
PASSTHROUGH_OFFERED = 1 << 5  # bit 37 of all flags
OPENED_KEEP_CACHE = 1 << 1
OPENED_NO_FLUSH = 1 << 5
OPENED_PASSTHROUGH = 1 << 7


class Operation(IntEnum):
    """Those that are not simply passed on."""

    OPEN = 14
    READ = 15
    RELEASE = 18
    INIT = 26
    READDIR = 28
    INTERRUPT = 36
    READDIRPLUS = 44


def request(message: Bytes) -> tuple[int, int, int]:
    """Operation, unique number and inode of a request."""
    _, operation, unique, inode, *_ = _REQUEST.unpack_from(message)
    return operation, unique, inode


def answer_head(unique: int, length: int = 0, error: int = 0) -> bytes:
    """The head of an answer with `length` bytes behind it, or of a failure with errno `error`."""
    return _ANSWER.pack(_ANSWER.size + length, -error, unique)


def answered(message: Bytes) -> int:
    """The unique number of the request that an answer is for; 0 for what nobody asked."""
    unique: int = _ANSWER.unpack_from(message)[2]
    return unique


def read_wanted(message: Bytes) -> tuple[int, int, int]:
    """Handle, offset and size of a READ."""
    handle, offset, size = _READ.unpack_from(message, _REQUEST.size)
    return handle, offset, size


def limit_read(message: bytearray, size_max: int) -> None:
    """Ask for at most `size_max` bytes of a folder."""
    size = struct.unpack_from("=I", message, _READ_SIZE_AT)[0]
    struct.pack_into("=I", message, _READ_SIZE_AT, min(size, size_max))


def open_flags(message: Bytes) -> int:
    """The flags of open(2)."""
    flags: int = _OPEN.unpack_from(message, _REQUEST.size)[0]
    return flags


def opened(handle: int, flags: int, backing: int = 0) -> bytes:
    """The body of an answer to OPEN."""
    return _OPENED.pack(handle, flags, backing)


def released(message: Bytes) -> int:
    """The handle of a RELEASE."""
    handle: int = _RELEASE.unpack_from(message, _REQUEST.size)[0]
    return handle


@dataclass(frozen=True, slots=True)
class Offer:
    """What the kernel can do, as its INIT says."""

    passthrough: bool

    @classmethod
    def parse(cls, message: Bytes) -> "Offer":
        if len(message) < _REQUEST.size + _OFFER.size:
            return cls(passthrough=False)  # older than the second word of flags
        _, _, _, flags, more = _OFFER.unpack_from(message, _REQUEST.size)
        return cls(passthrough=bool(flags & INIT_EXTENDED and more & PASSTHROUGH_OFFERED))


def settle(answer: bytearray, *, write_bytes_max: int, passthrough: bool) -> None:
    """Change libfuse's answer to INIT: nobody writes, and files may be handed to the kernel."""
    if len(answer) < _ANSWER.size + _INIT.size:
        return
    fields = list(_INIT.unpack_from(answer, _ANSWER.size))
    fields[_INIT_WRITE] = min(fields[_INIT_WRITE], write_bytes_max)
    if passthrough:
        fields[_INIT_FLAGS] |= INIT_EXTENDED
        fields[_INIT_MORE] |= PASSTHROUGH_OFFERED
        fields[_INIT_STACKED] = 1
    _INIT.pack_into(answer, _ANSWER.size, *fields)
