"""The disk cache of a mount: blocks of model files on the local disk, within a limit, across restarts.

It may forget; it must never lie. Every block is verified against its map on the way out, and whatever looks
wrong is a miss. It survives SIGKILL at any point; it never waits for the disk to be durable, since all it holds
can be fetched again.

The limit counts allocated disk space, data and maps, rounded up to pages, and holds at every instant: room is
made before a byte is written. Not counted: the filesystem's own metadata (an extent-tree page for each few hundred
pieces of a fragmented file), folders, `manifests`, and a few KiB of lock, format and probe.

A complete file can be lent (`CacheFile.lend`): others then read its data file without us. What is lent, and what any
process still has open or mapped afterwards, is not evicted; when nothing else is left, nothing more is stored. That
holds for what an earlier daemon lent, too: a limit lowered between two runs is only reached when programs that still
map its files let go of them. On filesystems and systems without leases nothing is lent.

Bytes of a lent file are not verified any more when they are read. Each was, once since the cache was opened.

It refuses: contents whose block size is no multiple of 4096 (never stored), and folders that are not its own.
"""

import logging
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from shardfs.cache.block_map import Content
from shardfs.cache.books import Books
from shardfs.cache.descriptors import DescriptorPool
from shardfs.cache.file import CacheFile
from shardfs.cache.folder import CacheFolder, Medium
from shardfs.cache.health import PROBE_SECONDS, DiskHealth
from shardfs.cache.ledger import Ledger
from shardfs.cache.lending import Lending
from shardfs.cache.room import Room
from shardfs.cache.scan import scan
from shardfs.cache.shared import Counters, Shared, is_full, is_own_trouble
from shardfs.cache.stored import StoredFile
from shardfs.core.digest import Digest
from shardfs.core.eviction import EvictionOrder, Granule
from shardfs.errors import CacheError, InvalidFormat

GRANULE_BYTES = 4 * 1024 * 1024
"""What is evicted at a time; more for limits above 256 GiB, so that the order of eviction stays small in memory."""

_GRANULES_MAX = 65536
_PROVEN_SHARE = 0.75

_log = logging.getLogger(__name__)


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


class DiskCache:
    """The one owner of a cache folder. Thread-safe."""

    def __init__(self, folder: CacheFolder, medium: Medium, *, limit_bytes: int, clock: Callable[[], float]) -> None:
        self.manifests = folder.manifests
        self._folder = folder
        self._medium = medium
        self._pool = DescriptorPool()
        self._counters = Counters()
        self._health = DiskHealth()
        self._warned_full = False
        order = EvictionOrder(proven_bytes_max=int(limit_bytes * _PROVEN_SHARE))
        self._books = Books(limit_bytes, order, clock=clock)
        self._lending = Lending(self._books, in_use=self._in_use)
        self._ledger = Ledger(self._books, self._lending)
        self._room = Room(self._books, self._lending, free=self._free, emptied=self._drop_if_empty)
        self._shared = Shared(
            books=self._books,
            ledger=self._ledger,
            lending=self._lending,
            room=self._room,
            health=self._health,
            counters=self._counters,
            probe=self._probe,
            troubled=self._troubled,
        )
        # Guards the tables: opening, closing and removing files, IO included. Taken before that of the books.
        self._table = threading.RLock()
        self._files: dict[Digest, CacheFile] = {}
        self._numbers: dict[int, CacheFile] = {}
        self._next_number = 0

    @classmethod
    def open(cls, folder: Path, *, limit_bytes: int, clock: Callable[[], float] = time.monotonic) -> "DiskCache":
        """Lock the folder (made if need be), bring what lies there in order, and fit it into the limit.

        Raises CacheError: owned by another process (the message names it), not ours, not writable.
        """
        claimed = CacheFolder.claim(folder)
        try:
            cache = cls(claimed, claimed.medium(), limit_bytes=limit_bytes, clock=clock)
            cache._restore()
        except OSError as error:
            claimed.release()
            raise CacheError(f"cache folder {folder}: {error.strerror or error}") from None
        except BaseException:
            claimed.release()
            raise
        return cache

    def file(self, content: Content) -> CacheFile:
        """The cache file of a content; the same object while it is open. Each must be closed.

        Never fails: a content that cannot be stored, or a map that cannot be read, is a file without blocks.
        """
        with self._table:
            file = self._files.get(content.digest) or self._list(self._stored(content))
            if file.content != content:
                replaced = self._replace(file, content)
                if replaced is None:
                    # Never entered in the tables, so it has no blocks and gets none.
                    return CacheFile(-1, self._stored(content), self._shared, self._release)
                file = replaced
            self._ledger.hold(file.number)
            self._load(file)
            return file

    @property
    def lends(self) -> bool:
        """Whether files can be lent here at all: the kernel says who has a file open."""
        return self._medium.leases

    def statistics(self) -> DiskCacheStatistics:
        counters = self._counters
        return DiskCacheStatistics(
            used_bytes=self._books.used_bytes,
            limit_bytes=self._books.limit_bytes,
            files=len(self._files),
            hit_bytes=counters.hit_bytes,
            miss_bytes=counters.miss_bytes,
            written_bytes=counters.written_bytes,
            rejected_bytes=counters.rejected_bytes,
            evicted_bytes=self._room.evicted_bytes,
            corrupt_blocks=counters.corrupt_blocks,
            read_errors=counters.read_errors,
            write_errors=counters.write_errors,
            bypassed=self._health.bypassed,
        )

    def check(self) -> None:
        """The invariants, for tests."""
        self._books.check()

    def close(self) -> None:
        """Wait for running reads and writes, note when files were last used, let the next owner in.

        What is lent stays with whoever has it; the next owner finds out by itself that it is in use.
        """
        self._ledger.close()
        with self._table:
            for file in self._files.values():
                if self._lending.kept(file.number):
                    file.stored.used_ns = time.time_ns()
                self._save_use(file)
        self._pool.close()
        self._folder.release()

    # ---------------------------------------------------------------------------------------------------- files

    def _stored(self, content: Content) -> StoredFile:
        granule_bytes = max(GRANULE_BYTES, self._books.limit_bytes // _GRANULES_MAX)
        return StoredFile(
            content,
            self._folder,
            granule_blocks=max(1, granule_bytes // max(1, content.block_size)),
            pool=self._pool,
            medium=self._medium,
        )

    def _list(self, stored: StoredFile) -> CacheFile:
        """Enter a file in the tables."""
        file = CacheFile(self._next_number, stored, self._shared, self._release)
        self._next_number += 1
        self._files[stored.content.digest] = self._numbers[file.number] = file
        return file

    def _replace(self, found: CacheFile, content: Content) -> CacheFile | None:
        """The same content cut or measured in another way: the newer one stays, if nobody uses the older."""
        if self._ledger.idle(found.number):
            found.evict()
            self._drop_if_empty(found.number)
        return None if content.digest in self._files else self._list(self._stored(content))

    def _load(self, file: CacheFile) -> None:
        try:
            file.stored.load()
        except OSError as error:
            self._troubled(error, "read_errors")
        except (InvalidFormat, MemoryError) as error:
            _log.warning("cache folder %s: %s", self._folder.path, error)

    def _release(self, file: CacheFile) -> None:
        if not self._ledger.unhold(file.number):
            return
        with self._table:
            if self._books.closed:
                return  # the folder may be somebody else's by now
            if self._ledger.idle(file.number):  # nobody has opened it since
                self._save_use(file)
                file.stored.unload()
                self._drop_if_empty(file.number)

    def _save_use(self, file: CacheFile) -> None:
        try:
            file.stored.save_use(at_once=True)
        except OSError as error:
            self._troubled(error, "write_errors")

    def _drop_if_empty(self, number: int) -> None:
        """Forget a file that nobody holds and that has nothing left, on disk too."""
        with self._table:
            file = self._numbers.get(number)
            if file is None:
                return
            try:
                if not self._ledger.forget_empty(number, file.stored.remove):
                    return
            except OSError as error:
                self._troubled(error, "write_errors")
                return
            del self._numbers[number]
            del self._files[file.content.digest]

    # ----------------------------------------------------------------------------------------------------- disk

    def _free(self, granule: Granule) -> bool:
        file = self._numbers[granule[0]]
        try:
            file.stored.evict(granule[1])
        except OSError as error:
            self._troubled(error, "write_errors")
            return False
        return True

    def _in_use(self, number: int) -> bool:
        """Whether anybody has the file open; when that cannot be known, somebody has."""
        try:
            return self._numbers[number].stored.in_use()
        except OSError as error:
            self._troubled(error, "read_errors")
            return True

    def _probe(self) -> bool:
        if not self._folder.answers():
            return False
        if self._health.recovered():
            _log.info("cache folder %s: in use again", self._folder.path)
        return True

    def _troubled(self, error: OSError, counter: str) -> None:
        """Count an error; warn once of a full disk and once each time the disk is given up."""
        self._counters.add(counter, 1)
        if is_full(error):
            if not self._warned_full:
                self._warned_full = True
                _log.warning("cache folder %s: the disk is full; going on with less", self._folder.path)
        elif not is_own_trouble(error) and self._health.failed(self._books.clock()):
            _log.warning(
                "cache folder %s: %s; going on without it, next try in %d s",
                self._folder.path,
                error.strerror or error,
                PROBE_SECONDS,
            )

    def _restore(self) -> None:
        """Take over what lies in the folder, oldest first, and evict what does not fit."""
        for found in scan(self._folder, self._stored):
            file = self._list(found.stored)
            doubtful = found.whole and self._medium.leases  # an earlier daemon may have lent it: it may still be mapped
            self._ledger.restore(file.number, file.content.map_charge, doubtful=doubtful)
            for granule in np.flatnonzero(found.charges):
                self._ledger.restore_granule((file.number, int(granule)), int(found.charges[granule]))
        self._room.make(0)
