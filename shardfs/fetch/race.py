"""Blocks of a chunk from whichever copy delivers them first, verified.

The best node is asked alone. If it fails, the next takes over at once and asks only for what is still missing. If it
falls silent for the hedge delay (no new verified block, at the start or in the middle), or trickles so that it takes
four times as long as the next node would, that one is asked as well, into other memory; whoever of the two gets ahead
goes on alone and the other is cancelled, so that a late or lying answer can never touch memory that readers already
see. If both stay silent the older one makes room for a third node. When nobody is left to ask, or nothing has come for
a while, the round is given up and the next begins after a jittered pause with the nodes ordered anew and twice the
patience, until the caller's deadline. A node that has no good copy is not asked again for this chunk, and one that a
whole deadline was wasted on not before it has answered somebody.

Choreography as in "happy eyeballs" (RFC 8305; trio's open_tcp_stream), with stall detection instead of a head start.
"""

from collections.abc import Callable

import trio

from shardfs.cache.memory import SlotPool
from shardfs.core.backoff import backoff
from shardfs.core.choice import CHUNK_BYTES, Candidate, ask_order
from shardfs.core.hedge import HedgeBudget, HedgeOptions
from shardfs.core.placement import Placement
from shardfs.errors import Unavailable
from shardfs.fetch.fill import Fill
from shardfs.fetch.hedging import Hedging
from shardfs.fetch.report import Report
from shardfs.fetch.round import Round
from shardfs.obs.reading import ReadMetrics
from shardfs.store.fleet import Fleet
from shardfs.store.watched import WatchedStore

ROUND_PAUSE_FIRST_SECONDS = 0.02
ROUND_PAUSE_MAX_SECONDS = 0.4
PATIENCE_FIRST_SECONDS = 1.0


class Racer:
    """Fetches blocks from the fleet. Given: the collaborators. Changing: the hedge budget."""

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
        self._hedging = Hedging(
            fleet,
            pool,
            metrics,
            hedge,
            budget=HedgeBudget(hedge.budget_share, hedge.budget_burst),
            far_budget=HedgeBudget(hedge.far_budget_share, hedge.far_budget_burst),
        )

    async def fetch(self, fill: Fill, first: int, end: int, report: Report) -> None:
        """Make blocks [first, end) ready. NoCopy when no node has them, or at once when all that may are given up.

        Waits as long as a node may still come back: the caller sets the deadline and calls `break_off` when it passes.
        """
        wanted = fill.mask(first, end)
        patience = PATIENCE_FIRST_SECONDS
        tries = 0
        while missing := wanted & ~fill.ready:
            order = self._order(fill, report)
            if not order:
                raise report.error(fill, "no node has a good copy")
            if tries:
                await trio.sleep(backoff(tries, ROUND_PAUSE_FIRST_SECONDS, ROUND_PAUSE_MAX_SECONDS, self._chance()))
            tries += 1
            a_round = Round(self._hedging, fill, (first, end), order, report, patience)
            await a_round.run()
            if wanted & ~fill.ready != missing:
                report.progressed()
                tries = 0
            if a_round.stalled:
                patience *= 2

    def break_off(self, fill: Fill) -> None:
        """A whole deadline passed without an answer: do not wait for these nodes again until they answer somebody."""
        for node in self._placement.ranking(fill.place.digest):
            self._fleet[node.id].health.give_up()

    def _order(self, fill: Fill, report: Report) -> list[WatchedStore]:
        """The nodes worth asking, best first."""
        now = trio.current_time()
        candidates = []
        for rank, node in enumerate(self._placement.ranking(fill.place.digest)):
            holder = self._fleet[node.id]
            server = self._server(fill, holder)
            if holder.health.given_up or server.health.given_up:
                ill = holder if holder.health.given_up else server
                report.failures.setdefault(node.id, Unavailable(ill.node, ill.health.reason))
            elif not report.hopeless(node.id):
                latency = server.health.expected_seconds(now, CHUNK_BYTES)
                owner = rank < self._placement.replicas
                suspect = holder.health.suspect or server.health.suspect
                candidates.append(
                    Candidate(node.id, owner, suspect, server.inflight_bytes, latency, server.read_priority)
                )
        return [self._fleet[node] for node in ask_order(candidates, self._chance())]

    def _server(self, fill: Fill, holder: WatchedStore) -> WatchedStore:
        """Who will deliver the bytes when `holder` is asked: where its pointer leads, if it is known to have one."""
        pointer = fill.pointers.get(holder.node)
        return holder if pointer is None else self._fleet.get(pointer.node) or holder
