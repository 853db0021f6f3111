"""Calls into blocking libraries: the caller is never held up, nothing arrives late, places are bounded."""

import subprocess
import sys
import threading

import pytest
import trio

from shardfs.store.calls import FIRST_NEWS_BYTES, NEXT_NEWS_BYTES, Abandoned, Call, Calls, TooManyStuck


def make(calls_max: int = 4) -> Calls:
    return Calls(calls_max=calls_max)


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
        await calls.run(fail)
    assert calls.abandoned == 0


async def test_what_is_delivered_lands_in_order_and_is_told_now_and_then() -> None:
    count, told = 40, list[int]()
    into = memoryview(bytearray(count * 65536 + 1))

    def send(call) -> str:
        for number in range(count):
            call.deliver(bytes([number]) * 65536)
        call.deliver(b"x")
        return "done"

    assert await make().run(send, into, told.append) == "done"
    assert into == b"".join(bytes([number]) * 65536 for number in range(count)) + b"x"
    assert told == sorted(set(told))
    assert told[-1] == len(into)
    assert len(told) <= 2 + len(into) // NEXT_NEWS_BYTES


async def test_the_first_block_is_told_of_before_the_rest_has_come() -> None:
    go_on, told = threading.Event(), list[int]()

    def send(call) -> None:
        call.deliver(bytes(FIRST_NEWS_BYTES))
        go_on.wait()
        call.deliver(b"x")

    def arrived(count: int) -> None:
        told.append(count)
        go_on.set()

    with trio.fail_after(30):
        await make().run(send, memoryview(bytearray(FIRST_NEWS_BYTES + 1)), arrived)
    assert told == [FIRST_NEWS_BYTES, FIRST_NEWS_BYTES + 1]


@pytest.mark.parametrize("room", [None, 5])
async def test_more_than_there_is_room_for_is_refused(room: int | None) -> None:
    into = memoryview(bytearray(room)) if room else None

    def send(call) -> None:
        call.deliver(b"12345")
        call.deliver(b"6")

    with pytest.raises(ValueError, match="more bytes than asked for"):
        await make().run(send, into)


async def test_what_the_caller_raises_ends_the_call_and_comes_out_unchanged() -> None:
    ended = threading.Event()
    error = ValueError("mine")
    into = memoryview(bytearray(FIRST_NEWS_BYTES))

    def send(call) -> None:
        call.deliver(bytes(FIRST_NEWS_BYTES))
        try:
            while True:
                call.check()
        finally:
            ended.set()

    def arrived(_: int) -> None:
        raise error

    calls = make()
    with pytest.raises(ValueError, match="mine") as caught:
        await calls.run(send, into, arrived)
    assert caught.value is error
    await until_none_is_abandoned(calls)
    assert ended.is_set()


async def test_calls_that_do_not_end_are_bounded_and_never_write() -> None:
    """A library that hangs: callers are free at once, the fifth is refused, and all is well when it wakes up."""
    hang, into = threading.Event(), memoryview(bytearray(4))
    tried, ended = threading.Semaphore(0), threading.Semaphore(0)

    def stuck(call) -> None:
        tried.release()
        hang.wait()
        try:
            call.deliver(b"late")
        except Abandoned:
            ended.release()
            raise

    calls = make(calls_max=4)
    for number in range(4):
        async with trio.open_nursery() as nursery:
            nursery.start_soon(calls.run, stuck, into)
            while not tried.acquire(blocking=False):
                await trio.lowlevel.checkpoint()
            nursery.cancel_scope.cancel()
        assert calls.abandoned == number + 1
    with pytest.raises(TooManyStuck):
        await calls.run(lambda _: 1)
    hang.set()
    await until_none_is_abandoned(calls)
    assert all(ended.acquire(blocking=False) for _ in range(4))
    assert into == bytes(4)
    assert await calls.run(lambda _: 1) == 1


async def test_a_caller_that_gives_up_owns_its_memory_again_at_once() -> None:
    """While the call's thread delivers as quickly as it can."""
    into = memoryview(bytearray(1 << 16))
    tried = threading.Event()

    def send(call) -> None:
        while True:
            call._landed = 0
            call.deliver(b"\xff" * len(into))
            tried.set()

    calls = make()
    for _ in range(20):
        tried.clear()
        async with trio.open_nursery() as nursery:
            nursery.start_soon(calls.run, send, into)
            while not tried.is_set():
                await trio.lowlevel.checkpoint()
            nursery.cancel_scope.cancel()
        into[:] = bytes(len(into))
        await until_none_is_abandoned(calls)
        assert into == bytes(len(into))


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
    left.wait()
    time.sleep(0.5)  # and comes back while Python is taken down
    print("ended", flush=True)

async def main():
    with trio.move_on_after(1e6) as scope:
        async with trio.open_nursery() as nursery:
            nursery.start_soon(Calls(calls_max=1).run, work)
            await trio.to_thread.run_sync(started.wait)
            nursery.cancel_scope.cancel()

started, left = threading.Event(), threading.Event()
trio.run(main)
print("left", flush=True)
left.set()
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
            call.deliver(b"x")
        with lock:
            running -= 1

    calls = make(calls_max=3)
    async with trio.open_nursery() as nursery:
        for _ in range(20):
            nursery.start_soon(calls.run, work, memoryview(bytearray(20)))
    assert most <= 3
