"""The files that the cache knows, and the coming and going of their maps.

A map is in memory while somebody holds the file, and a little longer; before it has come, every block is a miss.
Looking a file up never touches the disk. What does is left to the errands of that file: reading the map, noting the
last use, deleting what has become empty.
"""

import logging
import threading
from collections.abc import Callable, Iterator

from shardfs.cache.block_map import Content
from shardfs.cache.errands import Errands
from shardfs.cache.file import CacheFile
from shardfs.cache.ledger import Ledger
from shardfs.cache.stored import StoredFile
from shardfs.core.digest import Digest
from shardfs.errors import InvalidFormat

_log = logging.getLogger(__name__)


class Table:
    """Thread-safe. `make` gives a file its number; `troubled` counts an error of the disk."""

    def __init__(
        self,
        ledger: Ledger,
        errands: Errands,
        *,
        stored: Callable[[Content], StoredFile],
        make: Callable[[int, StoredFile, Callable[[CacheFile], None]], CacheFile],
        troubled: Callable[[OSError, str], None],
    ) -> None:
        self._ledger = ledger
        self._errands = errands
        self._stored = stored
        self._make = make
        self._troubled = troubled
        # Guards all below, and that a map goes only while nobody holds the file. Never held over IO; taken before the
        # lock of the books.
        self._lock = threading.Lock()
        self._files: dict[Digest, CacheFile] = {}
        self._numbers: dict[int, CacheFile] = {}
        self._next_number = 0

    def __len__(self) -> int:
        return len(self._files)

    def __iter__(self) -> Iterator[CacheFile]:
        with self._lock:
            return iter(list(self._files.values()))

    def __getitem__(self, number: int) -> CacheFile:
        return self._numbers[number]

    def get(self, content: Content) -> CacheFile | None:
        """The file of a content, if it is known and cut in just this way."""
        file = self._files.get(content.digest)
        return file if file is not None and file.content == content else None

    def enter(self, stored: StoredFile) -> CacheFile:
        """A file that was found in the folder."""
        with self._lock:
            return self._enter(stored)

    def open(self, content: Content) -> CacheFile:
        """The file of a content, held once more. Its map is there, or on its way (`CacheFile.settled`).

        The same content cut or measured in another way: the newer one stays, if nobody uses the older.
        """
        file = self._hold(content)
        if file is None:
            self._make_way(content)
            file = self._hold(content)
        if file is None:  # never entered in the table, so it has no blocks and gets none
            return self._make(-1, self._stored(content), self._settle)
        if file.stored.presence.words is None and content.cacheable:
            # Words are None only while nobody writes: what is not on disk now is not before we have been here.
            self._errands.do(file.number, file.settle, here=not file.stored.on_disk, once=True)
        return file

    def emptied(self, number: int) -> None:
        """A file that nobody holds has lost its last granule, by the caller, who is at the disk anyway."""
        file = self._numbers.get(number)
        if file is not None:
            self._errands.do(number, file.settle, here=True, once=True)

    # ---------------------------------------------------------------------------------------------------- inner

    def _enter(self, stored: StoredFile) -> CacheFile:
        file = self._make(self._next_number, stored, self._settle)
        self._next_number += 1
        self._files[stored.content.digest] = self._numbers[file.number] = file
        return file

    def _hold(self, content: Content) -> CacheFile | None:
        with self._lock:
            file = self._files.get(content.digest) or self._enter(self._stored(content))
            if file.content != content:
                return None
            self._ledger.hold(file.number)
            return file

    def _make_way(self, content: Content) -> None:
        found = self._files.get(content.digest)
        if found is not None and self._ledger.idle(found.number):
            self._errands.do(found.number, found.evict, once=True)
            self._errands.do(found.number, found.settle, once=True)

    def _settle(self, file: CacheFile) -> None:
        """Bring the map if somebody holds the file, else let go of it. An errand: nobody else does it to this file."""
        if not self._ledger.idle(file.number):
            self._load(file)
        elif not self._ledger.closed:  # else the folder may be somebody else's by now
            self.note_use(file)
            file.stored.unload(self._lock, lambda: self._ledger.idle(file.number))
            self._drop_if_empty(file)

    def _load(self, file: CacheFile) -> None:
        try:
            file.stored.load()
        except OSError as error:
            self._troubled(error, "read_errors")
        except (InvalidFormat, MemoryError) as error:
            _log.warning("cache file %s: %s", file.stored.map_path, error)

    def note_use(self, file: CacheFile) -> None:
        """On disk, for the order of files after a restart."""
        try:
            file.stored.save_use(at_once=True)
        except OSError as error:
            self._troubled(error, "write_errors")

    def _drop_if_empty(self, file: CacheFile) -> None:
        """Forget a file that nobody holds and that has nothing left, on disk too.

        Whoever opens it meanwhile finds no map, so writes nothing, and its errand comes after this one.
        """
        with self._lock:
            if not self._ledger.empty(file.number):
                return
            file.stored.presence.drop()
        try:
            file.stored.remove()
        except OSError as error:
            self._troubled(error, "write_errors")
            return
        with self._lock:
            if self._ledger.removed(file.number):
                del self._numbers[file.number]
                del self._files[file.content.digest]
