"""A bug in an attempt costs one attempt, and the next copy hides it: here it must not stay hidden."""

import logging
from collections.abc import Iterator

import pytest


class _Bugs(logging.Handler):
    def __init__(self) -> None:
        super().__init__(logging.ERROR)
        self.seen: list[str] = []

    def emit(self, record: logging.LogRecord) -> None:
        if record.exc_info:
            self.seen.append(logging.Formatter().format(record))


@pytest.fixture
def bugs_expected() -> None:
    """For a test that brings in bugs of its own."""


@pytest.fixture(autouse=True)
def no_bug_is_overlooked(request: pytest.FixtureRequest) -> Iterator[None]:
    bugs = _Bugs()
    logger = logging.getLogger("shardfs")
    logger.addHandler(bugs)
    yield
    logger.removeHandler(bugs)
    if "bugs_expected" not in request.fixturenames:
        assert bugs.seen == []
