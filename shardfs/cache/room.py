"""Room for what is to be stored: taken before a byte is written, by evicting what is to go first.

What is lent, and what somebody else still has open, is passed over. When nothing but that is left there is no room.
"""

from collections.abc import Callable

from shardfs.cache.books import Books
from shardfs.cache.lending import Lending
from shardfs.core.eviction import Granule

_ENOUGH: Granule = (-1, -1)
"""No granule: there is room already."""


class Room:
    """Thread-safe; the rules are those of `books`.

    `free` clears and frees one granule on disk, and answers False when the disk refused; `emptied` is told of a
    file that nobody holds and that just lost its last granule. Both are called without the lock and raise nothing.
    """

    def __init__(
        self, books: Books, lending: Lending, *, free: Callable[[Granule], bool], emptied: Callable[[int], None]
    ) -> None:
        self.evicted_bytes = 0
        self._books = books
        self._lending = lending
        self._free = free
        self._emptied = emptied

    def reserve(self, granule: Granule, size: int, map_bytes: int) -> bool:
        """Take `size` bytes, and the file's map if it has none yet, evicting others as needed.

        The caller writes the granule. False when there is not so much that may go, or the disk refuses to free.
        """
        books, file = self._books, granule[0]
        self._lending.recall_due()
        while True:
            with books.changed:
                victim = self._victim(lambda: size + books.accounts.map_needed(file, map_bytes))
                if victim is None:
                    return False
                if victim == _ENOUGH:
                    books.accounts.charge_map(file, map_bytes)
                    books.accounts.store(granule, size, books.clock())
                    return True
            if not self._evict(victim):
                return False

    def release(self, granule: Granule, size: int) -> None:
        """The writer of a granule has given `size` bytes back to the disk."""
        if size:
            with self._books.changed:
                self._books.accounts.release(granule, size)
                self._books.changed.notify_all()

    def make(self, size: int) -> None:
        """Evict until `size` more bytes would fit, or nothing more may go."""
        self._lending.recall_due()
        while True:
            with self._books.changed:
                victim = self._victim(lambda: size)
            if victim is None or victim == _ENOUGH or not self._evict(victim):
                return

    def evict_oldest(self) -> None:
        """Evict one granule though there is room by our own count: the disk says that it is full."""
        self._lending.recall_due()
        before = self.evicted_bytes
        while self.evicted_bytes == before:
            with self._books.changed:
                victim = self._claim_oldest()
            if victim is None or not self._evict(victim):
                return

    def evict(self, granule: Granule) -> int:
        """Evict this granule unless somebody is using it, or its file is out; return the bytes that came free."""
        books = self._books
        with books.changed:
            if granule not in books.order or self._busy(granule) or books.loans.out(granule[0]):
                return 0
            books.guards.begin_evict(granule)
            charge = books.order.charge(granule)
        return charge if self._evict(granule) else 0

    # ---------------------------------------------------------------------------------------------------- inner
    # The lock is held in all of these but `_evict`.

    def _busy(self, granule: Granule) -> bool:
        return self._books.guards.busy(granule) or self._books.loans.asking(granule[0])

    def _claim_oldest(self) -> Granule | None:
        """Claim the next granule to go, and with it the question whether its file is in use, if there is doubt."""
        books = self._books
        victim = books.order.victim(self._busy, books.loans.kept)
        if victim is not None:
            books.guards.begin_evict(victim)
            if books.loans.out(victim[0]):
                books.loans.ask(victim[0])
        return victim

    def _victim(self, need: Callable[[], int]) -> Granule | None:
        """`_ENOUGH`; or a granule claimed for eviction; or None when there is not so much that may go.

        When all are in use, waits for the evictions and questions under way.
        """
        books = self._books
        while books.used_bytes + need() > books.limit_bytes:
            if need() > books.limit_bytes:
                return None
            victim = self._claim_oldest()
            if victim is not None:
                return victim
            if not books.guards.evicting and not books.loans.anybody_asks:
                return None
            books.changed.wait()
        return _ENOUGH

    def _evict(self, granule: Granule) -> bool:
        """Free a claimed granule, or find that its file is in use: then it is passed over. False when refused."""
        books, file = self._books, granule[0]
        with books.changed:
            doubtful = books.loans.asking(file)
        free = not doubtful or self._lending.ask(file)
        done = free and self._free(granule)
        with books.changed:
            books.guards.end_evict(granule)
            if done:
                charge = books.order.charge(granule)
                books.accounts.release(granule, charge)
                self.evicted_bytes += charge
            elif free:
                books.order.used(granule, books.clock())  # not the next to be tried again
            empty = books.accounts.empty(file)
            books.changed.notify_all()
        if done and empty:
            self._emptied(file)
        return done or not free
