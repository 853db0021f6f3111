"""Which files of the cache others read without asking us, and which may be read so for all we know.

A file is *lent* while at least one `Lent` of it is open. After that it is *doubtful*: programs that mapped it may go on
reading it. It stays so until the kernel said that nobody has it open; a whole file found in the folder at the start is
doubtful from the first, since an earlier daemon may have lent it. Lent or doubtful, it is *out*: not a byte of it may
change.

A doubtful file is asked about when its last `Lent` is closed, when somebody wants to write to it, and when it would be
its turn to go. When it turns out to be *in use* it is passed over when room is made, and asked about for that only
after `ASK_SECONDS`. Pure bookkeeping, guarded by the lock of `books`; `lending` asks.
"""

from collections import Counter, OrderedDict

ASK_SECONDS = 1.0


class Loans:
    """Not thread-safe. Files are numbers, times seconds of any monotonic clock."""

    def __init__(self) -> None:
        self._lent: Counter[int] = Counter()
        self._doubtful: set[int] = set()
        self._in_use: OrderedDict[int, float] = OrderedDict()  # some of the doubtful; when asked, longest ago first
        self._asking: set[int] = set()

    def lend(self, file: int) -> None:
        self._lent[file] += 1
        self._doubtful.add(file)
        self._in_use.pop(file, None)

    def give_back(self, file: int) -> bool:
        """True for the last one."""
        self._lent[file] -= 1
        if self._lent[file]:
            return False
        del self._lent[file]
        return True

    def doubt(self, file: int) -> None:
        """Somebody may have it open."""
        self._doubtful.add(file)

    def lent(self, file: int) -> bool:
        return file in self._lent

    def out(self, file: int) -> bool:
        """Whether nothing of the file may change."""
        return file in self._doubtful

    def kept(self, file: int) -> bool:
        """Whether the file is certainly, or was when last asked about, in use."""
        return file in self._lent or file in self._in_use

    @property
    def anybody_asks(self) -> bool:
        return bool(self._asking)

    def asking(self, file: int) -> bool:
        """Whether somebody is asking right now. A file that is asked about is not lent before the answer."""
        return file in self._asking

    def ask(self, file: int) -> None:
        self._asking.add(file)

    def answered(self, file: int, *, in_use: bool, now: float) -> None:
        self._asking.discard(file)
        self._in_use.pop(file, None)
        if in_use:
            self._in_use[file] = now
        else:
            self._doubtful.discard(file)

    def due(self, now: float) -> int | None:
        """The file in use that was asked about longest ago, if it may be asked about again."""
        file, asked = next(iter(self._in_use.items()), (None, now))
        return file if now - asked >= ASK_SECONDS and file not in self._asking else None

    def check(self) -> None:
        """The invariants, for tests."""
        assert self._lent.keys() <= self._doubtful
        assert self._in_use.keys() <= self._doubtful - self._lent.keys()
        assert not self._asking & self._lent.keys()
