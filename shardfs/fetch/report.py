"""What one fetch has learned of the nodes that did not deliver, for the next round and for the message at the end."""

from collections import Counter
from dataclasses import dataclass, field

from shardfs.errors import AllDenied, Corrupt, Denied, NoCopy, NotFound, ShardfsError
from shardfs.fetch.fill import Fill

WRONG_ANSWERS_MAX = 2


@dataclass(slots=True)
class Report:
    """Why a fetch has not succeeded yet: the last failure of each node asked, and how often it was wrong bytes."""

    failures: dict[str, ShardfsError] = field(default_factory=dict)
    _wrong: Counter[str] = field(default_factory=Counter)

    def note(self, node: str, failure: ShardfsError) -> None:
        self.failures[node] = failure
        self._wrong[node] += isinstance(failure, Corrupt)

    def hopeless(self, node: str) -> bool:
        """Whether asking the node again cannot help. Wrong bytes once may have been the wire."""
        return isinstance(self.failures.get(node), NotFound | Denied) or self._wrong[node] >= WRONG_ANSWERS_MAX

    def progressed(self) -> None:
        """Blocks have come since: copies that are bad in different places make one good copy."""
        self._wrong.clear()

    def error(self, fill: Fill, what: str) -> NoCopy:
        """What the fetch has come to: AllDenied when each node that was asked refused the credentials."""
        reasons = "; ".join(dict.fromkeys(map(str, self.failures.values()))) or "no node answered in time"
        message = f"chunk {fill.place.digest.hex()[:16]}: {what} ({reasons})"
        if self.failures and all(isinstance(failure, Denied) for failure in self.failures.values()):
            return AllDenied(next(iter(self.failures)), message)
        return NoCopy(message)
