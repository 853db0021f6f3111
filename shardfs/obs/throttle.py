"""Log lines that come by the thousand when everything fails at once: a few, then how many were left out."""


class Throttle:
    """At most `burst` lines in each `seconds`. Pure: the time comes in as an argument."""

    def __init__(self, burst: int = 10, seconds: float = 5.0) -> None:
        self._burst = burst
        self._seconds = seconds
        self._since = -float("inf")
        self._count = 0

    def admit(self, now: float) -> tuple[bool, int]:
        """Whether to say this one, and how many were left out before it and not yet spoken of."""
        left_out = 0
        if now - self._since >= self._seconds:
            left_out = max(0, self._count - self._burst)
            self._since, self._count = now, 0
        self._count += 1
        return self._count <= self._burst, left_out
