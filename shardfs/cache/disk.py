"""The disk cache of a mount: blocks of model files on the local disk, within a limit, across restarts.

It may forget; it must never lie. Every block is verified against its map on the way out, and whatever looks
wrong is a miss. It survives SIGKILL at any point; it never waits for the disk to be durable, since all it holds
can be fetched again.

The limit counts allocated disk space, data and maps, rounded up to pages, and holds at every instant: room is
made before a byte is written. Not counted: the filesystem's own metadata (an extent-tree page for each few hundred
pieces of a fragmented file), folders, `manifests` (the catalogue's, with a limit of their own), and a few KiB of
lock, format and probe.

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
from pathlib import Path

import numpy as np

from shardfs.cache.block_map import Content
from shardfs.cache.books import Books
from shardfs.cache.descriptors import DescriptorPool
from shardfs.cache.errands import THREADS, Errands
from shardfs.cache.file import CacheFile
from shardfs.cache.folder import CacheFolder, Medium
from shardfs.cache.health import DiskHealthOptions
from shardfs.cache.ledger import Ledger
from shardfs.cache.lending import Lending
from shardfs.cache.room import Room
from shardfs.cache.scan import scan
from shardfs.cache.shared import Counters, DiskCacheStatistics, Shared
from shardfs.cache.stored import StoredFile
from shardfs.cache.table import Table
from shardfs.cache.trouble import Trouble
from shardfs.cache.under_way import UnderWay
from shardfs.core.eviction import EvictionOrder, Granule
from shardfs.errors import CacheError

GRANULE_BYTES = 4 * 1024 * 1024
"""What is evicted at a time; more for limits above 256 GiB, so that the order of eviction stays small in memory."""

CLOSE_SECONDS = 5.0
"""How long `close` waits for the disk."""

_GRANULES_MAX = 65536
_PROVEN_SHARE = 0.75

_log = logging.getLogger(__name__)


class DiskCache:
    """The one owner of a cache folder. Thread-safe."""

    def __init__(
        self,
        folder: CacheFolder,
        medium: Medium,
        *,
        limit_bytes: int,
        clock: Callable[[], float],
        threads: int,
        health: DiskHealthOptions = DiskHealthOptions(),
    ) -> None:
        self.manifests = folder.manifests
        self._folder = folder
        self._medium = medium
        under_way = UnderWay(clock)
        self._pool = DescriptorPool(under_way)
        self._counters = Counters()
        trouble = Trouble(folder, self._counters, under_way, clock=clock, options=health)
        self._health, self._troubled = trouble.health, trouble.troubled
        order = EvictionOrder(proven_bytes_max=int(limit_bytes * _PROVEN_SHARE))
        self._books = Books(limit_bytes, order, clock=clock)
        self._lending = Lending(self._books, in_use=self._in_use)
        self._ledger = Ledger(self._books, self._lending)
        self._errands = Errands(threads)
        self._table = Table(self._ledger, self._errands, stored=self._stored, make=self._make, troubled=self._troubled)
        self._room = Room(self._books, self._lending, free=self._free, emptied=self._table.emptied)
        self._shared = Shared(
            books=self._books,
            ledger=self._ledger,
            errands=self._errands,
            lending=self._lending,
            room=self._room,
            health=self._health,
            counters=self._counters,
            probe=trouble.probe,
            troubled=self._troubled,
        )

    @classmethod
    def open(
        cls,
        folder: Path,
        *,
        limit_bytes: int,
        clock: Callable[[], float] = time.monotonic,
        threads: int = THREADS,
        health: DiskHealthOptions = DiskHealthOptions(),
    ) -> "DiskCache":
        """Lock the folder (made if need be), bring what lies there in order, and fit it into the limit.

        `threads` open and close files; with 0 whoever asks for that does it, and waits for the disk.
        Raises CacheError: owned by another process (the message names it), not ours, not writable.
        """
        claimed = CacheFolder.claim(folder)
        try:
            cache = cls(claimed, claimed.medium(), limit_bytes=limit_bytes, clock=clock, threads=threads, health=health)
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

        At once and never failing. What is on disk may take a moment to come (`CacheFile.settled`); a content that
        cannot be stored, or a map that cannot be read, is a file without blocks.
        """
        return self._table.open(content)

    def present_bytes(self, content: Content) -> int:
        """Bytes of a content that are there, whether it is open or not; to a page when it is not. No IO."""
        file = self._table.get(content)
        if file is None or self._health.bypassed:
            return 0
        if file.stored.presence.words is not None:
            return file.present_bytes()
        return min(content.size, self._ledger.charged_bytes(file.number, file.stored.granules))

    @property
    def lends(self) -> bool:
        """Whether files can be lent here at all: the kernel says who has a file open."""
        return self._medium.leases

    def statistics(self) -> DiskCacheStatistics:
        counters = self._counters
        return DiskCacheStatistics(
            used_bytes=self._books.used_bytes,
            limit_bytes=self._books.limit_bytes,
            files=len(self._table),
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

    def settle(self) -> None:
        """Wait until every file that is open has its map, and the others are put away."""
        self._errands.wait()

    def check(self) -> None:
        """The invariants, for tests."""
        self._books.check()

    def close(self) -> None:
        """Wait for running reads and writes, note when files were last used, let the next owner in.

        What is lent stays with whoever has it; the next owner finds out by itself that it is in use. A disk that hangs
        is left alone after `CLOSE_SECONDS`; then the folder stays ours for as long as the process lives.
        """
        if not self._errands.threads_max:
            self._finish()
            return
        closing = threading.Thread(target=self._finish, name="cache close", daemon=True)
        closing.start()
        closing.join(CLOSE_SECONDS)
        if closing.is_alive():
            _log.warning("cache folder %s: the disk does not answer", self._folder.path)

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

    def _make(self, number: int, stored: StoredFile, settle: Callable[[CacheFile], None]) -> CacheFile:
        return CacheFile(number, stored, self._shared, settle)

    def _finish(self) -> None:
        self._ledger.close()
        self._errands.wait()
        self._errands.close()
        for file in self._table:
            if self._lending.kept(file.number):
                file.stored.used_ns = time.time_ns()
            self._table.note_use(file)
        self._pool.close()
        self._folder.release()

    # ----------------------------------------------------------------------------------------------------- disk

    def _free(self, granule: Granule) -> bool:
        file = self._table[granule[0]]
        try:
            file.stored.evict(granule[1])
        except OSError as error:
            self._troubled(error, "write_errors")
            return False
        return True

    def _in_use(self, number: int) -> bool:
        """Whether anybody has the file open; when that cannot be known, somebody has."""
        try:
            return self._table[number].stored.in_use()
        except OSError as error:
            self._troubled(error, "read_errors")
            return True

    def _restore(self) -> None:
        """Take over what lies in the folder, oldest first, and evict what does not fit."""
        for found in scan(self._folder, self._stored):
            file = self._table.enter(found.stored)
            doubtful = found.whole and self._medium.leases  # an earlier daemon may have lent it: it may still be mapped
            self._ledger.restore(file.number, file.content.map_charge, doubtful=doubtful)
            for granule in np.flatnonzero(found.charges):
                self._ledger.restore_granule((file.number, int(granule)), int(found.charges[granule]))
        self._room.make(0)
