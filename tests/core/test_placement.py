"""Placement: even, stable, spread over zones. Bounds are statistical; the full million is marked slow."""

import math
import statistics
from collections import Counter

import pytest
from hypothesis import given
from hypothesis import strategies as st

from shardfs.core.cluster import Cluster, Node
from shardfs.core.digest import Digest, digest_of
from shardfs.core.placement import Assignment, Placement, choose, owner_counts, sum_up

CHUNK = 4 * 1024 * 1024


def node(name: str, **options) -> Node:
    return Node(name, f"file:///{name}", **options)


def cluster(*nodes: Node, replicas: int = 1) -> Placement:
    return Placement(Cluster(nodes, replicas, CHUNK))


def assign(placement: Placement, chunks: list[tuple[Digest, int]], alive: set[str]) -> list[Assignment]:
    """What each node serves of a whole load."""
    lengths = dict(chunks)
    return sum_up(placement.cluster, lengths, choose(placement, lengths, alive))


def names(count: int, salt: str = "") -> list[Digest]:
    return [digest_of(f"{salt}{i}".encode()) for i in range(count)]


TEN = [node(f"node-{i}") for i in range(10)]
NAMES = names(100_000)


def sigmas(count: int, share: float, number: float = 5.0) -> float:
    """`number` standard deviations of a binomial count, as a fraction of its mean."""
    return number * math.sqrt(count * share * (1 - share)) / (count * share)


@pytest.mark.parametrize("replicas", [1, 2, 3])
def test_equal_nodes_hold_equal_shares(replicas):
    few = NAMES[: 60_000 // replicas]
    counts = owner_counts(cluster(*TEN, replicas=replicas), few)
    mean = len(few) * replicas / 10
    assert sum(counts) == len(few) * replicas
    assert max(counts) <= mean * (1 + sigmas(len(few), replicas / 10))
    assert min(counts) >= mean * (1 - sigmas(len(few), replicas / 10))


def test_an_eleventh_node_takes_its_share_and_moves_nothing_else():
    before, after = cluster(*TEN), cluster(*TEN, node("node-10"))
    moved = [(before.owners(name)[0].id, after.owners(name)[0].id) for name in NAMES]
    changed = [(old, new) for old, new in moved if old != new]
    assert {new for _, new in changed} == {"node-10"}
    assert len(changed) <= 0.1 * len(NAMES)
    assert len(changed) == pytest.approx(len(NAMES) / 11, rel=sigmas(len(NAMES), 1 / 11))
    # ...and takes it from all alike.
    taken = [sum(old == f"node-{i}" for old, _ in changed) for i in range(10)]
    assert min(taken) > 0.8 * statistics.mean(taken)


def test_a_node_that_leaves_moves_only_what_it_held():
    before, after = cluster(*TEN, replicas=2), cluster(*TEN[:3], *TEN[4:], replicas=2)
    for name in NAMES[:20_000]:
        old, new = [n.id for n in before.owners(name)], [n.id for n in after.owners(name)]
        if "node-3" not in old:
            assert new == old
        else:
            assert [n for n in old if n != "node-3"] == [n for n in new if n in old]
            assert len(set(old) & set(new)) == 1


def test_the_order_of_the_cluster_file_means_nothing():
    one, other = cluster(*TEN, replicas=3), cluster(*reversed(TEN), replicas=3)
    for name in NAMES[:2000]:
        assert one.ranking(name) == other.ranking(name)


def test_weights_are_shares():
    placed = cluster(node("a", weight=1), node("b", weight=2), node("c", weight=4))
    counts = owner_counts(placed, NAMES)
    for count, share in zip(counts, (1 / 7, 2 / 7, 4 / 7), strict=True):
        assert count / len(NAMES) == pytest.approx(share, rel=max(0.02, sigmas(len(NAMES), share)))
    assert list(counts) == list(
        owner_counts(cluster(*(node(n, weight=w) for n, w in (("a", 10), ("b", 20), ("c", 40)))), NAMES)
    )


def test_a_heavier_node_only_gains():
    before = cluster(*TEN)
    after = cluster(*TEN[:5], node("node-5", weight=2.0), *TEN[6:])
    changed = {(before.owners(n)[0].id, after.owners(n)[0].id) for n in NAMES[:20_000]}
    assert {new for old, new in changed if old != new} == {"node-5"}


@given(
    st.integers(1, 8),
    st.integers(1, 8),
    st.integers(0, 10**6),
    st.lists(st.sampled_from(["", "x", "y", "z"]), min_size=8, max_size=8),
)
def test_rankings_are_total_and_owners_distinct(nodes, replicas, number, zones):
    replicas = min(nodes, replicas)
    placed = cluster(*(node(f"n{i}", zone=zones[i]) for i in range(nodes)), replicas=replicas)
    chunk = digest_of(str(number).encode())
    ranking = placed.ranking(chunk)
    assert sorted(n.id for n in ranking) == [f"n{i}" for i in range(nodes)]
    owners = placed.owners(chunk)
    assert owners == ranking[:replicas]
    assert len({n.id for n in owners}) == replicas
    # As many zones as there are to be had; a node without a zone is one of its own.
    available = len({zones[i] or f"\0{i}" for i in range(nodes)})
    assert len({n.zone or f"\0{n.id}" for n in owners}) == min(replicas, available)
    # Beyond the owners by falling score.
    scores = dict(zip([n.id for n in placed.cluster.nodes], placed.scores(chunk), strict=True))
    rest = [scores[n.id] for n in ranking[replicas:]]
    assert rest == sorted(rest, reverse=True)
    assert max(scores, key=scores.__getitem__) == owners[0].id


def test_zones_share_evenly():
    placed = cluster(*(node(f"n{i}", zone="ab"[i % 2]) for i in range(6)), replicas=2)
    counts = owner_counts(placed, NAMES[:30_000])
    mean = 30_000 * 2 / 6
    assert max(counts) <= mean * (1 + sigmas(30_000, 1 / 3))
    assert min(counts) >= mean * (1 - sigmas(30_000, 1 / 3))


def test_draining_nodes_own_nothing_but_are_looked_at():
    active = cluster(*TEN[:4], replicas=2)
    draining = cluster(*TEN[:4], node("old", state="draining"), replicas=2)
    for name in NAMES[:2000]:
        assert draining.owners(name) == active.owners(name)
        assert "old" in {n.id for n in draining.ranking(name)}
        assert len(draining.ranking(name)) == 5


def test_a_draining_nodes_chunks_are_found_early():
    """What it held, it held because its score was high: it stands right behind the new owners."""
    before = cluster(*TEN, replicas=2)
    after = cluster(*TEN[:9], node("node-9", state="draining"), replicas=2)
    for name in NAMES[:5000]:
        if "node-9" in {n.id for n in before.owners(name)}:
            assert [n.id for n in after.ranking(name)].index("node-9") == 2


@pytest.mark.parametrize("weight", [1e-6, 1e6])
def test_extreme_weights_and_hashes(weight):
    placed = cluster(node("a", weight=weight), node("b"))
    counts = owner_counts(placed, NAMES[:2000])
    assert sorted(counts) == [0, 2000]
    for chunk in (Digest(bytes(32)), Digest(b"\xff" * 32)):
        assert len(placed.ranking(chunk)) == 2


@pytest.mark.slow
def test_the_numbers_of_the_issue_over_a_million_names():
    million = names(1_000_000, "million ")
    old, eleven = cluster(*TEN), cluster(*TEN, node("node-10"))
    moved = [(old.owners(n)[0].id, eleven.owners(n)[0].id) for n in million]
    counts = Counter(was for was, _ in moved)
    assert len(counts) == 10
    assert max(counts.values()) <= 1.02 * statistics.mean(counts.values())
    assert {new for was, new in moved if was != new} == {"node-10"}
    assert sum(was != new for was, new in moved) <= 0.1 * len(million)
    weighted = owner_counts(cluster(node("a", weight=1), node("b", weight=2), node("c", weight=4)), million)
    for count, share in zip(weighted, (1 / 7, 2 / 7, 4 / 7), strict=True):
        assert abs(count / len(million) / share - 1) <= 0.02


# ------------------------------------------------------------------------------------------------------- plans


def test_a_whole_load_is_even():
    placed = cluster(*TEN[:4], replicas=2)
    chunks = [(name, CHUNK) for name in NAMES[:500]] + [(name, 1000 + i) for i, name in enumerate(NAMES[500:520])]
    plan = assign(placed, chunks, {n.id for n in TEN[:4]})
    assert sum(item.chunks for item in plan) == 520
    assert sum(item.bytes for item in plan) == sum(size for _, size in chunks)
    assert max(item.bytes for item in plan) - min(item.bytes for item in plan) <= 2 * CHUNK


def test_a_whole_load_follows_the_weights():
    placed = cluster(node("a", weight=1), node("b", weight=3), node("c", weight=1), replicas=3)
    plan = {item.node: item for item in assign(placed, [(n, CHUNK) for n in NAMES[:500]], {"a", "b", "c"})}
    assert [plan[n].chunks for n in "abc"] == [100, 300, 100]


def test_a_load_without_some_nodes():
    placed = cluster(*TEN[:3], replicas=2)
    chunks = [(name, 10) for name in NAMES[:300]]
    plan = {item.node: item.chunks for item in assign(placed, chunks, {"node-0"})}
    assert plan == {"node-0": 300, "node-1": 0, "node-2": 0}  # down the ranking, as a reader would look
    nobody = assign(placed, chunks, set())
    assert [item for item in nobody if item.chunks] == [Assignment("", 300, 3000)]
    assert [item.chunks for item in assign(placed, [], {"node-0"})] == [0, 0, 0]


def test_a_plan_does_not_depend_on_the_order_of_chunks():
    placed = cluster(*TEN[:3], replicas=2)
    chunks = [(name, 10 + i % 3) for i, name in enumerate(NAMES[:100])]
    assert assign(placed, chunks, {"node-0", "node-2"}) == assign(placed, chunks[::-1], {"node-2", "node-0"})
