"""When to ask a second node although the first has not failed, and how often at most.

Dean and Barroso, "The Tail at Scale", 2013: a hedge sent after the node's own high percentile cuts the tail for a few
percent of extra load; a budget keeps an overload from feeding itself.
"""

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class HedgeOptions:
    """Delay = `p95_factor` x the node's p95, within [min, max]; `max` before anything was measured.

    Hedges to nodes farther away (of a higher `read_priority`) than the one that is late have a budget of their own:
    their bytes may cost money. `..._share` of all requests in the long run, `..._burst` hedges saved up.
    """

    p95_factor: float = 3.0
    delay_min_seconds: float = 0.05
    delay_max_seconds: float = 0.25
    budget_share: float = 0.05
    budget_burst: float = 64.0
    far_budget_share: float = 0.01
    far_budget_burst: float = 16.0


def hedge_delay(p95_seconds: float | None, options: HedgeOptions = HedgeOptions()) -> float:
    """Seconds of silence after which the next node is asked as well."""
    if p95_seconds is None:
        return options.delay_max_seconds
    return min(options.delay_max_seconds, max(options.delay_min_seconds, options.p95_factor * p95_seconds))


class HedgeBudget:
    """A token bucket: each request earns `share`, each hedge costs 1, at most `burst` saved.

    The burst lets every fetch in flight leave a node that just hung; the share bounds hedges in the long run.
    """

    def __init__(self, share: float, burst: float) -> None:
        self._share = share
        self._burst = burst
        self._tokens = burst

    def earn(self) -> None:
        self._tokens = min(self._burst, self._tokens + self._share)

    def spend(self) -> bool:
        """Take one hedge out of the budget; False when there is none."""
        if self._tokens < 1:
            return False
        self._tokens -= 1
        return True
