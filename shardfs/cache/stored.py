"""One file of the cache on disk: a sparse data file and its map. Mechanics only, no policy.

The bytes are the business of `data_file`, what memory knows of the blocks that of `presence`. Here both and the map are
kept in step: in which order they change, so that a crash in between leaves an absent block, and what is left when
somebody deleted a file.

Who may touch which blocks, and whether there is room, was settled before (`books`): a granule has one writer
or one evictor at a time. Methods that touch the disk raise OSError.
"""

import os
import threading
import time
from collections.abc import Callable
from contextlib import AbstractContextManager, suppress
from pathlib import Path

import numpy as np

from shardfs.cache import holes
from shardfs.cache.block_map import HEADER_BYTES, WORD_BYTES, Content, Words, block_words, encode_header, load_words
from shardfs.cache.data_file import DataFile
from shardfs.cache.descriptors import DescriptorPool
from shardfs.cache.folder import CacheFolder, Medium
from shardfs.cache.presence import Presence

_MTIME_SECONDS = 60


class StoredFile:
    """Presence, bytes and disk space of one file content. Nothing may be written while `presence.words` is None."""

    def __init__(
        self, content: Content, folder: CacheFolder, *, granule_blocks: int, pool: DescriptorPool, medium: Medium
    ) -> None:
        self.content = content
        self.granule_blocks = granule_blocks if medium.punches else max(1, content.blocks)
        self.data_path = folder.file(content.digest, "data")
        self.map_path = folder.file(content.digest, "map")
        self._pool = pool
        self._data = DataFile(self.data_path, content.size, pool=pool, medium=medium)
        self.punches = medium.punches  # whether single blocks can be given back
        self.leases = medium.leases  # whether the kernel says who has a file open
        self.presence = Presence(content)
        # Guards loading, unloading, creating and evicting, each of which must see the map as a whole. What is of one
        # granule is otherwise changed only by its one writer. Taken before the lock of the table.
        self._lock = threading.Lock()
        self._on_disk = False
        self.used_ns = 0
        self._mtime_ns = 0

    # ------------------------------------------------------------------------------------------ open and closed

    @property
    def granules(self) -> int:
        return -(-self.content.blocks // self.granule_blocks)

    @property
    def on_disk(self) -> bool:
        """Whether there are files of it."""
        return self._on_disk

    def adopt(self, used_ns: int, inode: int) -> None:
        """Both files were found on disk, last used then; `inode` is that of the data."""
        self._on_disk = True
        self._data.inode = inode
        self.used_ns = self._mtime_ns = used_ns

    def load(self) -> None:
        """Bring the map into memory. OSError, InvalidFormat, MemoryError; then there are no words."""
        with self._lock:
            if self.presence.words is not None or not self.content.cacheable:
                return
            if self._on_disk:
                with self._pool.use(self.map_path) as fd:
                    words = load_words(fd, self.content)
            else:
                words = np.zeros(self.content.blocks, dtype=np.uint64)
            self.presence.bring(words)

    def unload(self, table: AbstractContextManager[object], unused: Callable[[], bool]) -> None:
        """Give the memory of the map back, unless it knows of space that the disk's map does not mention.

        `unused` is asked under the lock `table`, and must be quick.
        """
        with self._lock:
            if not self.presence.on_disk_too:
                return
            with table:
                if unused():
                    self.presence.drop()

    def remove(self) -> None:
        """Delete both files. No call of the disk when there are none, so that the event loop may ask for it."""
        if not self._on_disk:
            return
        with self._pool.noted():
            for path in (self.map_path, self.data_path):
                self._pool.forget(path)
                path.unlink(missing_ok=True)
        self._on_disk = False

    # ---------------------------------------------------------------------------------------------------- bytes

    def read(self, first: int, into: memoryview) -> None:
        """Read plain bytes from block `first` on. What the file does not have is left as it was: verify all."""
        try:
            self._data.read(first * self.content.block_size, into)
        except FileNotFoundError:
            self._vanished()

    def open_apart(self) -> int | None:
        """A descriptor of the data for reading that nobody else shares; None when it is not the file known here."""
        return self._data.open_apart()

    def in_use(self) -> bool:
        """Whether anybody, outside or in a read of ours, has the data open or mapped."""
        return self._data.in_use()

    def write(self, first: int, data: memoryview) -> None:
        """Store whole blocks, data before words."""
        epoch = self.presence.verified.epoch
        words = block_words(data, self.content.block_size)
        self._create()
        try:
            self._data.write(first * self.content.block_size, data)
            with self._pool.use(self.map_path) as fd:
                holes.write_full(fd, HEADER_BYTES + WORD_BYTES * first, _raw(words))
                # Said by us, not left to the kernel: its clock for mtimes ticks every few milliseconds, behind the
                # one that other files' uses were noted by, and their order after a restart would be chance.
                self.used_ns = self._mtime_ns = time.time_ns()
                os.utime(fd, ns=(self.used_ns, self.used_ns))
        except FileNotFoundError:
            self._vanished()
            raise
        self.presence.add(first, words, epoch=epoch)

    # ---------------------------------------------------------------------------------------------------- space

    def clear(self, first: int, end: int) -> None:
        """Make blocks absent, in memory and on disk. They keep their space."""
        self.presence.remove(first, end)
        if not self._on_disk:
            return
        try:
            with self._pool.use(self.map_path) as fd:
                holes.write_full(fd, HEADER_BYTES + WORD_BYTES * first, memoryview(bytes(WORD_BYTES * (end - first))))
                # Losing blocks is no use: after a restart the file must not look recent.
                os.utime(fd, ns=(self.used_ns, self.used_ns))
        except FileNotFoundError:
            self._vanished()

    def free(self, first: int, end: int) -> int:
        """Give the space of absent blocks back; return the bytes that were allocated.

        Without hole punching only the whole file can be freed, which then is one granule.
        """
        if self._on_disk and not self.punches and end - first < self.content.blocks:
            return 0
        if self._on_disk:
            try:
                block_size = self.content.block_size
                self._data.free(first * block_size, min(end * block_size, self.content.size))
            except FileNotFoundError:
                self._vanished()
        return self.presence.free(first, end)

    def evict(self, granule: int) -> None:
        """Clear the words of a granule, then free its space."""
        first = granule * self.granule_blocks
        end = min(first + self.granule_blocks, self.content.blocks)
        with self._lock:
            self.clear(first, end)
            self.free(first, end)

    def save_use(self, *, at_once: bool = False) -> None:
        """Note the last use as the map's mtime, which orders files after a restart; now and then is enough."""
        late = self.used_ns - self._mtime_ns
        if self._on_disk and late > (0 if at_once else _MTIME_SECONDS * 1_000_000_000):
            self._mtime_ns = self.used_ns
            with self._pool.use(self.map_path) as fd:
                os.utime(fd, ns=(self.used_ns, self.used_ns))

    # ---------------------------------------------------------------------------------------------------- inner

    def _vanished(self) -> None:
        """Somebody deleted a file of ours: what is left is worth nothing, the next write begins anew."""
        self.remove()
        self.presence.remove_all()

    def _create(self) -> None:
        """Make both files unless they are there. The map is made last: data without a map is an orphan."""
        with self._lock:
            if self._on_disk:
                return
            with self._pool.noted():
                self.data_path.parent.mkdir(mode=0o700, exist_ok=True, parents=True)
                try:
                    self._data.inode = _make(self.data_path, b"", self.content.size)
                    _make(self.map_path, encode_header(self.content), self.content.map_bytes)
                except OSError:
                    with suppress(OSError):  # what stays is swept at the next start
                        self.map_path.unlink(missing_ok=True)
                        self.data_path.unlink(missing_ok=True)
                    raise
            self._on_disk = True


def _make(path: Path, head: bytes, size: int) -> int:
    """Make a file that begins with `head`; return its inode."""
    fd = os.open(path, os.O_RDWR | os.O_CREAT | os.O_TRUNC | os.O_NOFOLLOW | os.O_CLOEXEC, 0o600)
    try:
        holes.write_full(fd, 0, memoryview(head))
        os.ftruncate(fd, size)
        return os.fstat(fd).st_ino
    finally:
        os.close(fd)


def _raw(words: Words) -> memoryview:
    """Words as they stand in the map."""
    return words.astype("<u8", copy=False).view(np.uint8).data
