"""The breaker of the disk cache, as a table of errors, successes, probes and operations over time."""

import errno
from pathlib import Path

import pytest

from shardfs.cache.folder import CacheFolder
from shardfs.cache.health import DiskHealth, DiskHealthOptions
from shardfs.cache.shared import Counters
from shardfs.cache.trouble import Trouble
from shardfs.cache.under_way import UnderWay
from tests.cache.samples import Clock


@pytest.mark.parametrize(
    ("events", "bypassed"),
    [
        ("", False),
        ("f f", False),
        ("f f f", True),
        ("f f s f f", False),
        ("f f s f f f", True),
        ("f f f s", True),  # it had begun before
        ("f f f r", False),
        ("f f f r f f", False),
    ],
)
def test_three_errors_in_a_row(events: str, bypassed: bool) -> None:
    health = DiskHealth(UnderWay(lambda: 0.0))
    for event in events.split():
        {"f": lambda: health.failed(0), "s": health.succeeded, "r": health.recovered}[event]()
    assert health.bypassed == bypassed


def test_each_change_is_told_once() -> None:
    health = DiskHealth(UnderWay(lambda: 0.0))
    assert [health.failed(0) for _ in range(5)] == [False, False, True, False, False]
    assert [health.recovered(), health.recovered()] == [True, False]


def test_one_probe_a_minute() -> None:
    health = DiskHealth(UnderWay(lambda: 0.0))
    assert not health.probe_due(1000)
    for _ in range(3):
        health.failed(100)
    assert [health.probe_due(now) for now in (100, 159, 160, 160, 219, 220)] == [False, False, True, False, False, True]


def test_the_oldest_operation_under_way() -> None:
    clock = Clock()
    under_way = UnderWay(clock)
    assert under_way.seconds() < 0
    first = under_way.begin()
    clock.now += 3
    second = under_way.begin()
    assert under_way.seconds() == 3
    under_way.end(first)
    clock.now += 1
    assert under_way.seconds() == 1
    third = under_way.begin()
    under_way.end(second)
    assert under_way.seconds() == 0
    under_way.end(third)
    assert under_way.seconds() < 0


def test_hanging_until_the_oldest_has_returned() -> None:
    """Each change is told once, when somebody asks. Errors and hanging do not end each other."""
    clock = Clock()
    under_way = UnderWay(clock)
    told: list[bool] = []
    health = DiskHealth(under_way, hung=told.append, options=DiskHealthOptions(hang_seconds=2.0))
    first = under_way.begin()
    clock.now += 1.5
    second = under_way.begin()
    assert (health.hangs, health.bypassed, told) == (False, False, [])
    clock.now += 0.5
    assert not health.given_up
    assert [health.hangs, health.bypassed, health.hangs] == [True] * 3
    assert told == [True]
    health.recovered()
    assert health.bypassed
    assert not health.probe_due(clock.now), "it would cost one more thread"
    under_way.end(first)
    assert [health.hangs, health.bypassed] == [False, False]
    assert told == [True, False]
    clock.now += 1.5
    assert health.hangs, "the second"
    for _ in range(3):
        health.failed(clock.now)
    under_way.end(second)
    assert (health.hangs, health.bypassed) == (False, True)
    assert told == [True, False, True, False]


def test_what_hangs_for_long_is_given_up() -> None:
    clock = Clock()
    under_way = UnderWay(clock)
    health = DiskHealth(under_way, options=DiskHealthOptions(give_up_seconds=5.0))
    number = under_way.begin()
    clock.now += 4.9
    assert (health.hangs, health.given_up) == (True, False)
    clock.now += 0.2
    assert health.given_up
    under_way.end(number)
    assert not health.given_up


def test_a_disk_that_answers_with_errors_is_not_in_use_again(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    """A hang that ends in errors; nor is it asked again while the last question hangs."""
    caplog.set_level("INFO")
    clock = Clock()
    under_way = UnderWay(clock)
    folder = CacheFolder.claim(tmp_path / "cache")
    trouble = Trouble(folder, Counters(), under_way, clock=clock, options=DiskHealthOptions())
    number = under_way.begin()
    clock.now += 2.0
    assert trouble.health.hangs
    for _ in range(3):
        trouble.troubled(OSError(errno.EIO, "Input/output error"), "read_errors")
    under_way.end(number)
    assert not trouble.health.hangs
    assert trouble.health.bypassed
    assert "in use again" not in caplog.text
    clock.now += 61.0
    assert trouble.health.probe_due(clock.now)
    under_way.begin()  # the question
    clock.now += 61.0
    assert not trouble.health.probe_due(clock.now)
    folder.release()
