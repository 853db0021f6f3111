"""What the cache knows of its files, and the one lock that every read and write of it meets.

Rules, all kept under that lock, which is never held over IO:

- used bytes = what granules hold + what maps hold. Nothing is added that would bring them above the limit: room is
  taken here before a byte is written, and given back only after the disk has given it back (`room`). They can be above
  it from the start, when files that programs still map are more than a limit that was lowered.
- A granule has any number of readers; one writer; or one evictor and nobody else. Readers do not wait: an evicting
  granule is a miss. Writers wait for a writer or evictor of their granule. An evictor waits for nobody, so nobody waits
  for ever (`ledger`).
- A file that is out has readers only. Writers and evictors come to it after the kernel said that nobody has it open;
  while they are there, or while it is asked, it is not lent (`lending`).
- A file that nobody holds and that has no granule left is unknown here.
"""

import threading
from collections.abc import Callable

from shardfs.cache.accounts import Accounts
from shardfs.cache.guards import Guards
from shardfs.cache.loans import Loans
from shardfs.core.eviction import EvictionOrder


class Books:
    """`changed` guards all the rest, and is notified of what others may wait for."""

    def __init__(self, limit_bytes: int, order: EvictionOrder, *, clock: Callable[[], float]) -> None:
        self.limit_bytes = limit_bytes
        self.clock = clock
        self.changed = threading.Condition(threading.Lock())
        self.order = order
        self.accounts = Accounts(order)
        self.guards = Guards()
        self.loans = Loans()
        self.closed = False

    @property
    def used_bytes(self) -> int:
        return self.accounts.used_bytes

    def check(self) -> None:
        """The invariants, for tests."""
        with self.changed:
            assert self.used_bytes <= self.limit_bytes
            self.accounts.check()
            self.guards.check()
            self.loans.check()
