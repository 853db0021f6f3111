"""What a node may do wrong to one answer, as values, and planners that deal them out by seed.

A fault says what it does to a `get`; whether it really hit is counted by the node that suffered it, so that a test can
prove that its fault took place. `OneGoodCopy` may torment every node but leaves each chunk one copy that answers, so
that success is required; `NoGoodCopy` leaves none, so that failure is.
"""

import random
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from enum import StrEnum
from typing import TypeAlias


class Kind(StrEnum):
    """The faults of one answer. Those with `at` act when that many bytes of the answer have been delivered."""

    REFUSE = "refuse"
    """The connection is refused at once."""
    RESET = "reset"
    """The connection breaks after `at` bytes."""
    HANG = "hang"
    """Silence for ever after `at` bytes."""
    SLOW = "slow"
    """`factor` times slower than usual, latency and bandwidth."""
    TRUNCATE = "truncate"
    """The object ends after `at` bytes of the answer, without any error."""
    FLIP = "flip"
    """One bit of the answer's byte `at` is the other way round."""
    OTHER_DATA = "other data"
    """The right header, then the blocks of another chunk."""
    OTHER_CHUNK = "other chunk"
    """Another chunk altogether, header included: a replay."""
    GARBAGE = "garbage"
    """Random bytes instead of the object."""
    MISSING = "missing"
    """The node says that it has no such object."""
    ENDLESS = "endless"
    """All that was asked for, and then more: an error that shows when every byte has arrived."""
    DENIED = "denied"
    """The node refuses the credentials."""


LYING = frozenset({Kind.TRUNCATE, Kind.FLIP, Kind.OTHER_DATA, Kind.OTHER_CHUNK, Kind.GARBAGE})
"""Answers that look well and do not verify."""


@dataclass(frozen=True, slots=True)
class Fault:
    """One thing that goes wrong. `at` in bytes of the answer, `factor` for SLOW."""

    kind: Kind
    at: int = 0
    factor: float = 10.0


@dataclass(frozen=True, slots=True)
class Ask:
    """One `get` as a planner sees it; times are seconds. `key` may also be the path of somebody else's object."""

    node: str
    key: str
    offset: int
    length: int
    now: float


Plan: TypeAlias = Callable[[Ask], Fault | None]
"""Asked before each `get`: what goes wrong with it, if anything."""


def well(_ask: Ask) -> Fault | None:
    """The plan in which nothing goes wrong."""
    return None


def random_fault(chance: random.Random, length: int) -> Fault:
    """Any fault, at the places where mistakes live: the first byte, the last, the middle, anywhere."""
    places = (0, 1, length // 2, max(0, length - 1), chance.randrange(max(1, length)))
    return Fault(chance.choice(list(Kind)), at=chance.choice(places), factor=chance.choice((3.0, 10.0, 100.0)))


@dataclass(slots=True)
class OneGoodCopy:
    """Faults at will, but each chunk has one holder, drawn by seed, that only ever stumbles for a moment.

    `holders` gives the nodes that hold a chunk. The holder that stays good may still fail `stumbles` times in all with
    something that another try cures, since a reader must survive that too; wrong bytes at most once for a chunk, since
    a copy that is wrong twice in a row is rightly taken for a bad one.
    """

    chance: random.Random
    holders: Mapping[str, tuple[str, ...]]
    rate: float = 0.5
    stumbles: int = 3
    good: dict[str, str] = field(default_factory=dict)
    lied: set[str] = field(default_factory=set)

    def __call__(self, ask: Ask) -> Fault | None:
        if ask.key not in self.good:
            self.good[ask.key] = self.chance.choice(self.holders.get(ask.key, ("",)))  # a lie may lead anywhere
        if self.chance.random() >= self.rate:
            return None
        fault = random_fault(self.chance, ask.length)
        if ask.node != self.good[ask.key]:
            return fault
        if fault.kind not in (Kind.REFUSE, Kind.RESET, Kind.FLIP, Kind.ENDLESS) or not self.stumbles:
            return None
        if fault.kind is Kind.FLIP:
            if ask.key in self.lied:
                return None
            self.lied.add(ask.key)
        self.stumbles -= 1
        return fault


@dataclass(slots=True)
class NoGoodCopy:
    """Every answer of the nodes in `bad` fails, each time in another way, until `until` seconds."""

    chance: random.Random
    bad: frozenset[str]
    until: float = float("inf")
    kinds: tuple[Kind, ...] = (Kind.REFUSE, Kind.RESET, Kind.HANG, Kind.MISSING, Kind.FLIP, Kind.GARBAGE)

    def __call__(self, ask: Ask) -> Fault | None:
        if ask.node not in self.bad or ask.now >= self.until:
            return None
        return Fault(self.chance.choice(self.kinds), at=self.chance.randrange(max(1, ask.length)))


def always(kind: Kind, nodes: Iterable[str], *, at: int = 0, factor: float = 10.0, until: float = float("inf")) -> Plan:
    """The same fault for each answer of `nodes`, until `until` seconds."""
    afflicted = frozenset(nodes)
    fault = Fault(kind, at, factor)
    return lambda ask: fault if ask.node in afflicted and ask.now < until else None


def first(kind: Kind, nodes: Iterable[str], *, times: int = 1, at: int = 0) -> Plan:
    """The fault for the first `times` answers of each of `nodes`."""
    left = dict.fromkeys(nodes, times)

    def plan(ask: Ask) -> Fault | None:
        if not left.get(ask.node):
            return None
        left[ask.node] -= 1
        return Fault(kind, at)

    return plan
