"""A figure: one measured quantity over all rounds, and beside it the limit that the same rounds measured."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

from bench.measure import MIB, middle

Better = Literal["higher", "lower"]


@dataclass(frozen=True, slots=True)
class Spread:
    """Median, least and greatest of some rounds."""

    median: float
    least: float
    greatest: float

    @classmethod
    def of(cls, values: Sequence[float]) -> "Spread":
        return cls(middle(values), min(values), max(values))


@dataclass(frozen=True, slots=True)
class Figure:
    """`name` is its key in the JSON, `GROUP.WHAT`. `ratios` are value / limit, made round by round."""

    name: str
    what: str
    unit: str
    better: Better
    values: tuple[float, ...]
    limit: str | None = None
    ratios: tuple[float, ...] = ()

    @property
    def group(self) -> str:
        return self.name.partition(".")[0]

    @property
    def spread(self) -> Spread:
        return Spread.of(self.values)

    @property
    def ratio(self) -> Spread | None:
        return Spread.of(self.ratios) if self.ratios else None


class Figures:
    """All figures of a run by name, in the order in which they were measured.

    `impossible`: those that cannot be measured on this machine, and why.
    """

    def __init__(self) -> None:
        self.by_name: dict[str, Figure] = {}
        self.notes: list[str] = []
        self.impossible: dict[str, str] = {}

    def add(
        self, name: str, what: str, unit: str, values: Sequence[float], *, better: Better, limit: str | None = None
    ) -> None:
        """Record a figure; nothing when there are no values. The ratio needs the limit's figure to be there."""
        if not values:
            return
        ratios: tuple[float, ...] = ()
        if limit is not None and (beside := self.by_name.get(limit)) is not None:
            ratios = tuple(value / other for value, other in zip(values, beside.values, strict=False) if other)
        self.by_name[name] = Figure(name, what, unit, better, tuple(values), limit, ratios)

    def rate(self, name: str, what: str, seconds: Sequence[float], size: int, *, limit: str | None = None) -> None:
        """Record `size` bytes in so many seconds as MiB/s."""
        self.add(name, what, "MiB/s", [size / MIB / second for second in seconds], better="higher", limit=limit)

    def latency(self, name: str, what: str, seconds: Sequence[float], *, limit: str | None = None) -> None:
        """Record a short time in milliseconds."""
        self.add(name, what, "ms", [second * 1000 for second in seconds], better="lower", limit=limit)

    def seconds(self, name: str, what: str, seconds: Sequence[float], *, limit: str | None = None) -> None:
        """Record a long time in seconds."""
        self.add(name, what, "s", seconds, better="lower", limit=limit)

    def harmonic(self, name: str, what: str, first: str, second: str) -> None:
        """Record 1 / (1/first + 1/second), round by round: two stages that take turns on the same cores."""
        if first in self.by_name and second in self.by_name:
            pairs = zip(self.by_name[first].values, self.by_name[second].values, strict=False)
            self.add(name, what, self.by_name[first].unit, [1 / (1 / a + 1 / b) for a, b in pairs], better="higher")
