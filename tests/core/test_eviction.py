"""The order of eviction, as a table and against a plain model."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from shardfs.core.eviction import EvictionOrder, Granule

A, B, C, D = (0, 0), (0, 1), (1, 0), (1, 1)


def never(_: object) -> bool:
    return False


def play(steps: str, *, proven_max: int = 100) -> list[Granule]:
    """Steps such as `sA uB@60`: stored or used, at a time that stays until changed. Each is charged 10."""
    order = EvictionOrder(proven_bytes_max=proven_max, settle_seconds=60)
    names = {"A": A, "B": B, "C": C, "D": D}
    now = 0.0
    for step in steps.split():
        what, _, at = step.partition("@")
        now = float(at) if at else now
        if what[0] == "s":
            order.stored(names[what[1]], 10, now)
        elif what[0] == "u":
            order.used(names[what[1]], now)
        else:
            order.released(names[what[1]], 10)
    return list(order)


@pytest.mark.parametrize(
    ("steps", "expected"),
    [
        ("sA sB sC", [A, B, C]),
        ("sA sB uA", [B, A]),
        ("sA sB sA", [B, A]),
        ("sA sB rA", [B]),
        ("sA sA rA", [A]),
        ("sA uB", [A]),  # used by a reader that was too late
        ("sA sB uA@59 sC", [B, A, C]),  # still the same load
        ("sA sB uA@60 sC", [B, C, A]),  # another load: proven, goes after any newcomer
        ("sA sB uA@60 uB uA sC sD", [C, D, B, A]),
        ("sA uA@60 sA sB", [B, A]),
    ],
)
def test_order(steps: str, expected: list[Granule]) -> None:
    assert play(steps) == expected


def test_what_is_proven_has_a_bound_and_its_oldest_must_prove_itself_anew() -> None:
    assert play("sA sB sC uA@60 uB uC", proven_max=20) == [A, B, C]
    assert play("sA sB sC uA@60 uB uC uA@61", proven_max=20) == [A, B, C]  # A has been a newcomer for one second
    assert play("sA sB sC uA@60 uB uC uA@120", proven_max=20) == [B, C, A]


def test_a_scan_larger_than_the_cache_leaves_what_was_loaded_twice() -> None:
    order = EvictionOrder(proven_bytes_max=80)
    useful = [(0, n) for n in range(5)]
    for granule in useful:
        order.stored(granule, 10, 0)
    for granule in useful:
        order.used(granule, 3600)
    for n in range(1000):
        while order.charged_bytes + 10 > 100:
            victim = order.victim(lambda granule: False, never)
            assert victim is not None
            order.released(victim, order.charge(victim))
        order.stored((1, n), 10, 3600 + n)
        order.used((1, n), 3600 + n)
    assert [granule for granule in order if granule[0] == 0] == useful


def test_a_granule_in_use_is_passed_over() -> None:
    order = EvictionOrder(proven_bytes_max=0)
    for granule in (A, B):
        order.stored(granule, 1, 0)
    assert order.victim(lambda granule: granule == A, never) == B
    assert order.victim(lambda granule: True, never) is None
    assert list(order) == [A, B]


def test_a_kept_file_is_passed_over_and_comes_back_as_the_most_recent() -> None:
    order = EvictionOrder(proven_bytes_max=100, settle_seconds=60)
    for granule in (A, B, C, D):
        order.stored(granule, 10, 0)
    order.used(B, 60)
    assert order.victim(never, lambda file: file == 0) == C
    assert order.victim(never, lambda file: True) is None
    assert sorted(order) == [A, B, C, D]
    assert (len(order), order.charged_bytes, order.proven_bytes) == (4, 40, 0)
    assert all(granule in order and order.charge(granule) == 10 for granule in (A, B, C, D))
    order.used(A, 70)  # aside: no place in the order
    order.resume(1, 70)
    assert order.victim(never, lambda file: file == 0) == C
    order.resume(0, 80)
    order.resume(0, 80)
    assert list(order) == [C, D, A, B]
    assert order.victim(never, never) == C


def test_what_is_kept_is_passed_only_once() -> None:
    order = EvictionOrder(proven_bytes_max=0)
    for n in range(1000):
        order.stored((0, n), 10, 0)
    for n in range(100):
        order.stored((1, n), 10, 0)
    looked: list[int] = []

    def kept(file: int) -> bool:
        looked.append(file)
        return file == 0

    for n in range(100):
        victim = order.victim(never, kept)
        assert victim == (1, n)
        order.released(victim, 10)
    assert looked.count(0) == 1000


STEPS = st.lists(
    st.tuples(st.sampled_from("sur"), st.integers(0, 5), st.integers(1, 50), st.floats(0, 40)), max_size=80
)


@given(STEPS)
def test_charges_add_up_and_nothing_is_lost(steps: list[tuple[str, int, int, float]]) -> None:
    order = EvictionOrder(proven_bytes_max=100, settle_seconds=60)
    charges: dict[Granule, int] = {}
    now = 0.0
    for what, n, charge, passed in steps:
        granule, now = (0, n), now + passed
        if what == "s":
            order.stored(granule, charge, now)
            charges[granule] = charges.get(granule, 0) + charge
        elif what == "u":
            order.used(granule, now)
        elif granule in charges:
            gone = min(charge, charges[granule])
            order.released(granule, gone)
            charges[granule] -= gone
            if not charges[granule]:
                del charges[granule]
        assert {g: order.charge(g) for g in order} == charges
        assert len(list(order)) == len(order) == len(charges)
        assert order.charged_bytes == sum(charges.values())
        assert 0 <= order.proven_bytes <= 100
