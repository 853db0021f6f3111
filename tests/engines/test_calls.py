"""Calls into blocking libraries: the caller is never held up, nothing arrives late, places are bounded."""

import subprocess
import sys
import threading

import pytest
import trio

from shardfs.store.calls import Abandoned, Call, Calls, TooManyStuck


def make(calls_max: int = 4) -> Calls:
    return Calls(calls_max=calls_max)


def nothing(_: bytes) -> None:
    raise AssertionError("a piece that nobody sent")


async def until_none_is_abandoned(calls: Calls) -> None:
    while calls.abandoned:
        await trio.lowlevel.checkpoint()


class Stop(Exception):
    pass


async def test_results_and_errors() -> None:
    def fail(_: Call) -> int:
        raise Stop

    calls = make()
    assert await calls.run(lambda _: 8) == 8
    with pytest.raises(Stop):
        await calls.run(fail, nothing)
    assert calls.abandoned == 0


async def test_pieces_come_in_order_and_no_more_than_the_caller_takes() -> None:
    count, got = 1000, list[bytes]()

    def send(call) -> str:
        for number in range(count):
            call.emit(b"%d" % number)
        return "done"

    assert await make().run(send, got.append) == "done"
    assert got == [b"%d" % number for number in range(count)]


async def test_what_a_piece_raises_ends_the_call_and_comes_out_unchanged() -> None:
    ended = threading.Event()
    error = ValueError("mine")

    def send(call) -> None:
        try:
            while True:
                call.emit(b"x")
        finally:
            ended.set()

    def piece(_: bytes) -> None:
        raise error

    calls = make()
    with pytest.raises(ValueError, match="mine") as caught:
        await calls.run(send, piece)
    assert caught.value is error
    await until_none_is_abandoned(calls)
    assert ended.is_set()


async def test_calls_that_do_not_end_are_bounded_and_never_write() -> None:
    """A library that hangs: callers are free at once, the fifth is refused, and all is well when it wakes up."""
    hang, pieces = threading.Event(), list[bytes]()
    tried, ended = threading.Semaphore(0), threading.Semaphore(0)

    def stuck(call) -> None:
        tried.release()
        hang.wait()
        try:
            call.emit(b"late")
        except Abandoned:
            ended.release()
            raise

    calls = make(calls_max=4)
    for number in range(4):
        async with trio.open_nursery() as nursery:
            nursery.start_soon(calls.run, stuck, pieces.append)
            while not tried.acquire(blocking=False):
                await trio.lowlevel.checkpoint()
            nursery.cancel_scope.cancel()
        assert calls.abandoned == number + 1
    with pytest.raises(TooManyStuck):
        await calls.run(lambda _: 1)
    hang.set()
    await until_none_is_abandoned(calls)
    assert all(ended.acquire(blocking=False) for _ in range(4))
    assert pieces == []
    assert await calls.run(lambda _: 1) == 1


async def test_a_function_can_ask_whether_anybody_waits() -> None:
    asked, go_on = threading.Event(), threading.Event()
    reached: list[str] = []

    def work(call: Call) -> None:
        asked.set()
        go_on.wait()
        call.check()
        reached.append("too far")

    calls = make()
    async with trio.open_nursery() as nursery:
        nursery.start_soon(calls.run, work)
        while not asked.is_set():
            await trio.lowlevel.checkpoint()
        nursery.cancel_scope.cancel()
    go_on.set()
    await until_none_is_abandoned(calls)
    assert reached == []


def test_the_end_of_a_program_waits_for_a_call_that_nobody_waits_for() -> None:
    """A thread of a library that comes back while Python is taken down aborts the process."""
    program = """
import threading, time, trio
from shardfs.store.calls import Calls

def work(call):
    started.set()
    time.sleep(0.5)
    print("ended", flush=True)

async def main():
    with trio.move_on_after(1e6) as scope:
        async with trio.open_nursery() as nursery:
            nursery.start_soon(Calls(calls_max=1).run, work)
            await trio.to_thread.run_sync(started.wait)
            nursery.cancel_scope.cancel()

started = threading.Event()
trio.run(main)
print("left", flush=True)
"""
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True)
    assert done.stdout.split() == ["left", "ended"]


async def test_no_more_calls_at_a_time_than_allowed() -> None:
    running, most, lock = 0, 0, threading.Lock()

    def work(call) -> None:
        nonlocal running, most
        with lock:
            running += 1
            most = max(most, running)
        for _ in range(20):
            call.emit(b"x")
        with lock:
            running -= 1

    calls = make(calls_max=3)
    async with trio.open_nursery() as nursery:
        for _ in range(20):
            nursery.start_soon(calls.run, work, lambda _: None)
    assert most <= 3


async def test_a_reader_that_stands_still_holds_the_library_back() -> None:
    """What is handed over and not taken is bounded: a stream is not read into memory ahead of its reader."""
    sent = 0

    def send(call) -> None:
        nonlocal sent
        for _ in range(1000):
            call.emit(b"x")
            sent += 1

    ahead = list[int]()
    taken = 0

    def piece(_: bytes) -> None:
        nonlocal taken
        taken += 1
        ahead.append(sent - taken)

    await make().run(send, piece)
    assert taken == 1000
    assert max(ahead) <= 9
