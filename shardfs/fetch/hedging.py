"""When a round stops waiting for one node alone, and what asking another takes: budget and memory.

A node is left for another when it is silent for longer than is usual for it, or when its bytes come so slowly that it
may as well be silent. `shardfs.fetch.round` asks here until when it is to wait, and does what follows: nothing here
waits, starts or stops anything. The delay and the budget themselves are in `shardfs.core.hedge`.

Moments are those of trio's clock, in seconds.
"""

from dataclasses import dataclass
from math import inf

import trio

from shardfs.cache.memory import SlotPool
from shardfs.core.hedge import HedgeBudget, HedgeOptions, hedge_delay
from shardfs.fetch.attempt import Attempt
from shardfs.fetch.fill import Fill
from shardfs.obs.reading import ReadMetrics
from shardfs.store.fleet import Fleet
from shardfs.store.watched import WatchedStore

SLOW_FACTOR = 4.0
SLOW_SECONDS_MIN = 0.1


@dataclass(frozen=True, slots=True)
class Hedging:
    """What every round goes by and works with. `far_budget` is for hedges to nodes that are farther than the lead."""

    fleet: Fleet
    pool: SlotPool
    metrics: ReadMetrics
    options: HedgeOptions
    budget: HedgeBudget
    far_budget: HedgeBudget

    def delay(self, attempt: Attempt) -> float:
        """How long an attempt may be silent before that is unusual for whoever serves it, in seconds."""
        return hedge_delay(self.fleet.hedge_latency(attempt.server), self.options)

    def alone_until(self, lead: Attempt, other: WatchedStore, fill: Fill, quiet_since: float) -> float:
        """When `other`, which is well, is asked beside a lead that runs alone.

        At `quiet_since` there was no budget for that, so the delay begins there anew.
        """
        # Is the lead known to be in trouble, then it is left as soon as that is no mere hiccup.
        delay = self.delay(lead) if lead.server.available else self.options.delay_min_seconds
        silent = max(lead.progress_at, quiet_since) + delay
        return min(silent, max(self._slow_at(lead, other, fill), quiet_since + delay))

    def both_until(self, lead: Attempt, rival: Attempt) -> float:
        """When the lead makes room for a third node, because neither it nor its rival gets ahead."""
        latency = self.fleet.hedge_latency
        # Twice what is usual for the lead: a cluster that is slow as a whole must not chase from node to node.
        usual = max(hedge_delay(latency(lead.server), self.options), lead.server.health.latency_p95() or 0.0)
        quiet = max(lead.progress_at, rival.progress_at) + hedge_delay(latency(rival.server), self.options)
        return max(quiet, lead.progress_at + 2 * usual)

    def budget_for(self, lead: Attempt, other: WatchedStore) -> HedgeBudget:
        """What asking `other` beside the lead is paid from."""
        far = other.read_priority > lead.server.read_priority
        return self.far_budget if far else self.budget

    def _slow_at(self, lead: Attempt, other: WatchedStore, fill: Fill) -> float:
        """When a lead that trickles has taken so much longer than `other` would that it may as well be silent."""
        server: WatchedStore | None = other
        if fill.pointers:  # where others have one, so may `other`: only its own says whose pace counts
            pointer = fill.pointers.get(other.node)
            server = None if pointer is None else self.fleet.get(pointer.node)
        if server is None or server is lead.server:
            return inf
        usual = server.health.expected_seconds(trio.current_time(), lead.size_bytes)
        return inf if usual is None else lead.started_at + max(SLOW_SECONDS_MIN, SLOW_FACTOR * usual)
