"""Backoff, hedging, health and the order of asking: rules with explicit times."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from shardfs.core.backoff import backoff
from shardfs.core.choice import Candidate, ask_order
from shardfs.core.health import HealthOptions, NodeHealth
from shardfs.core.hedge import HedgeBudget, HedgeOptions, hedge_delay

# ----------------------------------------------------------------------------------------------------- backoff


@pytest.mark.parametrize(
    ("streak", "chance", "seconds"),
    [(1, 0.0, 0.05), (1, 0.5, 0.075), (2, 0.0, 0.1), (3, 0.0, 0.2), (5, 0.0, 0.5), (100, 0.0, 0.5), (10**9, 0.0, 0.5)],
)
def test_backoff(streak, chance, seconds):
    assert backoff(streak, 0.1, 1.0, chance) == pytest.approx(seconds)


@given(st.integers(1, 10**6), st.floats(0, 1, exclude_max=True))
def test_backoff_stays_within_half_and_whole(streak, chance):
    ceiling = min(1.0, 0.1 * 2.0 ** min(streak - 1, 32))
    assert ceiling / 2 <= backoff(streak, 0.1, 1.0, chance) <= ceiling


# ------------------------------------------------------------------------------------------------------- hedge


@pytest.mark.parametrize(
    ("p95", "delay"), [(None, 0.25), (0.0, 0.05), (0.001, 0.05), (0.02, 0.06), (0.05, 0.15), (0.1, 0.25), (9.0, 0.25)]
)
def test_hedge_delay(p95, delay):
    assert hedge_delay(p95) == pytest.approx(delay)


def test_the_budget_saves_a_burst_and_then_a_share():
    budget = HedgeBudget(share=0.05, burst=3)
    assert [budget.spend() for _ in range(5)] == [True, True, True, False, False]
    for _ in range(19):
        budget.earn()
    assert not budget.spend()
    budget.earn()
    budget.earn()
    assert budget.spend()
    assert not budget.spend()
    for _ in range(10_000):
        budget.earn()
    assert sum(budget.spend() for _ in range(100)) == 3


@given(st.lists(st.booleans(), max_size=300))
def test_hedges_never_exceed_burst_and_share(asks):
    options = HedgeOptions(budget_share=0.1, budget_burst=2)
    budget = HedgeBudget(options.budget_share, options.budget_burst)
    earned = spent = 0
    for ask in asks:
        if ask:
            budget.earn()
            earned += 1
        else:
            spent += budget.spend()
        assert spent <= options.budget_burst + options.budget_share * earned + 1e-9


# ------------------------------------------------------------------------------------------------------ health


def test_one_failure_makes_a_suspect_and_one_answer_clears_it():
    health = NodeHealth()
    assert not health.suspect
    health.failed(10.0, "refused", 0.0)
    assert (health.suspect, health.reason, health.failures) == (True, "refused", 1)
    assert health.probe_at == pytest.approx(10.025)
    health.recovered(10.1)
    assert (health.suspect, health.reason) == (False, "")


def test_probes_back_off_to_a_second_and_begin_anew():
    health = NodeHealth()
    waits = []
    for _ in range(8):
        health.failed(100.0, "x", 1.0)
        waits.append(health.probe_at - 100.0)
    assert waits == pytest.approx([0.05, 0.1, 0.2, 0.4, 0.8, 1.0, 1.0, 1.0])
    health.recovered(101.0)
    health.failed(102.0, "x", 1.0)
    assert health.probe_at == pytest.approx(102.05)


def test_three_wrong_answers_put_a_node_aside_for_a_minute():
    health = NodeHealth()
    for at in (1.0, 2.0):
        health.corrupted(at, "wrong bytes")
        assert not health.suspect
    health.corrupted(3.0, "wrong bytes")
    assert health.suspect
    assert health.corruptions == 3
    assert health.probe_at == 63.0
    health.recovered(10.0)  # it answers probes, as liars do
    health.answered(20.0, 0.001)
    assert health.suspect
    assert health.reason == "wrong bytes"
    assert health.probe_at == 63.0
    health.recovered(63.0)
    assert not health.suspect


def test_a_node_put_aside_that_also_dies_is_probed_at_once():
    health = NodeHealth()
    for _ in range(3):
        health.corrupted(1.0, "wrong bytes")
    health.failed(5.0, "refused", 1.0)
    assert health.probe_at == pytest.approx(5.05)
    health.give_up()
    assert health.given_up
    health.recovered(6.0)
    assert not health.given_up
    assert health.suspect
    assert health.probe_at == 61.0


def test_only_a_node_out_of_reach_is_given_up():
    health = NodeHealth()
    health.give_up()
    assert not health.given_up
    for _ in range(3):
        health.corrupted(1.0, "wrong bytes")
    health.give_up()
    assert not health.given_up  # put aside, but its copy may be the only good one
    health.failed(2.0, "refused", 0.0)
    health.give_up()
    assert health.given_up
    health.answered(3.0, 0.001)
    assert not health.given_up


def test_a_given_up_node_that_lies_is_alive():
    health = NodeHealth()
    health.failed(1.0, "silent", 0.0)
    health.give_up()
    for _ in range(3):  # answers that were still under way
        health.corrupted(1.01, "wrong bytes")
    assert health.suspect
    assert not health.given_up


def test_latency():
    health = NodeHealth(HealthOptions(latency_samples=10, forget_seconds=5.0))
    assert health.expected_latency(0.0) is None
    assert health.latency_p95() is None
    assert health.latency_median() is None
    health.answered(0.0, 0.1)
    assert health.expected_latency(0.0) == pytest.approx(0.1)
    assert health.expected_latency(5.0) == pytest.approx(0.05)  # worth another try after a while
    assert health.expected_latency(50.0) < 0.001
    assert health.expected_latency(-1.0) == pytest.approx(0.1)  # clocks that step harm nobody
    health.answered(0.0, 0.9)
    assert health.expected_latency(0.0) == pytest.approx(0.1 + 0.8 / 8)
    for _ in range(10):
        health.answered(0.0, 0.2)
    assert health.latency_p95() == pytest.approx(0.2)  # old samples are forgotten
    health.answered(0.0, 5.0)
    assert health.latency_p95() == pytest.approx(5.0)
    assert health.latency_median() == pytest.approx(0.2)


@given(
    st.lists(
        st.tuples(st.sampled_from(["answered", "recovered", "failed", "corrupted", "give_up"]), st.floats(0, 30)),
        max_size=60,
    )
)
def test_health_invariants(events):
    health, now = NodeHealth(), 0.0
    for event, seconds in events:
        now += seconds
        match event:
            case "answered":
                health.answered(now, 0.01)
            case "recovered":
                health.recovered(now)
            case "failed":
                health.failed(now, "failed", 0.5)
                assert now < health.probe_at <= now + 1
            case "corrupted":
                health.corrupted(now, "wrong")
            case _:
                health.give_up()
        assert health.suspect or not health.given_up
        assert not health.given_up or health.probe_at <= now + 1  # nobody else will find out that it is back
        assert health.suspect == bool(health.reason)
        assert not health.suspect or health.probe_at <= now + 60


def test_a_node_that_begins_at_once_and_then_trickles_is_slow():
    health = NodeHealth()
    assert health.expected_seconds(0.0, 4 << 20) is None
    health.answered(0.0, 0.001)
    assert health.expected_seconds(0.0, 4 << 20) == pytest.approx(0.001)
    health.answered(0.0, 0.001, pace=1e-6)
    assert health.expected_seconds(0.0, 4 << 20) == pytest.approx(0.001 + 1e-6 * (4 << 20))
    assert health.expected_seconds(1000.0, 1 << 20) == pytest.approx((0.001 + 1e-6 * (1 << 20)) / 4)


# ------------------------------------------------------------------------------------------------------ choice


def candidate(node, *, owner=True, suspect=False, inflight=0, latency=0.01) -> Candidate:
    return Candidate(node, owner, suspect, inflight, latency)


MIB4 = 4 * 1024 * 1024


@pytest.mark.parametrize(
    ("ranking", "expected"),
    [
        ([], ""),
        ([candidate("a"), candidate("b", latency=0.005)], "ba"),  # the quicker
        ([candidate("a", inflight=8 * MIB4), candidate("b", latency=0.03)], "ba"),  # the idle
        ([candidate("a", inflight=MIB4), candidate("b", latency=0.03)], "ab"),  # but not at any price
        ([candidate("a", inflight=99 * MIB4), candidate("b", latency=0.05)], "ab"),  # a laggard, never while others can
        ([candidate("a", suspect=True), candidate("b", latency=0.5)], "ba"),  # suspects last
        ([candidate("a", latency=0.5), candidate("b"), candidate("c", owner=False, latency=0.001)], "bac"),
        ([candidate("a", suspect=True), candidate("b", owner=False)], "ba"),
        ([candidate("a", owner=False), candidate("b", owner=False, latency=0.0)], "ab"),  # others by rank
        ([candidate("a", suspect=True, latency=9), candidate("b", suspect=True, latency=0)], "ab"),
        ([candidate("a"), candidate("b", latency=None)], "ba"),  # never measured: worth a try
        ([candidate("a", latency=0.0), candidate("b", latency=1e-9)], "ab"),
    ],
)
def test_ask_order(ranking, expected):
    assert "".join(ask_order(ranking, 0.0)) == expected


def test_ties_are_broken_by_chance():
    ranking = [candidate("a"), candidate("b"), candidate("c")]
    assert {ask_order(ranking, i / 100)[0] for i in range(100)} == {"a", "b", "c"}


candidates = st.lists(
    st.builds(
        Candidate,
        st.uuids().map(str),
        st.booleans(),
        st.booleans(),
        st.integers(0, 10**10),
        st.none() | st.floats(0, 100),
    ),
    max_size=8,
)


@given(candidates, st.floats(0, 1, exclude_max=True))
def test_everybody_is_asked_once_and_suspects_last(ranking, chance):
    order = ask_order(ranking, chance)
    assert sorted(order) == sorted(c.node for c in ranking)
    by_id = {c.node: c for c in ranking}
    classes = [(by_id[n].suspect, not by_id[n].suspect and not by_id[n].owner) for n in order]
    assert classes == sorted(classes)


def test_readers_share_the_copies_evenly_under_load():
    inflight = dict.fromkeys("abc", 0)
    for turn in range(300):
        best = ask_order([candidate(n, inflight=inflight[n]) for n in "abc"], turn % 7 / 7)[0]
        inflight[best] += MIB4
    assert set(inflight.values()) == {100 * MIB4}


def test_a_pace_seen_halfway_counts_and_recovers_nothing():
    health = NodeHealth()
    health.failed(1.0, "silent", 0.0)
    health.measured(2.0, 0.01, pace=1e-6)
    assert health.suspect
    assert health.expected_seconds(2.0, 1_000_000) == pytest.approx(0.01 + 1 / 1)
    health.answered(2.0, 0.01, pace=1e-6)
    assert not health.suspect
