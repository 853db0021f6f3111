"""Long answers are read beside the event loop, one at a time for each node, and given up at once."""

import threading

import pytest
import trio
import trio.testing

from shardfs.errors import InvalidFormat
from shardfs.store.long_answers import INLINE_BYTES_MAX, LongAnswers

SHORT = bytes(INLINE_BYTES_MAX)
LONG = bytes(INLINE_BYTES_MAX + 1)


async def test_which_thread_reads() -> None:
    answers = LongAnswers()
    assert await answers.read(lambda _: threading.get_ident(), SHORT) == threading.get_ident()
    assert await answers.read(lambda _: threading.get_ident(), LONG) != threading.get_ident()
    assert await answers.read(len, LONG) == len(LONG)


async def test_errors_come_out() -> None:
    def wrong(_: bytes) -> None:
        raise InvalidFormat("no")

    for body in (SHORT, LONG):
        with pytest.raises(InvalidFormat, match="no"):
            await LongAnswers().read(wrong, body)


async def test_one_at_a_time_and_given_up_at_once() -> None:
    answers = LongAnswers()
    begun, go = trio.Event(), threading.Event()
    token = trio.lowlevel.current_trio_token()
    under_way = most = 0

    def slow(_: bytes) -> None:
        nonlocal under_way, most
        under_way += 1
        most = max(most, under_way)
        token.run_sync_soon(begun.set)
        go.wait()
        under_way -= 1

    try:
        async with trio.open_nursery() as nursery:
            nursery.start_soon(answers.read, slow, LONG)
            await begun.wait()
            nursery.cancel_scope.cancel()  # ends here although `slow` has not
        assert under_way == 1
        async with trio.open_nursery() as nursery:
            nursery.start_soon(answers.read, slow, LONG)
            await trio.testing.wait_all_tasks_blocked()
            assert most == 1, "the one that was given up still has the turn"
            go.set()
        assert most == 1
    finally:
        go.set()
