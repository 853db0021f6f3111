"""In which order to ask the nodes that may have a chunk."""

from collections.abc import Sequence
from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Candidate:
    """One node of a chunk's ranking as it stands now. `owner` says that placement gave it the chunk.

    `priority` is the cluster file's `read_priority`: lower is nearer.
    """

    node: str
    owner: bool
    suspect: bool
    inflight_bytes: int
    expected_latency: float | None
    priority: int = 0


_UNKNOWN_LATENCY = 0.001
_BYTES_PER_LATENCY = 4 * 1024 * 1024


def ask_order(ranking: Sequence[Candidate], chance: float) -> list[str]:
    """Node ids, best first: healthy owners by expected wait, other healthy nodes by rank, then suspects.

    In each of the three, near nodes come before far ones.

    Expected wait = latency x (1 + what is already in flight, in chunks): the least-loaded choice among the copies
    ("power of two choices", Mitzenmacher 2001), which draws evenly from all copies under load and leaves a slow node
    to the others. `chance` in [0, 1) breaks ties, so that idle clients do not all begin at the first owner.
    """
    owners = [c for c in ranking if c.owner and not c.suspect]
    if owners:
        turn = int(chance * len(owners))
        owners = owners[turn:] + owners[:turn]
        owners.sort(key=lambda c: (c.priority, _expected_wait(c)))
    others = sorted((c for c in ranking if not c.owner and not c.suspect), key=_priority)
    suspects = sorted((c for c in ranking if c.suspect), key=_priority)
    return [c.node for c in (*owners, *others, *suspects)]


def _priority(candidate: Candidate) -> int:
    return candidate.priority


def _expected_wait(candidate: Candidate) -> float:
    latency = candidate.expected_latency
    base = _UNKNOWN_LATENCY if latency is None else max(latency, 1e-5)
    return base * (1 + candidate.inflight_bytes / _BYTES_PER_LATENCY)
