"""The exam that every engine passes: `shardfs.store.base`, sentence by sentence, as code.

A new engine's own test is a function that makes an empty store, and a loop:

    @pytest.mark.parametrize("check", EXAM, ids=lambda check: check.__name__)
    async def test_exam(check):
        await check(make)            # make() is an async context manager around a fresh, empty Store

Each check runs under trio, with real time, and raises AssertionError. `REFUSING` is for engines that look at what they
store (the local folder, the chunk server): they refuse bytes that do not match their name.
"""

from shardfs.testing import exam_concurrency, exam_interruptions, exam_listings, exam_objects, exam_refusals
from shardfs.testing.check import Check, Make, fetch

__all__ = ["EXAM", "REFUSING", "Check", "Make", "fetch"]

EXAM: tuple[Check, ...] = (
    exam_objects.check_put_and_get,
    exam_objects.check_parts,
    exam_objects.check_second_put,
    exam_objects.check_ranges,
    exam_objects.check_empty_buffer,
    exam_objects.check_missing,
    exam_objects.check_read_limit,
    exam_objects.check_delete,
    exam_objects.check_stat,
    exam_listings.check_list,
    exam_listings.check_list_pages,
    exam_concurrency.check_racing_puts,
    exam_concurrency.check_parallel,
    exam_interruptions.check_arrived_raises,
    exam_interruptions.check_cancel_get,
    exam_interruptions.check_cancel_put,
    exam_interruptions.check_cancelled_before,
)

REFUSING: tuple[Check, ...] = (exam_refusals.check_wrong_bytes,)
