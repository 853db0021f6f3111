"""Which blocks were seen to be right, against a plain set."""

import numpy as np
from hypothesis import given, settings
from hypothesis import strategies as st

from shardfs.cache.block_map import Words
from shardfs.cache.verified import Verified

BLOCKS = 9
STEPS = st.lists(
    st.tuples(
        st.sampled_from(["add", "late", "remove", "remove", "keep", "clear"]),
        st.integers(0, BLOCKS),
        st.integers(0, BLOCKS),
    ),
    max_size=40,
)


def words() -> Words:
    return np.arange(1, BLOCKS + 1, dtype=np.uint64)


@settings(derandomize=True)
@given(STEPS)
def test_against_a_set(steps: list[tuple[str, int, int]]) -> None:
    verified, model = Verified(BLOCKS), set[int]()
    for what, a, b in steps:
        first, end = min(a, b), max(a, b)
        if what == "add":
            verified.add(first, words()[first:end], words(), epoch=verified.epoch)
            model |= set(range(first, end))
        elif what == "late":
            verified.add(first, words()[first:end], words(), epoch=verified.epoch - 1)
        elif what == "remove":
            verified.remove(first, end)
            model -= set(range(first, end))
        elif what == "keep":
            present = words()
            present[first:end] = 0
            verified.keep(present)
            model -= set(range(first, end))
        else:
            verified.clear()
            model.clear()
        assert verified.all == (len(model) == BLOCKS)
        # What is missing is just what the model says: with it, all are there.
        probe = Verified(BLOCKS)
        probe._flags = None if verified._flags is None else verified._flags.copy()
        probe._count = verified._count
        for block in set(range(BLOCKS)) - model:
            assert not probe.all
            probe.add(block, words()[block : block + 1], words(), epoch=0)
        assert probe.all


def test_a_block_that_went_or_changed_meanwhile_is_not_counted() -> None:
    verified, now = Verified(BLOCKS), words()
    now[4] = 0
    verified.add(0, words(), now, epoch=0)
    assert not verified.all
    now[4] = 77
    verified.add(4, words()[4:5], now, epoch=0)
    assert not verified.all
    verified.add(4, now[4:5].copy(), now, epoch=0)
    assert verified.all
    verified.add(0, now, None, epoch=0)


def test_memory_is_only_for_files_that_are_known_in_part() -> None:
    verified = Verified(BLOCKS)
    assert verified._flags is None
    verified.add(0, words()[:5], words(), epoch=0)
    assert verified._flags is not None
    verified.add(5, words()[5:], words(), epoch=0)
    assert verified._flags is None
    verified.remove(3, 4)
    assert verified._flags is not None
    verified.remove(0, BLOCKS)
    assert verified._flags is None
