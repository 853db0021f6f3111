"""Blocks of a chunk from whichever copy delivers them first, verified.

The best node is asked alone. If it fails, the next takes over at once and asks only for what is still missing. If it
falls silent for the hedge delay (no new verified block, at the start or in the middle), the next node is asked as
well, into other memory; the first of the two to verify a block goes on and the other is cancelled, so that a late or
lying answer can never touch memory that readers already see. When no node is left the round is repeated with jittered
pauses until the caller's deadline, unless every node has said for certain that it has no good copy.

Choreography as in "happy eyeballs" (RFC 8305; trio's open_tcp_stream), with stall detection instead of a head start.
"""

from collections import deque
from collections.abc import Callable
from dataclasses import dataclass, field

import trio

from shardfs.cache.memory import Slot, SlotPool
from shardfs.core.backoff import backoff
from shardfs.core.choice import Candidate, ask_order
from shardfs.core.hedge import HedgeBudget, HedgeOptions, hedge_delay
from shardfs.core.placement import Placement
from shardfs.errors import NoCopy, ShardfsError, Unavailable
from shardfs.fetch.attempt import Attempt, definitive
from shardfs.fetch.fill import Fill
from shardfs.obs.reading import ReadMetrics
from shardfs.store.fleet import Fleet

ROUND_PAUSE_FIRST_SECONDS = 0.02
ROUND_PAUSE_MAX_SECONDS = 0.4


@dataclass(slots=True)
class Report:
    """Why a fetch has not succeeded yet: the last failure of each node asked."""

    failures: dict[str, ShardfsError] = field(default_factory=dict)

    def error(self, fill: Fill, what: str) -> NoCopy:
        reasons = "; ".join(str(failure) for failure in self.failures.values()) or "no node answered in time"
        return NoCopy(f"chunk {fill.place.digest.hex()[:16]}: {what} ({reasons})")


@dataclass(frozen=True, slots=True)
class _Tools:
    """What every round works with."""

    fleet: Fleet
    pool: SlotPool
    metrics: ReadMetrics
    hedge: HedgeOptions
    budget: HedgeBudget


class Racer:
    """Fetches blocks from the fleet. Given: the collaborators. Changing: the hedge budget and the breaker."""

    def __init__(
        self,
        fleet: Fleet,
        placement: Placement,
        pool: SlotPool,
        *,
        metrics: ReadMetrics,
        chance: Callable[[], float],
        hedge: HedgeOptions = HedgeOptions(),
    ) -> None:
        self._fleet = fleet
        self._placement = placement
        self._chance = chance
        self._tools = _Tools(fleet, pool, metrics, hedge, HedgeBudget(hedge))
        self._broken = False

    async def fetch(self, fill: Fill, first: int, end: int, report: Report) -> None:
        """Make blocks [first, end) ready. NoCopy when no node has them, or at once while the breaker is open.

        Waits as long as a node may still come back: the caller sets the deadline and calls `break_off` when it passes.
        """
        wanted = fill.mask(first, end)
        tries = 0
        while True:
            order = self._order(fill)
            if self._broken and all(self._fleet[node].health.suspect for node in order):
                raise report.error(fill, "no node with a copy answers")
            self._broken = False
            await _Round(self._tools, fill, (first, end), order, report).run()
            if not wanted & ~fill.ready:
                return
            if len(report.failures) == len(order) and all(map(definitive, report.failures.values())):
                raise report.error(fill, "no node has a good copy")
            tries += 1
            await trio.sleep(backoff(tries, ROUND_PAUSE_FIRST_SECONDS, ROUND_PAUSE_MAX_SECONDS, self._chance()))

    def break_off(self) -> None:
        """A whole deadline passed without an answer: fail fast until a node is well again."""
        self._broken = True

    def _order(self, fill: Fill) -> list[str]:
        now = trio.current_time()
        candidates = []
        for rank, node in enumerate(self._placement.ranking(fill.place.digest)):
            store = self._fleet[node.id]
            latency = store.health.expected_latency(now)
            owner = rank < self._placement.replicas
            candidates.append(Candidate(node.id, owner, store.health.suspect, store.inflight_bytes, latency))
        return ask_order(candidates, self._chance())


class _Round:
    """Every node of `order` asked at most once: one leads, and while it is silent one rival runs beside it."""

    def __init__(self, tools: _Tools, fill: Fill, blocks: tuple[int, int], order: list[str], report: Report) -> None:
        self._tools = tools
        self._fill = fill
        self._first, self._end = blocks
        self._queue = deque(tools.fleet[node] for node in order)
        self._report = report
        self._bell = trio.Event()
        self._lead: Attempt | None = None
        self._rival: Attempt | None = None

    async def run(self) -> None:
        """Until the blocks are ready or no node is left to ask."""
        async with trio.open_nursery() as nursery:
            try:
                self._lead = self._start(nursery)
                while self._lead is not None and not self._lead.done:
                    if self._lead.failure is not None:
                        await self._replace(self._lead, nursery)
                    elif not await self._listen(self._lead):
                        await self._hedge_against(self._lead, nursery)
                    elif self._rival is not None:
                        await self._judge(self._lead, self._rival)
            finally:
                # Not one more byte may land in the scratch slots that are given back.
                with trio.CancelScope(shield=True):
                    await self._drop(self._rival)
                    await self._drop(self._lead)

    async def _listen(self, lead: Attempt) -> bool:
        """Wait for news of an attempt; False when the lead has been silent for the hedge delay."""
        delay = float("inf")
        if self._rival is None and self._queue and self._queue[0].available:
            delay = hedge_delay(lead.store.health.latency_p95(), self._tools.hedge)
        with trio.move_on_at(lead.progress_at + delay):
            await self._bell.wait()
        if self._bell.is_set():
            self._bell = trio.Event()
            return True
        # Most progress does not ring, it only puts off the end of the delay.
        return trio.current_time() < lead.progress_at + delay

    async def _hedge_against(self, lead: Attempt, nursery: trio.Nursery) -> None:
        """The lead is silent: ask the next node as well, or instead where there is no memory for both."""
        if not self._tools.budget.spend():
            lead.progress_at = trio.current_time()
            return
        self._tools.metrics.hedges.labels(lead.store.node).inc()
        slot = self._tools.pool.try_acquire()
        if slot is not None:
            self._rival = self._start(nursery, slot)
            assert self._rival is not None, "the lead is not done and the queue is not empty"
        else:
            await lead.stop()
            self._note_late(lead)

    async def _judge(self, lead: Attempt, rival: Attempt) -> None:
        """The first of the two to verify a block goes on alone."""
        if lead.progress_at > rival.started_at or lead.done:
            await self._drop(rival)
            self._rival = None
        elif rival.failure is not None:
            self._report.failures[rival.store.node] = rival.failure
            await self._drop(rival)
            self._rival = None
        elif rival.verified:
            await lead.stop()
            if lead.failure is None:
                self._note_late(lead)

    def _note_late(self, lead: Attempt) -> None:
        reason = f"silent for {trio.current_time() - lead.progress_at:.2f} s"
        lead.store.late(reason)
        lead.failure = Unavailable(lead.store.node, reason)

    async def _replace(self, lead: Attempt, nursery: trio.Nursery) -> None:
        """The lead has failed: its rival takes over, else the next node in the queue."""
        assert lead.failure is not None
        self._report.failures[lead.store.node] = lead.failure
        await self._drop(lead)
        self._lead = self._rival
        self._rival = None
        if self._lead is None:
            self._lead = self._start(nursery)
        elif self._lead.failure is None:
            self._lead.publish()

    def _start(self, nursery: trio.Nursery, scratch: Slot | None = None) -> Attempt | None:
        if not self._queue:
            return None
        missing = self._fill.mask(self._first, self._end) & ~self._fill.ready
        if not missing:
            return None
        first = (missing & -missing).bit_length() - 1
        attempt = Attempt(
            self._queue.popleft(),
            self._fill,
            (first, self._end),
            scratch=scratch,
            ring=self._ring,
            metrics=self._tools.metrics,
        )
        self._tools.budget.earn()
        nursery.start_soon(attempt.run)
        return attempt

    def _ring(self) -> None:
        self._bell.set()

    async def _drop(self, attempt: Attempt | None) -> None:
        if attempt is None:
            return
        await attempt.stop()
        if attempt.scratch is not None:
            self._tools.pool.release(attempt.scratch)
            attempt.scratch = None
