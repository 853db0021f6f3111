"""Where the log goes while a command runs: warnings to stderr in the form of every other message."""

import logging


def log_to_stderr(*, debug: bool) -> None:
    """Warnings as `shardfs: ...`; with `debug` everything, with time and origin."""
    if debug:
        logging.basicConfig(level=logging.DEBUG, format="%(asctime)s %(levelname)s %(name)s: %(message)s")
    else:
        logging.basicConfig(level=logging.WARNING, format="shardfs: %(message)s")
