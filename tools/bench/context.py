"""What a group is handed: the options, the world, and where its figures go."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

from bench.figures import Figures
from bench.measure import Case, Results, interleave
from bench.world import World

CHECKOUT = Path(__file__).resolve().parent.parent.parent


@dataclass(frozen=True, slots=True)
class Options:
    """`size`: bytes of the model; `runs`: rounds; `quick`: small everything, to see that it works."""

    size: int
    runs: int
    quick: bool
    peers: bool
    out: Path


@dataclass(frozen=True, slots=True)
class Bench:
    """Given to each group's `run`."""

    options: Options
    world: World
    figures: Figures
    say: Callable[[str], None]

    def measure(self, cases: Sequence[Case]) -> Results:
        """Run the cases in turns; note those that failed."""
        results = interleave(cases, self.options.runs, self.say)
        for name, reason in results.failed.items():
            self.note(f"{name}: failed ({reason})")
        return results

    def note(self, text: str) -> None:
        """A line for the report: what was left out, and why. Without paths of this machine."""
        self.figures.notes.append(self._nowhere(text))

    def cannot(self, what: str, figures: Sequence[str], why: str) -> None:
        """This machine cannot do `what`, so these figures are not measured: a note, and their targets say so."""
        self.note(f"{what}: cannot be measured here ({why})")
        self.figures.impossible |= dict.fromkeys(figures, self._nowhere(why))

    def _nowhere(self, text: str) -> str:
        for place, word in ((self.world.work, "WORK"), (CHECKOUT, "CHECKOUT"), (Path.home(), "~")):
            text = text.replace(str(place), word)
        return text
