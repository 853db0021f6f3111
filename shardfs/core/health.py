"""What is known of one node: is it well, how quickly does it answer, when to ask again.

A node is *suspect* after one failure: 3FS found that waiting for a second one makes every reader pay twice. A suspect
gets no reads while others can serve, only probes with jittered backoff; one answered probe brings it back.

A node that delivers wrong bytes answers probes all the same, so strikes for corruption put it aside for a fixed time:
it is asked last, not never, because its copy of some other chunk may be the only good one.

A node that kept somebody waiting for a whole deadline is *given up*: nobody waits for it again until it has answered.

Mutable, but without clock and chance: both come in as arguments. Times are seconds on a monotonic clock.
"""

from collections import deque
from dataclasses import dataclass

from shardfs.core.backoff import backoff


@dataclass(frozen=True, slots=True)
class HealthOptions:
    """`latency_samples` bounds memory; `forget_seconds` is the half-life of an old latency."""

    latency_samples: int = 64
    forget_seconds: float = 5.0
    probe_first_seconds: float = 0.05
    probe_max_seconds: float = 1.0
    corrupt_strikes: int = 3
    quarantine_seconds: float = 60.0


class NodeHealth:
    """The state of one node. Changed only by the methods; the caller's event loop is the guard."""

    def __init__(self, options: HealthOptions = HealthOptions()) -> None:
        self.options = options
        self.suspect = False
        self.given_up = False
        self.reason = ""
        self.failures = 0
        self.corruptions = 0
        self.probe_at = 0.0
        self._unreachable = False
        self._streak = 0
        self._strikes = 0
        self._released_at = 0.0
        self._latencies: deque[float] = deque(maxlen=options.latency_samples)
        self._mean = 0.0
        self._measured_at = 0.0
        self._pace: float | None = None

    def answered(self, now: float, latency_seconds: float, *, pace: float | None = None) -> None:
        """The node delivered; the arguments are those of `measured`."""
        self.measured(now, latency_seconds, pace=pace)
        self.recovered(now)

    def measured(self, now: float, latency_seconds: float, *, pace: float | None = None) -> None:
        """How quickly the node was seen to answer, whether or not anybody waited for the end of it.

        `latency_seconds` from the request to its first useful byte. `pace`: seconds for each further byte, where
        enough came to tell.
        """
        expected = self.expected_latency(now)
        if pace is not None:
            known = pace if self._pace is None else self._decayed(self._pace, now)
            self._pace = known + (pace - known) / 8
        self._latencies.append(latency_seconds)
        self._mean = latency_seconds if expected is None else expected + (latency_seconds - expected) / 8
        self._measured_at = now

    def recovered(self, now: float) -> None:
        """The node answered (a probe, say): no longer suspect, unless it is put aside for wrong bytes."""
        self._unreachable = self.given_up = False
        self._streak = 0
        if now >= self._released_at:
            self.suspect, self.reason = False, ""
        else:
            self.probe_at = self._released_at

    def failed(self, now: float, reason: str, chance: float) -> None:
        """The node failed or was late. `chance` in [0, 1) spreads the probes of many clients."""
        self.failures += 1
        self._streak += 1
        self._unreachable = self.suspect = True
        self.reason = reason
        wait = backoff(self._streak, self.options.probe_first_seconds, self.options.probe_max_seconds, chance)
        self.probe_at = now + wait

    def corrupted(self, now: float, reason: str) -> None:
        """The node delivered wrong bytes. After `corrupt_strikes` of these it is put aside."""
        self._unreachable = self.given_up = False  # a wrong answer is an answer
        self.corruptions += 1
        self._strikes += 1
        if self._strikes >= self.options.corrupt_strikes:
            self._strikes = 0
            self._released_at = self.probe_at = now + self.options.quarantine_seconds
            self.suspect, self.reason = True, reason

    def give_up(self) -> None:
        """Somebody waited for a whole deadline. Means nothing unless the node is out of reach at present."""
        self.given_up = self._unreachable

    def expected_latency(self, now: float) -> float | None:
        """Seconds to the first byte, a moving mean that halves each `forget_seconds` without a sample.

        The decay makes a node that was slow once worth another try later. None before the first answer.
        """
        return self._decayed(self._mean, now) if self._latencies else None

    def expected_seconds(self, now: float, size_bytes: int) -> float | None:
        """Seconds for an answer of `size_bytes`: the latency, and the node's pace. None before the first answer.

        Latency alone would call a node quick that begins at once and then trickles. Decays to a quarter at most: a node
        that nobody asked for long is worth a try, not worth everything.
        """
        if not self._latencies:
            return None
        fresh = self._mean + (self._pace or 0.0) * size_bytes
        return max(fresh / 4, self._decayed(fresh, now))

    def _decayed(self, value: float, now: float) -> float:
        age = max(0.0, now - self._measured_at)
        return value * float(0.5 ** (age / self.options.forget_seconds))

    def latency_p95(self) -> float | None:
        """The 95th percentile of the recent first-byte times in seconds, None before the first."""
        return self._percentile(0.95)

    def latency_median(self) -> float | None:
        """Their median."""
        return self._percentile(0.5)

    def _percentile(self, share: float) -> float | None:
        if not self._latencies:
            return None
        ordered = sorted(self._latencies)
        return ordered[min(len(ordered) - 1, int(len(ordered) * share))]
