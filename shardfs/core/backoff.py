"""Waiting between tries: exponential with full-range jitter, bounded."""


def backoff(streak: int, first_seconds: float, max_seconds: float, chance: float) -> float:
    """Seconds to wait after the `streak`-th failure in a row (1, 2, ...).

    Between half and the whole of min(max, first * 2^(streak-1)), spread by `chance` in [0, 1), so that many
    clients that lost one node do not come back in step ("equal jitter", AWS Architecture Blog 2015).
    """
    ceiling = min(max_seconds, first_seconds * 2.0 ** min(streak - 1, 32))
    return ceiling * (0.5 + 0.5 * chance)
