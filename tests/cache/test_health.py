"""The breaker of the disk cache, as a table of errors, successes and probes over time."""

import pytest

from shardfs.cache.health import DiskHealth


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
    health = DiskHealth()
    for event in events.split():
        {"f": lambda: health.failed(0), "s": health.succeeded, "r": health.recovered}[event]()
    assert health.bypassed == bypassed


def test_each_change_is_told_once() -> None:
    health = DiskHealth()
    assert [health.failed(0) for _ in range(5)] == [False, False, True, False, False]
    assert [health.recovered(), health.recovered()] == [True, False]


def test_one_probe_a_minute() -> None:
    health = DiskHealth()
    assert not health.probe_due(1000)
    for _ in range(3):
        health.failed(100)
    assert [health.probe_due(now) for now in (100, 159, 160, 160, 219, 220)] == [False, False, True, False, False, True]
