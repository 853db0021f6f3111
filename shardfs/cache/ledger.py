"""How much room is used, who is at which granule, and which files are lent: the one lock that every read and write of
the cache meets.

Rules, all kept under that lock, which is never held over IO:

- used bytes = what granules hold + what maps hold, and never above the limit: room is taken here before a byte is
  written, and given back only after the disk has given it back.
- A granule has any number of readers; one writer; or one evictor and nobody else. Readers do not wait: an evicting
  granule is a miss. Writers wait for a writer or evictor of their granule. An evictor waits for nobody, so nobody waits
  for ever.
- A file that is out (`loans`) has readers only. Writers and evictors come to it after the kernel said that nobody has
  it open; while they are there, or while it is asked, it is not lent.
- A file that nobody holds and that has no granule left is unknown here.
"""

import threading
from collections.abc import Callable

from shardfs.cache.accounts import Accounts
from shardfs.cache.guards import Guards
from shardfs.cache.loans import Loans
from shardfs.core.eviction import EvictionOrder, Granule

_ENOUGH: Granule = (-1, -1)
"""No granule: there is room already."""


class Ledger:
    """Thread-safe.

    `free` clears and frees one granule on disk, and answers False when the disk refused; `emptied` is told of a
    file that nobody holds and that just lost its last granule; `in_use` asks the kernel whether anybody has a file
    open. All are called without the lock and raise nothing.
    """

    def __init__(
        self,
        limit_bytes: int,
        order: EvictionOrder,
        *,
        clock: Callable[[], float],
        free: Callable[[Granule], bool],
        emptied: Callable[[int], None],
        in_use: Callable[[int], bool],
    ) -> None:
        self.limit_bytes = limit_bytes
        self._clock = clock
        self._free = free
        self._emptied = emptied
        self._in_use = in_use
        self._changed = threading.Condition(threading.Lock())  # guards all below
        self._order = order
        self._accounts = Accounts(order)
        self._guards = Guards()
        self._loans = Loans()
        self._evicted_bytes = 0
        self._closed = False

    @property
    def closed(self) -> bool:
        return self._closed

    @property
    def used_bytes(self) -> int:
        return self._accounts.used_bytes

    @property
    def evicted_bytes(self) -> int:
        return self._evicted_bytes

    # --------------------------------------------------------------------------------------------------- files

    def hold(self, file: int) -> None:
        """Somebody opens the file: it stays known."""
        with self._changed:
            self._accounts.hold(file)

    def unhold(self, file: int) -> bool:
        """The opposite of `hold`; True when nobody holds the file any more. Once too often changes nothing."""
        with self._changed:
            return self._accounts.unhold(file)

    def idle(self, file: int) -> bool:
        """Whether nobody holds the file."""
        with self._changed:
            return not self._accounts.held(file)

    def forget_empty(self, file: int, remove: Callable[[], None]) -> bool:
        """Remove a file that nobody holds and that has no granule. The caller keeps others from opening it.

        `remove` deletes it on disk; its OSError comes out, and the file stays charged.
        """
        with self._changed:
            if not self._accounts.empty(file):
                return False
        remove()
        with self._changed:
            self._accounts.forget(file)
            self._loans.forget(file)
            self._changed.notify_all()
            return True

    def restore(self, file: int, map_bytes: int, *, doubtful: bool) -> None:
        """At the start: a file found on disk, `doubtful` when an earlier daemon may have lent it."""
        with self._changed:
            self._accounts.restore(file, map_bytes)
            if doubtful:
                self._loans.doubt(file)

    def restore_granule(self, granule: Granule, charge: int) -> None:
        """At the start: what a file found on disk holds, least recently used first."""
        with self._changed:
            self._accounts.store(granule, charge, self._clock())

    def granules(self, file: int, count: int) -> list[Granule]:
        """The granules of a file that hold something, in file order; `count` is how many there can be."""
        with self._changed:
            if count > len(self._order):
                return sorted(granule for granule in self._order if granule[0] == file)
            return [(file, number) for number in range(count) if (file, number) in self._order]

    def use_file(self, file: int, count: int) -> None:
        """All of a file of `count` granules becomes the most recent, in file order."""
        now = self._clock()
        for granule in self.granules(file, count):
            with self._changed:
                self._order.used(granule, now)

    # --------------------------------------------------------------------------------------------------- loans

    def lend(self, file: int, whole: Callable[[], bool]) -> bool:
        """Lend a held file that is `whole`, which is asked under the lock and must be quick.

        Until `give_back` it is held and nothing of it changes. False when somebody is changing it right now.
        """
        with self._changed:
            if self._closed or not self._accounts.held(file):
                return False
            if self._guards.changing(file) or self._loans.asking(file) or not whole():
                return False
            self._accounts.hold(file)
            self._loans.lend(file)
            return True

    def give_back(self, file: int) -> bool:
        """One loan less; True when it was the last. It stays held for one `unhold`, and out until `recall`."""
        with self._changed:
            return self._loans.give_back(file)

    def out(self, file: int) -> bool:
        """Whether the file is lent or may be open elsewhere, so that nothing of it changes for now."""
        with self._changed:
            return not self._closed and self._loans.out(file)

    def kept(self, file: int) -> bool:
        """Whether the file is lent, or was open elsewhere when last asked about."""
        with self._changed:
            return self._loans.kept(file)

    def recall(self, file: int) -> bool:
        """Whether the file may be changed again; asks the kernel if there is doubt."""
        with self._changed:
            while self._loans.asking(file):
                self._changed.wait()
            if not self._loans.out(file):
                return True
            if self._closed or self._loans.lent(file):
                return False
            self._loans.ask(file)
        return self._ask(file)

    # --------------------------------------------------------------------------------------------------- guards

    def begin_read(self, file: int, first: int, end: int) -> bool:
        """Keep granules [first, end) of a held file from eviction; False when one is being evicted."""
        with self._changed:
            if self._closed or not self._accounts.held(file):
                return False
            granules = [(file, number) for number in range(first, end)]
            if not all(map(self._guards.readable, granules)):
                return False
            self._accounts.hold(file)
            for granule in granules:
                self._guards.begin_read(granule)
            return True

    def end_read(self, file: int, first: int, end: int, *, used: bool) -> None:
        """`used`: the bytes were good, so the granules count as recently used."""
        now = self._clock()
        with self._changed:
            for number in range(first, end):
                self._guards.end_read((file, number))
                if used:
                    self._order.used((file, number), now)
            self._accounts.unhold(file)
            self._changed.notify_all()

    def begin_write(self, granule: Granule) -> bool:
        """Become the one writer of a granule of a held file, after waiting for whoever is there.

        False when the file is out.
        """
        while self.recall(granule[0]):
            with self._changed:
                while not self._guards.writable(granule):
                    self._changed.wait()
                if self._closed or not self._accounts.held(granule[0]):
                    return False
                if not self._loans.out(granule[0]):
                    self._accounts.hold(granule[0])
                    self._guards.begin_write(granule)
                    return True
        return False

    def end_write(self, granule: Granule) -> None:
        with self._changed:
            self._guards.end_write(granule)
            self._accounts.unhold(granule[0])
            self._changed.notify_all()

    # ----------------------------------------------------------------------------------------------------- room

    def reserve(self, granule: Granule, size: int, map_bytes: int) -> bool:
        """Take `size` bytes, and the file's map if it has none yet, evicting others as needed.

        The caller writes the granule. False when there is not so much that may go, or the disk refuses to free.
        """
        file = granule[0]
        self._ask_again()
        while True:
            with self._changed:
                victim = self._room(lambda: size + self._accounts.map_needed(file, map_bytes))
                if victim is None:
                    return False
                if victim == _ENOUGH:
                    self._accounts.charge_map(file, map_bytes)
                    self._accounts.store(granule, size, self._clock())
                    return True
            if not self._evict(victim):
                return False

    def make_room(self, size: int) -> None:
        """Evict until `size` more bytes would fit, or nothing more may go."""
        self._ask_again()
        while True:
            with self._changed:
                victim = self._room(lambda: size)
            if victim is None or victim == _ENOUGH or not self._evict(victim):
                return

    def evict_oldest(self) -> None:
        """Evict one granule though there is room by our own count: the disk says that it is full."""
        self._ask_again()
        before = self._evicted_bytes
        while self._evicted_bytes == before:
            with self._changed:
                victim = self._claim_oldest()
            if victim is None or not self._evict(victim):
                return

    def evict_granule(self, granule: Granule) -> int:
        """Evict this granule unless somebody is using it; return the bytes that came free."""
        with self._changed:
            if granule not in self._order or self._busy(granule) or self._loans.out(granule[0]):
                return 0
            self._guards.begin_evict(granule)
            charge = self._order.charge(granule)
        return charge if self._evict(granule) else 0

    def release(self, granule: Granule, size: int) -> None:
        """The writer of a granule has given `size` bytes back to the disk."""
        if size:
            with self._changed:
                self._accounts.release(granule, size)
                self._changed.notify_all()

    def close(self) -> None:
        """Refuse what comes from now on and wait for what runs. What is lent stays so."""
        with self._changed:
            self._closed = True
            self._changed.notify_all()
            while self._guards.any:
                self._changed.wait()

    def check(self) -> None:
        """The invariants, for tests."""
        with self._changed:
            assert self.used_bytes <= self.limit_bytes
            self._accounts.check()
            self._guards.check()
            self._loans.check()

    # ---------------------------------------------------------------------------------------------------- inner
    # The lock is held in these two.

    def _busy(self, granule: Granule) -> bool:
        return self._guards.busy(granule) or self._loans.asking(granule[0])

    def _claim_oldest(self) -> Granule | None:
        """Claim the next granule to go, and with it the question whether its file is in use, if there is doubt."""
        victim = self._order.victim(self._busy, self._loans.kept)
        if victim is not None:
            self._guards.begin_evict(victim)
            if self._loans.out(victim[0]):
                self._loans.ask(victim[0])
        return victim

    def _room(self, need: Callable[[], int]) -> Granule | None:
        """`_ENOUGH`; or a granule claimed for eviction; or None when there is not so much that may go.

        When all are in use, waits for the evictions under way.
        """
        while self.used_bytes + need() > self.limit_bytes:
            if need() > self.limit_bytes:
                return None
            victim = self._claim_oldest()
            if victim is not None:
                return victim
            if not self._guards.evicting and not self._loans.anybody_asks:
                return None
            self._changed.wait()
        return _ENOUGH

    # And not in these.

    def _evict(self, granule: Granule) -> bool:
        """Free a claimed granule, or find that its file is in use: then it will be passed over. False when refused."""
        file = granule[0]
        with self._changed:
            doubtful = self._loans.asking(file)
        if doubtful and not self._ask(file):
            with self._changed:
                self._guards.end_evict(granule)
                self._changed.notify_all()
            return True
        done = self._free(granule)
        with self._changed:
            self._guards.end_evict(granule)
            if done:
                charge = self._order.charge(granule)
                self._accounts.release(granule, charge)
                self._evicted_bytes += charge
            else:
                self._order.used(granule, self._clock())  # not the next to be tried again
            empty = self._accounts.empty(file)
            self._changed.notify_all()
        if empty:
            self._emptied(file)
        return done

    def _ask(self, file: int) -> bool:
        """The question was claimed: ask it. True when nobody has the file open."""
        in_use = True
        try:
            in_use = self._in_use(file)
        finally:
            now = self._clock()
            with self._changed:
                self._loans.answered(file, in_use=in_use, now=now)
                if not in_use:
                    self._order.resume(file, now)
                self._changed.notify_all()
        return not in_use

    def _ask_again(self) -> None:
        """Ask after a file that was in use when last asked about, if it is time for that."""
        with self._changed:
            file = None if self._closed else self._loans.due(self._clock())
            if file is None:
                return
            self._loans.ask(file)
        self._ask(file)
