"""One round of the race for a chunk's blocks: one lead, and while it is silent or trickles, one rival beside it.

See `shardfs.fetch.race` for the whole, and `shardfs.fetch.hedging` for when a node is no longer waited for alone. A
late or lying answer can never touch memory that readers already see: the rival's blocks land in scratch memory until it
has become the lead.
"""

from collections import deque

import trio

from shardfs.cache.memory import Slot
from shardfs.errors import Corrupt, Unavailable
from shardfs.fetch.attempt import Attempt
from shardfs.fetch.fill import Fill
from shardfs.fetch.hedging import Hedging
from shardfs.fetch.report import Report
from shardfs.store.watched import WatchedStore

LOOK_AGAIN_SECONDS = 0.05
CLEAR_LEAD_BLOCKS = 2


class Round:
    """One lead, and while it is silent one rival beside it; every node of `order` in turn.

    The lead's verified blocks become readable as they come, the rival's are held back in scratch memory until it has
    become the lead. All state changes in `_step`, which either changes something or waits; attempts only set their
    own fields and ring the bell, and a bell rung while nobody listens is heard at the next `_listen`.
    """

    def __init__(
        self,
        hedging: Hedging,
        fill: Fill,
        blocks: tuple[int, int],
        order: list[WatchedStore],
        report: Report,
        patience_seconds: float,
    ) -> None:
        self.stalled = False
        self._hedging = hedging
        self._fill = fill
        self._first, self._end = blocks
        self._queue = deque(order)
        self._stumbled: list[WatchedStore] = []
        self._report = report
        self._patience = patience_seconds
        self._bell = trio.Event()
        self._lead: Attempt | None = None
        self._rival: Attempt | None = None
        self._lead_verified_before = 0
        self._quiet_since = 0.0
        self._paid_for: tuple[Attempt, float] | None = None

    async def run(self) -> None:
        """Until the blocks are ready, no node is left to ask, or nothing came for longer than the patience."""
        async with trio.open_nursery() as nursery:
            try:
                self._lead = self._start(nursery)
                while self._lead is not None and not self._lead.done:
                    await self._step(self._lead, self._rival, nursery)
            finally:
                # Not one more byte may land in the scratch slots that are given back.
                with trio.CancelScope(shield=True):
                    for attempt in (self._rival, self._lead):
                        await self._drop(attempt)
                self._note_unfinished()

    async def _step(self, lead: Attempt, rival: Attempt | None, nursery: trio.Nursery) -> None:
        if lead.failure is not None:
            await self._replace(lead, nursery)
        elif rival is None:
            await self._watch(lead, nursery)
        elif rival.failure is not None:
            self._note(rival)
            await self._drop(rival)
            self._rival = None
        elif rival.verified > lead.verified - self._lead_verified_before:
            await self._give_up(lead)
        elif lead.verified - self._lead_verified_before >= rival.verified + CLEAR_LEAD_BLOCKS:
            await self._drop(rival)
            self._rival = None
            self._queue.appendleft(rival.store)
        else:
            await self._watch_both(lead, rival)

    async def _watch(self, lead: Attempt, nursery: trio.Nursery) -> None:
        """Wait for news of a lead that runs alone; bring in a rival when it is silent."""
        other = self._candidate()
        if await self._listen(self._alone_until(lead, other)):
            return
        if trio.current_time() < self._alone_until(lead, other):
            return  # most progress does not ring, it only puts off the end of the wait
        if not self._missing():
            # It has sent everything and does not come to an end: nobody needs to wait for that.
            await self._drop(lead)
            self._lead = None
        elif other is None:
            await self._stall(lead)
        else:
            await self._hedge(lead, other, nursery)

    def _alone_until(self, lead: Attempt, other: WatchedStore | None) -> float:
        if other is None:
            return lead.progress_at + self._patience
        return self._hedging.alone_until(lead, other, self._fill, self._quiet_since)

    async def _watch_both(self, lead: Attempt, rival: Attempt) -> None:
        """Wait until one of the two gets ahead; make room for a third node when both are silent."""
        other = self._candidate()
        if other is None:
            until = max(lead.progress_at, rival.progress_at) + self._patience
        else:
            until = self._hedging.both_until(lead, rival)
        if await self._listen(until):
            return
        if other is None:
            await self._stall(lead, rival)
        else:
            await self._give_up(lead)

    async def _listen(self, until: float) -> bool:
        """Wait for the bell; False when `until` has come without it."""
        if not self._bell.is_set():
            look_again = trio.current_time() + LOOK_AGAIN_SECONDS if self._queue or self._stumbled else until
            with trio.move_on_at(min(until, look_again)):
                await self._bell.wait()
        if self._bell.is_set():
            self._bell = trio.Event()
            return True
        return trio.current_time() < until

    def _candidate(self) -> WatchedStore | None:
        """The next node to ask beside a silent one: not yet asked and well, or well again."""
        for stores in (self._queue, self._stumbled):
            for store in stores:
                if store.available:
                    return store
        return None

    async def _hedge(self, lead: Attempt, other: WatchedStore, nursery: trio.Nursery) -> None:
        """The lead is silent: ask another node as well, or instead where there is no memory for both."""
        paid = self._paid_for == (lead, lead.progress_at)
        # A node known to be in trouble is left without asking the budget: that is no speculation.
        if lead.server.available and not paid and not self._hedging.budget_for(lead, other).spend():
            self._quiet_since = trio.current_time()
            return
        self._paid_for = (lead, lead.progress_at)
        self._hedging.metrics.hedges.labels(lead.server.node).inc()
        (self._queue if other in self._queue else self._stumbled).remove(other)
        self._queue.appendleft(other)
        slot = self._hedging.pool.try_acquire()
        if slot is None:
            await self._give_up(lead)
            return
        self._rival = self._start(nursery, slot)
        if self._rival is None:
            self._hedging.pool.release(slot)
            return
        self._lead_verified_before = lead.verified
        lead.loud = self._rival.loud = True

    async def _give_up(self, attempt: Attempt) -> None:
        """Stop an attempt that was too slow, unless it comes to an end by itself in that moment."""
        now = trio.current_time()
        silence = now - attempt.progress_at
        await attempt.stop()
        if not attempt.done and attempt.failure is None:
            if silence < self._hedging.delay(attempt):  # it is alive, and its pace is known from now on
                reason = f"slow, {now - attempt.started_at:.2f} s"
            else:
                reason = f"silent for {silence:.2f} s"
                attempt.server.late(reason)
            attempt.failure = Unavailable(attempt.server.node, reason)

    async def _stall(self, *attempts: Attempt) -> None:
        """Nothing comes and nobody is left to ask: the next round orders all nodes anew."""
        self.stalled = True
        self._queue.clear()
        self._stumbled.clear()
        for attempt in attempts:
            await self._give_up(attempt)

    async def _replace(self, lead: Attempt, nursery: trio.Nursery) -> None:
        """The lead has failed: its rival takes over, else the next node in the queue."""
        self._note(lead)
        await self._drop(lead)
        self._lead, self._rival = self._rival, None
        if self._lead is None:
            self._lead = self._start(nursery)
        else:
            self._lead.publish()

    def _note(self, attempt: Attempt) -> None:
        assert attempt.failure is not None
        node = attempt.store.node
        self._report.note(node, attempt.failure)
        if not self.stalled and not self._report.hopeless(node) and not isinstance(attempt.failure, Corrupt):
            self._stumbled.append(attempt.store)

    def _note_unfinished(self) -> None:
        """Cut off by the caller's deadline: the report says whom it was waiting for."""
        if self._lead is None or self._lead.done:
            return
        for attempt in (self._lead, self._rival):
            if attempt is not None and attempt.failure is None and not attempt.done:
                silence = trio.current_time() - attempt.progress_at
                reason = f"silent for {silence:.2f} s"
                self._report.note(attempt.store.node, Unavailable(attempt.server.node, reason))
                if silence > self._hedging.delay(attempt):
                    attempt.server.late(reason)

    def _missing(self) -> int:
        return self._fill.mask(self._first, self._end) & ~self._fill.ready

    def _start(self, nursery: trio.Nursery, scratch: Slot | None = None) -> Attempt | None:
        missing = self._missing()
        if not self._queue or not missing:
            return None
        first = (missing & -missing).bit_length() - 1
        attempt = Attempt(
            self._queue.popleft(),
            self._fill,
            (first, self._end),
            scratch=scratch,
            ring=self._ring,
            metrics=self._hedging.metrics,
            fleet=self._hedging.fleet,
        )
        self._hedging.budget.earn()
        self._hedging.far_budget.earn()
        nursery.start_soon(attempt.run)
        return attempt

    def _ring(self) -> None:
        self._bell.set()

    async def _drop(self, attempt: Attempt | None) -> None:
        if attempt is None:
            return
        await attempt.stop()
        if attempt.scratch is not None:
            self._hedging.pool.release(attempt.scratch)
            attempt.scratch = None
