"""The log of a command: lines on stderr. That of a daemon in the background is in `shardfs.cli.log_file`."""

import logging

TIMED_WITH_ORIGIN = "%(asctime)s %(levelname)s %(name)s: %(message)s"


def log_to_stderr(*, debug: bool) -> None:
    """Warnings as `shardfs: ...`; with `debug` everything, with time and origin."""
    if debug:
        logging.basicConfig(level=logging.DEBUG, format=TIMED_WITH_ORIGIN)
    else:
        logging.basicConfig(level=logging.WARNING, format="shardfs: %(message)s")
