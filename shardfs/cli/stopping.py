"""Commands that carry a model: Ctrl-C and SIGTERM stop them at once, but not while one is becoming visible."""

import signal
from collections.abc import Awaitable, Callable
from typing import TypeVar

import click
import trio

from shardfs.admin.upload import Tally
from shardfs.cli.output import warn

T = TypeVar("T")


async def stoppable(tally: Tally, work: Callable[[], Awaitable[T]], *, publishes: bool = True) -> T:
    """What `work()` returns. A signal before `tally.committing` cancels it, says so and ends the program."""
    done: list[T] = []  # at most one; empty when a signal came first
    caught: list[int] = []
    async with trio.open_nursery() as nursery:
        await nursery.start(_stop_on_signal, nursery.cancel_scope, tally, caught)
        done.append(await work())
        nursery.cancel_scope.cancel()
    if not done:
        warn(f"stopped{', nothing is published' if publishes else ''}; the same command goes on from here")
        raise click.exceptions.Exit(128 + caught[0])
    return done[0]


async def _stop_on_signal(
    scope: trio.CancelScope, tally: Tally, caught: list[int], *, task_status: trio.TaskStatus[None]
) -> None:
    """Cancel `scope` at the first signal. After it the usual handlers are back: a second one ends the program."""
    with trio.open_signal_receiver(signal.SIGINT, signal.SIGTERM) as signals:
        task_status.started()
        async for number in signals:
            if tally.committing:
                warn("everything is stored and is being published, which is not stopped halfway")
                continue
            caught.append(number)
            scope.cancel()
            return
