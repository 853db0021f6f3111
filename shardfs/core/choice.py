"""In which order to ask the nodes that may have a chunk."""

from collections.abc import Sequence
from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Candidate:
    """One node of a chunk's ranking as it stands now. `owner` says that placement gave it the chunk.

    `priority` is the cluster file's `read_priority`: lower is nearer. `expected_seconds`: for one chunk.
    """

    node: str
    owner: bool
    suspect: bool
    inflight_bytes: int
    expected_seconds: float | None
    priority: int = 0


CHUNK_BYTES = 4 * 1024 * 1024
_UNKNOWN_SECONDS = 0.001
_UNKNOWN_SHARE = 0.9
_LAGGARD_FACTOR = 4.0


def ask_order(ranking: Sequence[Candidate], chance: float) -> list[str]:
    """Node ids, best first: healthy owners by expected wait, other healthy nodes by rank, then suspects.

    In each of the three, near nodes come before far ones.

    Expected wait = seconds for a chunk x (1 + what is already in flight, in chunks): the least-loaded choice among the
    copies ("power of two choices", Mitzenmacher 2001), which draws evenly from all copies under load. A laggard, four
    times slower than the best, comes after the others however busy they are: whoever reads in order waits for the
    slowest chunk. `chance` in [0, 1) breaks ties, so that idle clients do not all begin at the first owner.
    """
    owners = [c for c in ranking if c.owner and not c.suspect]
    if owners:
        turn = int(chance * len(owners))
        owners = owners[turn:] + owners[:turn]
        best = min((c.expected_seconds for c in owners if c.expected_seconds is not None), default=_UNKNOWN_SECONDS)
        owners.sort(key=lambda c: (c.priority, *_expected_wait(c, best)))
    others = sorted((c for c in ranking if not c.owner and not c.suspect), key=_priority)
    suspects = sorted((c for c in ranking if c.suspect), key=_priority)
    return [c.node for c in (*owners, *others, *suspects)]


def _priority(candidate: Candidate) -> int:
    return candidate.priority


def _expected_wait(candidate: Candidate, best: float) -> tuple[bool, float]:
    """Whether it is a laggard, and its wait. A node never asked is taken for a little better than the best."""
    seconds = _UNKNOWN_SHARE * best if candidate.expected_seconds is None else candidate.expected_seconds
    seconds = max(seconds, 1e-5)
    return seconds > _LAGGARD_FACTOR * max(best, 1e-5), seconds * (1 + candidate.inflight_bytes / CHUNK_BYTES)
