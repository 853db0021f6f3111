"""How much room is used, and who is at which granule: the one lock that every read and write of the cache meets.

Rules, all kept under that lock, which is never held over IO:

- used bytes = what granules hold + what maps hold, and never above the limit: room is taken here before a byte is
  written, and given back only after the disk has given it back.
- A granule has any number of readers; one writer; or one evictor and nobody else. Readers do not wait: an evicting
  granule is a miss. Writers wait for a writer or evictor of their granule. An evictor waits for nobody, so nobody waits
  for ever.
- A file that nobody holds and that has no granule left is unknown here.

A map is charged in full from the first block on, though it is sparse: 3 bytes in 100 000, and never too little.
"""

import threading
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass

from shardfs.core.eviction import EvictionOrder, Granule

_ENOUGH: Granule = (-1, -1)
"""No granule: there is room already."""


@dataclass(slots=True)
class _Account:
    map_bytes: int = 0
    granules: int = 0
    holds: int = 0  # open handles, and operations that run


class Ledger:
    """Thread-safe.

    `free` clears and frees one granule on disk, and answers False when the disk refused; `emptied` is told of a
    file that nobody holds and that just lost its last granule. Both are called without the lock and raise nothing.
    """

    def __init__(
        self,
        limit_bytes: int,
        order: EvictionOrder,
        *,
        clock: Callable[[], float],
        free: Callable[[Granule], bool],
        emptied: Callable[[int], None],
    ) -> None:
        self.limit_bytes = limit_bytes
        self._clock = clock
        self._free = free
        self._emptied = emptied
        self._changed = threading.Condition(threading.Lock())  # guards all below
        self._order = order
        self._accounts: dict[int, _Account] = {}
        self._users: Counter[Granule] = Counter()  # readers and the writer of a granule
        self._writing: set[Granule] = set()
        self._evicting: set[Granule] = set()
        self._map_bytes = 0
        self._evicted_bytes = 0
        self._closed = False

    @property
    def used_bytes(self) -> int:
        return self._order.charged_bytes + self._map_bytes

    @property
    def evicted_bytes(self) -> int:
        return self._evicted_bytes

    # --------------------------------------------------------------------------------------------------- files

    def hold(self, file: int) -> None:
        """Somebody opens the file: it stays known."""
        with self._changed:
            self._accounts.setdefault(file, _Account()).holds += 1

    def unhold(self, file: int) -> bool:
        """The opposite of `hold`; True when nobody holds the file any more. Once too often changes nothing."""
        with self._changed:
            account = self._accounts.get(file)
            return account is not None and account.holds > 0 and self._unhold(file)

    def idle(self, file: int) -> bool:
        """Whether nobody holds the file."""
        with self._changed:
            account = self._accounts.get(file)
            return account is None or account.holds == 0

    def forget_empty(self, file: int, remove: Callable[[], None]) -> bool:
        """Remove a file that nobody holds and that has no granule. The caller keeps others from opening it.

        `remove` deletes it on disk; its OSError comes out, and the file stays charged.
        """
        with self._changed:
            account = self._accounts.get(file)
            if account is None or account.holds or account.granules:
                return False
        remove()
        with self._changed:
            del self._accounts[file]
            self._map_bytes -= account.map_bytes
            self._changed.notify_all()
            return True

    def restore(self, file: int, map_bytes: int) -> None:
        """At the start: a file found on disk."""
        with self._changed:
            self._accounts[file] = _Account(map_bytes)
            self._map_bytes += map_bytes

    def restore_granule(self, granule: Granule, charge: int) -> None:
        """At the start: what a file found on disk holds, least recently used first."""
        with self._changed:
            self._store(granule, charge)

    # --------------------------------------------------------------------------------------------------- guards

    def begin_read(self, file: int, first: int, end: int) -> bool:
        """Keep granules [first, end) of a held file from eviction; False when one is being evicted."""
        with self._changed:
            account = self._accounts.get(file)
            if self._closed or account is None or account.holds == 0:
                return False
            granules = [(file, number) for number in range(first, end)]
            if any(granule in self._evicting for granule in granules):
                return False
            account.holds += 1
            for granule in granules:
                self._users[granule] += 1
            return True

    def end_read(self, file: int, first: int, end: int, *, used: bool) -> None:
        """`used`: the bytes were good, so the granules count as recently used."""
        now = self._clock()
        with self._changed:
            for number in range(first, end):
                self._leave((file, number))
                if used:
                    self._order.used((file, number), now)
            self._unhold(file)
            self._changed.notify_all()

    def begin_write(self, granule: Granule) -> bool:
        """Become the one writer of a granule of a held file, after waiting for whoever is there."""
        with self._changed:
            while granule in self._writing or granule in self._evicting:
                self._changed.wait()
            account = self._accounts.get(granule[0])
            if self._closed or account is None or account.holds == 0:
                return False
            account.holds += 1
            self._writing.add(granule)
            self._users[granule] += 1
            return True

    def end_write(self, granule: Granule) -> None:
        with self._changed:
            self._writing.discard(granule)
            self._leave(granule)
            self._unhold(granule[0])
            self._changed.notify_all()

    # ----------------------------------------------------------------------------------------------------- room

    def reserve(self, granule: Granule, size: int, map_bytes: int) -> bool:
        """Take `size` bytes, and the file's map if it has none yet, evicting others as needed.

        The caller writes the granule. False when there is not so much that may go, or the disk refuses to free.
        """
        account = self._accounts[granule[0]]
        while True:
            with self._changed:
                victim = self._room(lambda: size + (0 if account.map_bytes else map_bytes))
                if victim is None:
                    return False
                if victim == _ENOUGH:
                    if not account.map_bytes:
                        account.map_bytes = map_bytes
                        self._map_bytes += map_bytes
                    self._store(granule, size)
                    return True
            if not self._evict(victim):
                return False

    def make_room(self, size: int) -> None:
        """Evict until `size` more bytes would fit, or nothing more may go."""
        while True:
            with self._changed:
                victim = self._room(lambda: size)
            if victim is None or victim == _ENOUGH or not self._evict(victim):
                return

    def evict_oldest(self) -> bool:
        """Evict one granule though there is room by our own count: the disk says that it is full."""
        with self._changed:
            victim = self._order.victim(self._busy)
            if victim is None:
                return False
            self._evicting.add(victim)
        return self._evict(victim)

    def evict_granule(self, granule: Granule) -> int:
        """Evict this granule unless somebody is using it; return the bytes that came free."""
        with self._changed:
            if granule not in self._order or self._busy(granule):
                return 0
            self._evicting.add(granule)
            charge = self._order.charge(granule)
        return charge if self._evict(granule) else 0

    def release(self, granule: Granule, size: int) -> None:
        """The writer of a granule has given `size` bytes back to the disk."""
        if size:
            with self._changed:
                self._release(granule, size)
                self._changed.notify_all()

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

    def close(self) -> None:
        """Refuse what comes from now on and wait for what runs."""
        with self._changed:
            self._closed = True
            self._changed.notify_all()
            while self._users or self._evicting:
                self._changed.wait()

    def check(self) -> None:
        """The invariants, for tests."""
        with self._changed:
            assert self.used_bytes <= self.limit_bytes
            assert self._map_bytes == sum(account.map_bytes for account in self._accounts.values())
            counts = Counter(granule[0] for granule in self._order)
            assert counts == Counter({f: a.granules for f, a in self._accounts.items() if a.granules})
            assert self._order.charged_bytes == sum(map(self._order.charge, self._order))
            assert self._writing <= self._users.keys()
            assert not self._evicting & self._users.keys()

    # ---------------------------------------------------------------------------------------------------- inner
    # The lock is held in all of these but `_evict`.

    def _busy(self, granule: Granule) -> bool:
        return granule in self._users or granule in self._evicting

    def _leave(self, granule: Granule) -> None:
        self._users[granule] -= 1
        if not self._users[granule]:
            del self._users[granule]

    def _unhold(self, file: int) -> bool:
        account = self._accounts[file]
        account.holds -= 1
        return account.holds == 0

    def _store(self, granule: Granule, charge: int) -> None:
        if charge and granule not in self._order:
            self._accounts[granule[0]].granules += 1
        if charge:
            self._order.stored(granule, charge, self._clock())

    def _release(self, granule: Granule, size: int) -> None:
        self._order.released(granule, size)
        if granule not in self._order:
            self._accounts[granule[0]].granules -= 1

    def _room(self, need: Callable[[], int]) -> Granule | None:
        """`_ENOUGH`; or a granule claimed for eviction; or None when there is not so much that may go.

        When all are in use, waits for the evictions under way.
        """
        while self.used_bytes + need() > self.limit_bytes:
            if need() > self.limit_bytes:
                return None
            victim = self._order.victim(self._busy)
            if victim is not None:
                self._evicting.add(victim)
                return victim
            if not self._evicting:
                return None
            self._changed.wait()
        return _ENOUGH

    def _evict(self, granule: Granule) -> bool:
        done = self._free(granule)
        with self._changed:
            self._evicting.discard(granule)
            if done:
                charge = self._order.charge(granule)
                self._release(granule, charge)
                self._evicted_bytes += charge
            else:
                self._order.used(granule, self._clock())  # not the next to be tried again
            account = self._accounts[granule[0]]
            empty = account.holds == 0 and account.granules == 0
            self._changed.notify_all()
        if empty:
            self._emptied(granule[0])
        return done
