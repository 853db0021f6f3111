"""What all files of one cache have in common: the books, the health of the disk, the counters."""

import errno
import threading
from collections.abc import Callable
from dataclasses import dataclass, field

from shardfs.cache.books import Books
from shardfs.cache.errands import Errands
from shardfs.cache.health import DiskHealth
from shardfs.cache.ledger import Ledger
from shardfs.cache.lending import Lending
from shardfs.cache.room import Room

_FULL = frozenset({errno.ENOSPC, errno.EDQUOT, errno.EFBIG})
_OWN_TROUBLE = frozenset({errno.EMFILE, errno.ENFILE, errno.ENOMEM})


@dataclass(slots=True)
class Counters:
    """Sums since the cache was opened."""

    hit_bytes: int = 0
    miss_bytes: int = 0
    written_bytes: int = 0
    rejected_bytes: int = 0
    corrupt_blocks: int = 0
    read_errors: int = 0
    write_errors: int = 0
    _lock: threading.Lock = field(default_factory=threading.Lock)

    def add(self, name: str, amount: int) -> None:
        with self._lock:
            setattr(self, name, getattr(self, name) + amount)


@dataclass(frozen=True, slots=True)
class DiskCacheStatistics:
    """Figures of one moment; bytes and counts since `open`."""

    used_bytes: int
    limit_bytes: int
    files: int
    hit_bytes: int
    miss_bytes: int
    written_bytes: int
    rejected_bytes: int
    evicted_bytes: int
    corrupt_blocks: int
    read_errors: int
    write_errors: int
    bypassed: bool


@dataclass(frozen=True, slots=True)
class Shared:
    """`troubled` logs and counts an error of the disk, `probe` asks the disk whether it is there again."""

    books: Books
    ledger: Ledger
    errands: Errands
    lending: Lending
    room: Room
    health: DiskHealth
    counters: Counters
    probe: Callable[[], bool]
    troubled: Callable[[OSError, str], None]


def is_full(error: OSError) -> bool:
    """The disk is well and has no room."""
    return error.errno in _FULL


def is_own_trouble(error: OSError) -> bool:
    """The process ran out of something; that says nothing about the disk."""
    return error.errno in _OWN_TROUBLE
