"""What each file of the cache takes, and how many hold it.

A map is charged in full from the first block on, though it is sparse: 3 bytes in 100 000, and never too little.

Pure bookkeeping, guarded by the lock of `books`; `room` sees to the limit.
"""

from collections import Counter
from dataclasses import dataclass

from shardfs.core.eviction import EvictionOrder, Granule


@dataclass(slots=True)
class _Account:
    map_bytes: int = 0
    granules: int = 0
    holds: int = 0  # open handles, loans, and operations that run


class Accounts:
    """Not thread-safe. Bytes are of disk."""

    def __init__(self, order: EvictionOrder) -> None:
        self._order = order
        self._accounts: dict[int, _Account] = {}
        self._map_bytes = 0

    @property
    def used_bytes(self) -> int:
        return self._order.charged_bytes + self._map_bytes

    def hold(self, file: int) -> None:
        """The file becomes known, if it was not, and stays so until it is neither held nor holds anything."""
        self._accounts.setdefault(file, _Account()).holds += 1

    def unhold(self, file: int) -> bool:
        """True when nobody holds the file any more. Once too often changes nothing."""
        account = self._accounts.get(file)
        if account is None or not account.holds:
            return False
        account.holds -= 1
        return account.holds == 0

    def held(self, file: int) -> bool:
        account = self._accounts.get(file)
        return account is not None and account.holds > 0

    def empty(self, file: int) -> bool:
        """Whether the file is known, nobody holds it and no granule of it has anything."""
        account = self._accounts.get(file)
        return account is not None and not account.holds and not account.granules

    def restore(self, file: int, map_bytes: int) -> None:
        self._accounts[file] = _Account(map_bytes)
        self._map_bytes += map_bytes

    def forget(self, file: int) -> None:
        self._map_bytes -= self._accounts.pop(file).map_bytes

    def release_map(self, file: int) -> None:
        """The map was deleted."""
        account = self._accounts[file]
        self._map_bytes -= account.map_bytes
        account.map_bytes = 0

    def map_needed(self, file: int, map_bytes: int) -> int:
        """What is still to be charged for the file's map of `map_bytes`."""
        return 0 if self._accounts[file].map_bytes else map_bytes

    def charge_map(self, file: int, map_bytes: int) -> None:
        needed = self.map_needed(file, map_bytes)
        self._accounts[file].map_bytes += needed
        self._map_bytes += needed

    def store(self, granule: Granule, charge: int, now: float) -> None:
        if not charge:
            return
        if granule not in self._order:
            self._accounts[granule[0]].granules += 1
        self._order.stored(granule, charge, now)

    def release(self, granule: Granule, charge: int) -> None:
        self._order.released(granule, charge)
        if granule not in self._order:
            self._accounts[granule[0]].granules -= 1

    def check(self) -> None:
        """The invariants, for tests."""
        assert self._map_bytes == sum(account.map_bytes for account in self._accounts.values())
        counts = Counter(granule[0] for granule in self._order)
        assert counts == Counter({f: a.granules for f, a in self._accounts.items() if a.granules})
        assert self._order.charged_bytes == sum(map(self._order.charge, self._order))
