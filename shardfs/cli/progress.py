"""How far an upload is: a bar on a terminal, a line every few seconds elsewhere. On stderr: stdout is the report.

Holes and zeros are not counted: they take no time, so they would make the speed and the time left wrong.
"""

import sys
from collections import deque
from typing import TYPE_CHECKING

import click
import trio

from shardfs.admin.upload import Tally
from shardfs.core.units import format_size

if TYPE_CHECKING:
    from rich.progress import Progress, TaskID

BAR_SECONDS = 0.2
LINE_SECONDS = 5.0
WINDOW_SECONDS = 15.0


class Speed:
    """Bytes per second over the last `WINDOW_SECONDS`. Time comes in as an argument; samples are bounded by age."""

    def __init__(self) -> None:
        self._samples: deque[tuple[float, int]] = deque()

    def sample(self, now: float, done: int) -> float | None:
        """Take note that `done` bytes are done at `now`; the speed, None while nothing can be said."""
        self._samples.append((now, done))
        while len(self._samples) > 2 and self._samples[1][0] <= now - WINDOW_SECONDS:
            self._samples.popleft()
        first, before = self._samples[0]
        return (done - before) / (now - first) if now > first and done > before else None


def describe(tally: Tally, speed: float | None) -> str:
    """`42 %  1.26 GiB of 3.00 GiB  155 MiB/s  0:12 left`; without a speed, how far it is and no more."""
    done, total = tally.sent + tally.present, tally.total - tally.zero
    parts = [f"{percent(done, total)} %", f"{format_size(done)} of {format_size(total)}"]
    if speed:
        left = "publishing" if tally.committing else f"{clock((total - done) / speed)} left"
        parts += [f"{format_size(speed)}/s", left]
    return "  ".join(parts)


def percent(done: int, total: int) -> int:
    """Rounded down, so that 100 is only said when it is."""
    return 100 * done // total if total else 100


def clock(seconds: float) -> str:
    """`0:05`, `12:34`, `1:02:03`."""
    minutes, rest = divmod(round(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours}:{minutes:02}:{rest:02}" if hours else f"{minutes}:{rest:02}"


async def show_progress(tally: Tally) -> None:
    """Show `tally` until cancelled."""
    if sys.stderr.isatty():
        await _bar(tally)
    else:
        await _lines(tally)


async def _lines(tally: Tally) -> None:
    speed = Speed()
    speed.sample(trio.current_time(), 0)
    try:
        while True:
            await trio.sleep(LINE_SECONDS)
            now = speed.sample(trio.current_time(), tally.sent + tally.present)
            click.echo(describe(tally, now), err=True)
    finally:
        if tally.committing:  # a failure before that speaks for itself
            click.echo(describe(tally, None), err=True)


def _update(bar: "Progress", task: "TaskID", tally: Tally, text: str) -> None:
    # A total of 0 would never look finished.
    total = max(1, tally.total - tally.zero)
    done = tally.sent + tally.present if tally.total > tally.zero else 1
    bar.update(task, total=total, completed=done, description=text, refresh=True)


async def _bar(tally: Tally) -> None:
    from rich.console import Console
    from rich.progress import BarColumn, Progress, TextColumn

    bar = Progress(
        BarColumn(bar_width=None),
        TextColumn("{task.description}", markup=False),
        console=Console(stderr=True),
        auto_refresh=False,
        expand=True,
    )
    speed = Speed()
    with bar:
        task = bar.add_task("", total=tally.total)
        try:
            while True:
                now = speed.sample(trio.current_time(), tally.sent + tally.present)
                _update(bar, task, tally, describe(tally, now))
                await trio.sleep(BAR_SECONDS)
        finally:
            _update(bar, task, tally, describe(tally, None))
