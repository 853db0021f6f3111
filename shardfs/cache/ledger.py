"""Which files are known and held, and who is at which granule: `begin` and `end` around every read and write."""

from shardfs.cache.books import Books
from shardfs.cache.lending import Lending
from shardfs.core.eviction import Granule


class Ledger:
    """Thread-safe; the rules are those of `books`."""

    def __init__(self, books: Books, lending: Lending) -> None:
        self._books = books
        self._lending = lending

    # --------------------------------------------------------------------------------------------------- files

    def hold(self, file: int) -> None:
        """Somebody opens the file: it stays known."""
        with self._books.changed:
            self._books.accounts.hold(file)

    def unhold(self, file: int) -> bool:
        """The opposite of `hold`; True when nobody holds the file any more. Once too often changes nothing."""
        with self._books.changed:
            return self._books.accounts.unhold(file)

    def idle(self, file: int) -> bool:
        """Whether nobody holds the file."""
        with self._books.changed:
            return not self._books.accounts.held(file)

    def empty(self, file: int) -> bool:
        """Whether nobody holds the file and no granule of it has anything."""
        with self._books.changed:
            return self._books.accounts.empty(file)

    def removed(self, file: int) -> bool:
        """An empty file was deleted on disk. True when it is unknown now; False when somebody holds it again."""
        books = self._books
        with books.changed:
            gone = books.accounts.empty(file)
            if gone:
                books.accounts.forget(file)
            else:
                books.accounts.release_map(file)
            books.changed.notify_all()
            return gone

    @property
    def closed(self) -> bool:
        return self._books.closed

    def restore(self, file: int, map_bytes: int, *, doubtful: bool) -> None:
        """At the start: a file found on disk, `doubtful` when an earlier daemon may have lent it."""
        with self._books.changed:
            self._books.accounts.restore(file, map_bytes)
            if doubtful:
                self._books.loans.doubt(file)

    def restore_granule(self, granule: Granule, charge: int) -> None:
        """At the start: what a file found on disk holds, least recently used first."""
        with self._books.changed:
            self._books.accounts.store(granule, charge, self._books.clock())

    def granules(self, file: int, count: int) -> list[Granule]:
        """The granules of a file that hold something, in file order; `count` is how many there can be."""
        order = self._books.order
        with self._books.changed:
            if count > len(order):
                return sorted(granule for granule in order if granule[0] == file)
            return [(file, number) for number in range(count) if (file, number) in order]

    def charged_bytes(self, file: int, count: int) -> int:
        """Bytes of disk that a file of `count` granules takes, without its map."""
        order = self._books.order
        total = 0
        for granule in self.granules(file, count):
            with self._books.changed:
                total += order.charge(granule) if granule in order else 0
        return total

    def use_file(self, file: int, count: int) -> None:
        """All of a file of `count` granules becomes the most recent, in file order."""
        now = self._books.clock()
        for granule in self.granules(file, count):
            with self._books.changed:
                self._books.order.used(granule, now)

    # --------------------------------------------------------------------------------------------------- guards

    def begin_read(self, file: int, first: int, end: int) -> bool:
        """Keep granules [first, end) of a held file from eviction; False when one is being evicted."""
        books = self._books
        with books.changed:
            if books.closed or not books.accounts.held(file):
                return False
            granules = [(file, number) for number in range(first, end)]
            if not all(map(books.guards.readable, granules)):
                return False
            books.accounts.hold(file)
            for granule in granules:
                books.guards.begin_read(granule)
            return True

    def end_read(self, file: int, first: int, end: int, *, used: bool) -> None:
        """`used`: the bytes were good, so the granules count as recently used."""
        books = self._books
        now = books.clock()
        with books.changed:
            for number in range(first, end):
                books.guards.end_read((file, number))
                if used:
                    books.order.used((file, number), now)
            books.accounts.unhold(file)
            books.changed.notify_all()

    def begin_write(self, granule: Granule) -> bool:
        """Become the one writer of a granule of a held file, after waiting for whoever is there.

        False when the file is out.
        """
        books, file = self._books, granule[0]
        while self._lending.recall(file):  # again when it was lent while we waited
            with books.changed:
                while not books.guards.writable(granule):
                    books.changed.wait()
                if books.closed or not books.accounts.held(file):
                    return False
                if not books.loans.out(file):
                    books.accounts.hold(file)
                    books.guards.begin_write(granule)
                    return True
        return False

    def end_write(self, granule: Granule) -> None:
        books = self._books
        with books.changed:
            books.guards.end_write(granule)
            books.accounts.unhold(granule[0])
            books.changed.notify_all()

    def close(self) -> None:
        """Refuse what comes from now on and wait for what runs. What is lent stays so."""
        books = self._books
        with books.changed:
            books.closed = True
            books.changed.notify_all()
            while books.guards.any:
                books.changed.wait()
