"""The daemon's memory for model bytes: a fixed number of equal slots in one mapping.

All bytes read or prefetched live in a slot, so `budget_bytes` is the bound that `--memory` promises; whoever finds no
slot waits or goes without. Slots are reused, never freed: first touch of fresh pages is the dearest part of a read on
virtual machines. Therefore a mount has some of them touched before anybody reads (`touch`), in huge pages where there
are any. The plain bytes of a chunk begin on a page boundary (`room` bytes into the slot), with the chunk's
header right before them, so that header and blocks arrive with one receive and the cache file can be written with
O_DIRECT.
"""

import mmap
from collections import deque
from collections.abc import Callable
from contextlib import suppress

import numpy as np
import trio

PAGE_BYTES = 4096
HUGE_PAGE_BYTES = 2 * 1024 * 1024


class Slot:
    """One chunk's worth of memory: `view` is header room plus plain bytes. It is free when it has no `users`."""

    __slots__ = ("index", "users", "view")

    def __init__(self, index: int, view: memoryview) -> None:
        self.index = index
        self.view = view
        self.users = 1  # counted from the first `acquire` on: whoever releases it goes, and then it is free


class SlotPool:
    """Hands out slots. Guarded by the event loop: no method but `acquire` has a checkpoint."""

    def __init__(self, budget_bytes: int, *, plain_bytes: int, header_bytes: int) -> None:
        self.plain_bytes = plain_bytes
        self.room = -(-header_bytes // PAGE_BYTES) * PAGE_BYTES
        self.slot_bytes = self.room + -(-plain_bytes // PAGE_BYTES) * PAGE_BYTES
        self.slots = budget_bytes // self.slot_bytes
        if self.slots < 2:
            raise ValueError(f"a memory of {budget_bytes} bytes holds fewer than two chunks of {plain_bytes}")
        self._arena = mmap.mmap(-1, self.slots * self.slot_bytes, flags=mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS)
        whole = memoryview(self._arena)
        self._fresh = deque(Slot(i, whole[i * self.slot_bytes : (i + 1) * self.slot_bytes]) for i in range(self.slots))
        self._free: list[Slot] = []
        self._waiting: deque[_Turn] = deque()
        self._evict: Callable[[], bool] = lambda: False
        self._evict_spent: Callable[[], bool] = lambda: False

    def on_pressure(self, evict: Callable[[], bool], evict_spent: Callable[[], bool] = lambda: False) -> None:
        """Both are asked to `release` one slot and say whether they did.

        `evict_spent` gives up only what is of no more use and is asked before fresh memory is touched; `evict` is
        asked when there is none left.
        """
        self._evict = evict
        self._evict_spent = evict_spent

    @property
    def free(self) -> int:
        return len(self._free) + len(self._fresh)

    async def touch(self, slots: int) -> None:
        """Touch the first `slots` slots, as far as nobody has taken them, one at a time in a thread.

        Only these may lie in huge pages, which spare the kernel the look-up of every 4 KiB: to find 2 MiB in one piece
        may take long, which is nothing for a reader to wait for. Readers take fresh slots from the other end.
        """
        with suppress(AttributeError, OSError):  # a system without huge pages, or without them in the wanted places
            size = -(-slots * self.slot_bytes // HUGE_PAGE_BYTES) * HUGE_PAGE_BYTES
            self._arena.madvise(mmap.MADV_HUGEPAGE, 0, min(size, len(self._arena)))
        while self._fresh and self._fresh[0].index < slots:
            slot = self._fresh.popleft()
            try:
                await trio.to_thread.run_sync(_fill_with_zeros, slot.view)
            finally:
                self.release(slot)

    def try_acquire(self) -> Slot | None:
        """A slot if there is a free or evictable one and nobody is waiting for it.

        Last used, first used again: its memory is touched, and perhaps still in the processor's cache.
        """
        if self._waiting:
            return None
        while not self._free and self._evict_spent():
            pass  # what was given up may have another user
        if self._free:
            return self._free.pop()
        if self._fresh:
            return self._fresh.pop()
        while not self._free and self._evict():
            pass
        return self._free.pop() if self._free else None

    async def acquire(self, *, nudge: Callable[[], None] = lambda: None, nudge_seconds: float = float("inf")) -> Slot:
        """A slot, in the order of asking. `nudge` is called each time that it has taken `nudge_seconds` longer."""
        slot = self.try_acquire()
        if slot is not None:
            return slot
        turn = _Turn()
        self._waiting.append(turn)
        try:
            while turn.slot is None:
                with trio.move_on_after(nudge_seconds):
                    await turn.ready.wait()
                if turn.slot is None:
                    nudge()
        except trio.Cancelled:
            if turn.slot is None:
                self._waiting.remove(turn)
            else:
                self.release(turn.slot)
            raise
        return turn.slot

    def share(self, slot: Slot) -> None:
        """A slot that somebody has gets one more user, who is to `release` it, too."""
        slot.users += 1

    def release(self, slot: Slot) -> None:
        """Give a slot back; whoever does may have no view of it that is still used."""
        if slot.users > 1:
            slot.users -= 1
        elif self._waiting:
            turn = self._waiting.popleft()
            turn.slot = slot
            turn.ready.set()
        else:
            self._free.append(slot)

    def wake(self) -> None:
        """Something became evictable: serve those who wait for it."""
        while self._waiting and self._evict():
            pass


def _fill_with_zeros(view: memoryview) -> None:
    """Without Python's lock, which a loop over the pages would hold."""
    np.frombuffer(view, dtype=np.uint8).fill(0)


class _Turn:
    __slots__ = ("ready", "slot")

    def __init__(self) -> None:
        self.ready = trio.Event()
        self.slot: Slot | None = None
