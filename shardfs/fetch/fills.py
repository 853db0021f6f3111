"""The runs that are in memory, in the order in which their memory goes to others.

    spent     all of it was read: the kernel's page cache has it now, and so has the disk cache soon
    consumed  some of it was read
    unread    fetched ahead of its reader

Each of the three least recently used first. What is being read or filled stays.
"""

from collections import OrderedDict

from shardfs.cache.memory import Slot, SlotPool
from shardfs.core.chunk import ChunkHeader
from shardfs.core.digest import Digest
from shardfs.fetch.fill import ChunkPlace, Fill, Pointers, RunKey

HEADERS_MAX = 4096


class Fills:
    """Guarded by the event loop; nothing has a checkpoint. `unread_share`: of memory, for what is fetched ahead."""

    def __init__(self, pool: SlotPool, *, unread_share: float) -> None:
        self._pool = pool
        self._unread_max = max(1, min(int(pool.slots * unread_share), pool.slots - 1))
        self._consumed: OrderedDict[RunKey, Fill] = OrderedDict()
        self._unread: OrderedDict[RunKey, Fill] = OrderedDict()
        self._spent: OrderedDict[RunKey, Fill] = OrderedDict()
        self._headers: OrderedDict[Digest, tuple[ChunkHeader, Pointers]] = OrderedDict()
        pool.on_pressure(self._evict, self._evict_spent)

    def all(self) -> list[Fill]:
        """Each of them."""
        return [*self._spent.values(), *self._consumed.values(), *self._unread.values()]

    def find(self, place: ChunkPlace) -> Fill | None:
        key = place.key
        return self._consumed.get(key) or self._unread.get(key) or self._spent.get(key)

    def enter(self, place: ChunkPlace, slot: Slot) -> Fill:
        """A new one, in that memory; it counts as unread until it is used."""
        fill = Fill(place, slot, self._pool.room, *self._headers.get(place.digest, ()))
        self._unread[place.key] = fill
        return fill

    def spare_slot(self) -> Slot | None:
        """Memory for something not asked for yet: never at the cost of what waits for its reader, or is being read."""
        if len(self._unread) >= self._unread_max:
            return None
        if not (self._pool.free or self._evict_spent() or self._evict_older_consumed()):
            return None
        return self._pool.try_acquire()

    def use(self, fill: Fill) -> None:
        """Somebody asks for some of it."""
        key = fill.place.key
        if self._spent.pop(key, None) is not None:
            fill.read_bytes = 0
            self._consumed[key] = fill
        elif self._unread.pop(key, None) is not None:
            self._consumed[key] = fill
        else:
            self._consumed.move_to_end(key)

    def take(self, fill: Fill, start: int, length: int) -> memoryview:
        """Plain bytes [start, start + length), which are ready and count as read."""
        fill.read_bytes += length
        if fill.read_bytes >= fill.place.length and fill.complete and fill.place.key in self._consumed:
            self._spent[fill.place.key] = self._consumed.pop(fill.place.key)
        return fill.plain(start, length)

    def unwanted(self, place: ChunkPlace) -> None:
        """Nobody is expected to ask for what was fetched ahead there: its memory is the next to go."""
        fill = self._unread.pop(place.key, None)
        if fill is not None:
            self._consumed[place.key] = fill
            self._consumed.move_to_end(place.key, last=False)

    def unpin(self, fill: Fill) -> None:
        """One reader, job or write fewer needs this memory."""
        fill.pins -= 1
        if not fill.pins:
            self._pool.wake()

    # ---------------------------------------------------------------------------------------------------- inner

    def _evict(self) -> bool:
        """Give back the slot least worth keeping; False when all are in use."""
        return any(self._evict_from(fills) for fills in (self._spent, self._consumed, self._unread))

    def _evict_spent(self) -> bool:
        return self._evict_from(self._spent)

    def _evict_older_consumed(self) -> bool:
        return len(self._consumed) > 1 and self._evict_from(self._consumed)

    def _evict_from(self, fills: OrderedDict[RunKey, Fill]) -> bool:
        for key, fill in fills.items():
            if not fill.pins and not fill.pending:
                del fills[key]
                self._keep_header(fill)
                for slot in (*fill.left, fill.slot):
                    self._pool.release(slot)
                return True
        return False

    def _keep_header(self, fill: Fill) -> None:
        """Small random reads come back to a chunk whose memory is gone; its header is worth keeping."""
        if fill.header is not None:
            self._headers[fill.place.digest] = fill.header, fill.pointers
            self._headers.move_to_end(fill.place.digest)
            if len(self._headers) > HEADERS_MAX:
                self._headers.popitem(last=False)
