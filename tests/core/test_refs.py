import pytest
from hypothesis import given
from hypothesis import strategies as st

from shardfs.core.digest import ZERO_DIGEST, digest_of
from shardfs.core.keys import RefName
from shardfs.core.names import GENERATION_MAX
from shardfs.core.refs import folder_conflict, live, newest, next_generation, rivals, settle
from shardfs.errors import Conflict

A, B, C = sorted(digest_of(text) for text in (b"1", b"2", b"3"))


def ref(generation, manifest, model="m"):
    return RefName(model, generation, manifest)


some_refs = st.lists(
    st.builds(RefName, st.sampled_from(["m", "n"]), st.integers(1, 5), st.sampled_from([A, B, C, ZERO_DIGEST])),
    max_size=12,
)


@pytest.mark.parametrize(
    ("refs", "expected"),
    [
        ([ref(1, A), ref(2, B)], ref(2, B)),
        ([ref(2, B), ref(1, C)], ref(2, B)),
        ([ref(2, A), ref(2, B)], ref(2, B)),  # equal numbers: the greater digest, everywhere
        ([ref(3, ZERO_DIGEST), ref(2, C)], ref(3, ZERO_DIGEST)),  # deleted
        ([ref(3, ZERO_DIGEST), ref(3, A)], ref(3, A)),  # deleted and published at once: nothing is lost
        ([ref(3, ZERO_DIGEST), ref(4, A)], ref(4, A)),  # published again
    ],
)
def test_newest(refs, expected):
    assert newest(refs) == {"m": expected}
    assert live(newest(refs)) == ({} if expected.deleted else {"m": expected})


@given(some_refs, st.randoms())
def test_the_order_of_arrival_never_matters(refs, random):
    shuffled = refs + refs[:3]
    random.shuffle(shuffled)
    assert newest(shuffled) == newest(refs)
    assert settle(shuffled) == settle(refs)


@given(some_refs)
def test_settling_changes_neither_the_newest_nor_what_numbers_and_manifests_exist(refs):
    settled = settle(refs)
    assert newest(settled) == newest(refs)
    assert {(r.model, r.generation) for r in settled} == {(r.model, r.generation) for r in refs}
    assert {(r.model, r.manifest) for r in settled} == {(r.model, r.manifest) for r in refs}
    assert settle(settled) == settled


@pytest.mark.parametrize(
    ("refs", "expected"),
    [
        ([ref(1, A), ref(2, A)], [ref(1, A), ref(2, A)]),  # published again on purpose, uncontested
        ([ref(1, A), ref(1, B)], [ref(1, A), ref(1, B)]),  # contested, nobody moved
        ([ref(1, A), ref(1, B), ref(2, B)], [ref(1, A), ref(2, B)]),  # B moved
        ([ref(1, B), ref(1, A), ref(2, A)], [ref(1, B), ref(2, A)]),  # A moved
        ([ref(1, A), ref(1, B), ref(2, A), ref(3, B)], [ref(1, B), ref(2, A), ref(3, B)]),  # both moved: one stays
        ([ref(1, A), ref(1, B), ref(1, C), ref(2, A), ref(2, B), ref(3, B)], [ref(1, C), ref(2, A), ref(3, B)]),
    ],
)
def test_settle(refs, expected):
    assert list(settle(refs)) == expected


def test_next_generation_counts_tombstones_and_ends():
    assert next_generation("m", []) == 1
    assert next_generation("m", [ref(9, A, "n")]) == 1
    assert next_generation("m", [ref(1, A), ref(7, ZERO_DIGEST)]) == 8
    with pytest.raises(Conflict, match="used up"):
        next_generation("m", [ref(GENERATION_MAX, A)])


def test_rivals_share_the_number_but_not_the_manifest():
    assert rivals(ref(1, A), [ref(1, A), ref(1, B), ref(2, C), ref(1, B, "n")]) == [ref(1, B)]


@pytest.mark.parametrize(
    ("model", "models", "expected"),
    [
        ("team", ["team/bert"], "team/bert"),
        ("team/bert", ["team"], "team"),
        ("team/bert/x", ["a", "team"], "team"),
        ("team", ["team", "team2", "team-x"], None),
        ("team/bert", ["team/bert2", "team/ber"], None),
    ],
)
def test_folder_conflict(model, models, expected):
    assert folder_conflict(model, models) == expected
