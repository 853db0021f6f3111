"""The log of a command: lines on stderr. That of a daemon in the background is in `shardfs.cli.log_file`."""

import logging
from collections.abc import Iterator
from contextlib import contextmanager

TIMED_WITH_ORIGIN = "%(asctime)s %(levelname)s %(name)s: %(message)s"
_TELLTALES = ("botocore", "urllib3")
"""Libraries that log what they send and get, the secrets of AWS roles among it; as warnings still with what a service
said. What came of it is in our own messages."""


def log_to_stderr(*, debug: bool) -> None:
    """Warnings as `shardfs: ...`; with `debug` everything, with time and origin, but no secrets."""
    for name in _TELLTALES:
        logging.getLogger(name).setLevel(logging.ERROR)
    if debug:
        logging.basicConfig(level=logging.DEBUG, format=TIMED_WITH_ORIGIN)
    else:
        logging.basicConfig(level=logging.WARNING, format="shardfs: %(message)s")


@contextmanager
def without_warnings(origin: str) -> Iterator[None]:
    """Leave out what the logger `origin` warns of, because the command says the same itself. `--debug` shows it."""
    logger = logging.getLogger(origin)
    before = logger.level
    if not logger.isEnabledFor(logging.DEBUG):
        logger.setLevel(logging.ERROR)
    try:
        yield
    finally:
        logger.setLevel(before)
