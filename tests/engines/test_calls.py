"""Calls into libraries that do not know trio: the caller is never held up, nothing arrives late, places are bounded."""

import asyncio
import threading

import pytest
import trio

from shardfs.store.calls import Abandoned, Calls, TooManyStuck


def make(calls_max: int = 4, seconds_max: float = 60.0) -> Calls:
    return Calls(calls_max=calls_max, seconds_max=seconds_max)


def nothing(_: bytes) -> None:
    raise AssertionError("a piece that nobody sent")


async def until_none_is_abandoned(calls: Calls) -> None:
    while calls.abandoned:
        await trio.lowlevel.checkpoint()


class Stop(Exception):
    pass


async def test_results_and_errors() -> None:
    async def give() -> int:
        await asyncio.sleep(0)
        return 7

    async def fail() -> int:
        raise Stop

    def fail_blocking(emit) -> int:
        raise Stop

    calls = make()
    assert await calls.coroutine(give) == 7
    assert await calls.blocking(lambda emit: 8, nothing) == 8
    for call in (lambda: calls.coroutine(fail), lambda: calls.blocking(fail_blocking, nothing)):
        with pytest.raises(Stop):
            await call()
    assert calls.abandoned == 0


async def test_pieces_come_in_order_and_no_more_than_the_caller_takes() -> None:
    count, got = 1000, list[bytes]()

    def send(emit) -> str:
        for number in range(count):
            emit(b"%d" % number)
        return "done"

    assert await make().blocking(send, got.append) == "done"
    assert got == [b"%d" % number for number in range(count)]


async def test_what_a_piece_raises_ends_the_call_and_comes_out_unchanged() -> None:
    ended = threading.Event()
    error = ValueError("mine")

    def send(emit) -> None:
        try:
            while True:
                emit(b"x")
        finally:
            ended.set()

    def piece(_: bytes) -> None:
        raise error

    calls = make()
    with pytest.raises(ValueError, match="mine") as caught:
        await calls.blocking(send, piece)
    assert caught.value is error
    await until_none_is_abandoned(calls)
    assert ended.is_set()


async def test_a_cancelled_coroutine_ends_for_real() -> None:
    ended = threading.Event()
    started = threading.Event()

    async def hang() -> None:
        started.set()
        try:
            await asyncio.sleep(1e6)
        finally:
            ended.set()

    calls = make()
    async with trio.open_nursery() as nursery:
        nursery.start_soon(calls.coroutine, hang)
        while not started.is_set():
            await trio.lowlevel.checkpoint()
        nursery.cancel_scope.cancel()
    await until_none_is_abandoned(calls)
    assert ended.is_set()


async def test_a_coroutine_has_a_time_limit() -> None:
    with pytest.raises(TimeoutError):
        await make(seconds_max=0.01).coroutine(lambda: asyncio.sleep(1e6))


async def test_calls_that_do_not_end_are_bounded_and_never_write() -> None:
    """A library that hangs: callers are free at once, the fifth is refused, and all is well when it wakes up."""
    hang, pieces = threading.Event(), list[bytes]()
    tried, ended = threading.Semaphore(0), threading.Semaphore(0)

    def stuck(emit) -> None:
        tried.release()
        hang.wait()
        try:
            emit(b"late")
        except Abandoned:
            ended.release()
            raise

    calls = make(calls_max=4)
    for number in range(4):
        async with trio.open_nursery() as nursery:
            nursery.start_soon(calls.blocking, stuck, pieces.append)
            while not tried.acquire(blocking=False):
                await trio.lowlevel.checkpoint()
            nursery.cancel_scope.cancel()
        assert calls.abandoned == number + 1
    with pytest.raises(TooManyStuck):
        await calls.blocking(lambda emit: 1, nothing)
    with pytest.raises(TooManyStuck):
        await calls.coroutine(lambda: asyncio.sleep(0))
    hang.set()
    await until_none_is_abandoned(calls)
    assert all(ended.acquire(blocking=False) for _ in range(4))
    assert pieces == []
    assert await calls.blocking(lambda emit: 1, nothing) == 1


async def test_no_more_calls_at_a_time_than_allowed() -> None:
    running, most, lock = 0, 0, threading.Lock()

    def work(emit) -> None:
        nonlocal running, most
        with lock:
            running += 1
            most = max(most, running)
        for _ in range(20):
            emit(b"x")
        with lock:
            running -= 1

    calls = make(calls_max=3)
    async with trio.open_nursery() as nursery:
        for _ in range(20):
            nursery.start_soon(calls.blocking, work, lambda _: None)
    assert most <= 3


async def test_a_reader_that_stands_still_holds_the_library_back() -> None:
    """What is handed over and not taken is bounded: a stream is not read into memory ahead of its reader."""
    sent = 0

    def send(emit) -> None:
        nonlocal sent
        for _ in range(1000):
            emit(b"x")
            sent += 1

    ahead = list[int]()
    taken = 0

    def piece(_: bytes) -> None:
        nonlocal taken
        taken += 1
        ahead.append(sent - taken)

    await make().blocking(send, piece)
    assert taken == 1000
    assert max(ahead) <= 9
