"""How long a run takes: a table of what each group took on two cores, corrected by what this run has taken so far."""

from collections.abc import Mapping, Sequence

from bench.context import Options
from bench.groups import GROUPS
from bench.measure import GIB


def expected(options: Options, name: str) -> float:
    """Seconds of one group on the machine of the table."""
    group = GROUPS[name]
    return group.least + group.each * options.size / GIB * options.runs


def left(options: Options, names: Sequence[str], taken: Mapping[str, float]) -> float:
    """Seconds that the groups without an entry in `taken` need, if this machine goes on as it has begun."""
    pace = 1.0
    if taken:
        pace = sum(taken.values()) / sum(expected(options, name) for name in taken)
    return pace * sum(expected(options, name) for name in names if name not in taken)


def said(seconds: float) -> str:
    """In words, no more exact than it is known."""
    minutes = round(seconds / 60)
    return "about a minute" if minutes <= 1 else f"about {minutes} minutes"
