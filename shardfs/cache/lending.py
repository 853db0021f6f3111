"""Lending files of the cache, and finding out when they may be changed again.

Between the last `Lent` and the first change lies a question to the kernel: the mount hears when a program closes a
file, but not of the maps that it keeps. Whoever asks claims the question, so that nobody lends the file or asks as well
meanwhile.
"""

from collections.abc import Callable

from shardfs.cache.books import Books


class Lending:
    """Thread-safe. `in_use` asks the kernel whether anybody has a file open; it is called without the lock and raises
    nothing."""

    def __init__(self, books: Books, *, in_use: Callable[[int], bool]) -> None:
        self._books = books
        self._in_use = in_use

    def lend(self, file: int, whole: Callable[[], bool]) -> bool:
        """Lend a held file that is `whole`, which is asked under the lock and must be quick.

        Until `give_back` it is held and nothing of it changes. False when somebody is changing it right now. Waits for
        the answer when the kernel is being asked about the file, as it is after each last `Lent` of it.
        """
        books = self._books
        with books.changed:
            while books.loans.asking(file):
                books.changed.wait()
            if books.closed or not books.accounts.held(file):
                return False
            if books.guards.changing(file) or not whole():
                return False
            books.accounts.hold(file)
            books.loans.lend(file)
            return True

    def give_back(self, file: int) -> bool:
        """One loan less; True when it was the last. It stays held for one `unhold`, and out until `recall`."""
        with self._books.changed:
            return self._books.loans.give_back(file)

    def out(self, file: int) -> bool:
        """Whether the file is lent or may be open elsewhere, so that nothing of it changes for now."""
        with self._books.changed:
            return not self._books.closed and self._books.loans.out(file)

    def kept(self, file: int) -> bool:
        """Whether the file is lent, or was open elsewhere when last asked about."""
        with self._books.changed:
            return self._books.loans.kept(file)

    def recall(self, file: int) -> bool:
        """Whether the file may be changed again; asks the kernel if there is doubt."""
        books = self._books
        with books.changed:
            while books.loans.asking(file):
                books.changed.wait()
            if not books.loans.out(file):
                return True
            if books.closed or books.loans.lent(file):
                return False
            books.loans.ask(file)
        return self.ask(file)

    def recall_due(self) -> None:
        """Ask after a file that was in use when last asked about, if it is time for that."""
        books = self._books
        with books.changed:
            file = None if books.closed else books.loans.due(books.clock())
            if file is None:
                return
            books.loans.ask(file)
        self.ask(file)

    def ask(self, file: int) -> bool:
        """Ask a question that was claimed. True when nobody has the file open."""
        books, in_use = self._books, True
        try:
            in_use = self._in_use(file)
        finally:
            with books.changed:
                books.loans.answered(file, in_use=in_use, now=books.clock())
                if not in_use:
                    books.order.resume(file, books.clock())
                books.changed.notify_all()
        return not in_use
