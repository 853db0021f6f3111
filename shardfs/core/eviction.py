"""Which cached granule goes first: two least-recently-used queues, newcomers before the proven.

A granule is a run of blocks of one file. It enters among the newcomers. When it is used again at least
`settle_seconds` after it came, it is proven: the several reads of one load do not count as usefulness, the
next load does. Newcomers go first, so one pass over a model larger than the whole cache pushes out other
newcomers and leaves alone what was loaded twice. The proven hold at most `proven_bytes_max`; beyond that
their oldest become newcomers again, so that what was useful once cannot stay for ever.

Limit, accepted: a model larger than the cache that is read from start to end again and again finds nothing
the second time, as with every order by recency.

What belongs to a file that has to be kept is put aside when it is met on the way to a victim, so that nobody walks past
it again, however much of it there is. It comes back, as the most recent, when the file need not be kept any longer.

Pure: time comes in as an argument, IO and locks are the caller's.
"""

from collections import OrderedDict
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import TypeAlias

Granule: TypeAlias = tuple[int, int]
"""File number and granule number within the file."""

SETTLE_SECONDS = 60.0


@dataclass(slots=True)
class _Item:
    charge: int
    since: float


class EvictionOrder:
    """The granules in the order in which they go. Not thread-safe.

    Memory: about 250 bytes for each granule.
    """

    def __init__(self, *, proven_bytes_max: int, settle_seconds: float = SETTLE_SECONDS) -> None:
        self._proven_bytes_max = proven_bytes_max
        self._settle_seconds = settle_seconds
        self._newcomers: OrderedDict[Granule, _Item] = OrderedDict()
        self._proven: OrderedDict[Granule, _Item] = OrderedDict()
        self._aside: dict[int, dict[Granule, _Item]] = {}  # by file
        self._aside_count = 0
        self.charged_bytes = 0
        self.proven_bytes = 0

    def __len__(self) -> int:
        return len(self._newcomers) + len(self._proven) + self._aside_count

    def __contains__(self, granule: Granule) -> bool:
        return granule in self._newcomers or granule in self._proven or self._is_aside(granule)

    def __iter__(self) -> Iterator[Granule]:
        """First to go first; at the end what has been put aside."""
        yield from self._newcomers
        yield from self._proven
        for aside in self._aside.values():
            yield from aside

    def charge(self, granule: Granule) -> int:
        """Bytes that the granule holds; 0 when it is not here."""
        item = self._newcomers.get(granule) or self._proven.get(granule) or self._aside.get(granule[0], {}).get(granule)
        return item.charge if item else 0

    def stored(self, granule: Granule, charge: int, now: float) -> None:
        """`charge` more bytes belong to the granule, which thereby is the most recent of its queue.

        Not for a file that is kept: nothing is put aside that may still grow or shrink.
        """
        self.charged_bytes += charge
        if granule in self._proven:
            self._proven[granule].charge += charge
            self._proven.move_to_end(granule)
            self.proven_bytes += charge
            self._demote(now)
        elif granule in self._newcomers:
            self._newcomers[granule].charge += charge
            self._newcomers.move_to_end(granule)
        else:
            self._newcomers[granule] = _Item(charge, now)

    def used(self, granule: Granule, now: float) -> None:
        """Somebody read it. A granule that is not here, or put aside, is ignored: it may just have gone."""
        if granule in self._proven:
            self._proven.move_to_end(granule)
            return
        item = self._newcomers.get(granule)
        if item is None:
            return
        if now - item.since < self._settle_seconds:
            self._newcomers.move_to_end(granule)
            return
        self._proven[granule] = self._newcomers.pop(granule)
        self.proven_bytes += item.charge
        self._demote(now)

    def released(self, granule: Granule, charge: int) -> None:
        """`charge` bytes of the granule are free again; with its last byte it leaves."""
        queue = self._proven if granule in self._proven else self._newcomers
        item = queue[granule]
        item.charge -= charge
        self.charged_bytes -= charge
        if queue is self._proven:
            self.proven_bytes -= charge
        if item.charge <= 0:
            del queue[granule]

    def victim(self, busy: Callable[[Granule], bool], kept: Callable[[int], bool]) -> Granule | None:
        """The first granule to go that nobody is using; None when all are in use.

        Removes nothing, but puts aside what it meets of files that are `kept`.
        """
        for queue in (self._newcomers, self._proven):
            met: list[Granule] = []
            found = None
            for granule in queue:
                if kept(granule[0]):
                    met.append(granule)
                elif not busy(granule):
                    found = granule
                    break
            for granule in met:
                self._put_aside(granule, queue)
            if found is not None:
                return found
        return None

    def resume(self, file: int, now: float) -> None:
        """The file need not be kept any longer: what was put aside of it has been in use until now."""
        aside = self._aside.pop(file, {})
        self._aside_count -= len(aside)
        for granule in sorted(aside):
            self._newcomers[granule] = aside[granule]
            self.used(granule, now)

    def _is_aside(self, granule: Granule) -> bool:
        return granule in self._aside.get(granule[0], {})

    def _put_aside(self, granule: Granule, queue: OrderedDict[Granule, _Item]) -> None:
        item = queue.pop(granule)
        if queue is self._proven:
            self.proven_bytes -= item.charge
        self._aside.setdefault(granule[0], {})[granule] = item
        self._aside_count += 1

    def _demote(self, now: float) -> None:
        while self.proven_bytes > self._proven_bytes_max and self._proven:
            granule, item = self._proven.popitem(last=False)
            self.proven_bytes -= item.charge
            item.since = now
            self._newcomers[granule] = item
