"""Who is at which granule: any number of readers; one writer; or one evictor and nobody else.

Pure bookkeeping, guarded by the lock of `books`; `ledger` waits.
"""

from collections import Counter

from shardfs.core.eviction import Granule


class Guards:
    """Not thread-safe. Each `begin` has one `end`."""

    def __init__(self) -> None:
        self._users: Counter[Granule] = Counter()  # readers and the writer of a granule
        self._writing: set[Granule] = set()
        self._evicting: set[Granule] = set()
        self._changing: Counter[int] = Counter()  # writers and evictors of a file

    @property
    def evicting(self) -> bool:
        return bool(self._evicting)

    @property
    def any(self) -> bool:
        return bool(self._users or self._evicting)

    def changing(self, file: int) -> bool:
        """Whether somebody writes or evicts a part of the file."""
        return file in self._changing

    def readable(self, granule: Granule) -> bool:
        return granule not in self._evicting

    def writable(self, granule: Granule) -> bool:
        return granule not in self._writing and granule not in self._evicting

    def busy(self, granule: Granule) -> bool:
        """Whether it may not be evicted."""
        return granule in self._users or granule in self._evicting

    def begin_read(self, granule: Granule) -> None:
        self._users[granule] += 1

    def end_read(self, granule: Granule) -> None:
        self._users[granule] -= 1
        if not self._users[granule]:
            del self._users[granule]

    def begin_write(self, granule: Granule) -> None:
        self.begin_read(granule)
        self._writing.add(granule)
        self._changing[granule[0]] += 1

    def end_write(self, granule: Granule) -> None:
        self.end_read(granule)
        self._writing.discard(granule)
        self._changed(granule[0])

    def begin_evict(self, granule: Granule) -> None:
        self._evicting.add(granule)
        self._changing[granule[0]] += 1

    def end_evict(self, granule: Granule) -> None:
        self._evicting.discard(granule)
        self._changed(granule[0])

    def check(self) -> None:
        """The invariants, for tests."""
        assert self._writing <= self._users.keys()
        assert not self._evicting & self._users.keys()
        assert self._changing == Counter(granule[0] for granule in (*self._writing, *self._evicting))

    def _changed(self, file: int) -> None:
        self._changing[file] -= 1
        if not self._changing[file]:
            del self._changing[file]
