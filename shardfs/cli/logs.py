"""The log of a command: lines on stderr. That of a daemon in the background is in `shardfs.cli.log_file`."""

import logging

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
