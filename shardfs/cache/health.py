"""Whether the cache disk deserves to be asked: a breaker with one question a minute.

Three errors in a row and the disk is left alone; each `PROBE_SECONDS` one caller may try it, and one success
brings it back. A full disk is no error here: it answers well, it only has no room.
"""

import threading

ERRORS_MAX = 3
PROBE_SECONDS = 60.0


class DiskHealth:
    """Thread-safe. `now` is any monotonic clock in seconds."""

    def __init__(self) -> None:
        self._lock = threading.Lock()  # guards all below; reading one attribute alone needs no lock
        self._errors = 0
        self._probe_at: float | None = None

    @property
    def bypassed(self) -> bool:
        return self._probe_at is not None

    def failed(self, now: float) -> bool:
        """An operation ended with an error of the disk. True when this one made the cache go on without it."""
        with self._lock:
            self._errors += 1
            if self._errors < ERRORS_MAX:
                return False
            begins = self._probe_at is None
            self._probe_at = now + PROBE_SECONDS
            return begins

    def succeeded(self) -> None:
        """An operation reached the disk. One that began before a bypass does not end it."""
        if self._errors and self._probe_at is None:
            with self._lock:
                if self._probe_at is None:
                    self._errors = 0

    def recovered(self) -> bool:
        """A probe succeeded. True when this ends a bypass."""
        with self._lock:
            ends = self._probe_at is not None
            self._errors = 0
            self._probe_at = None
            return ends

    def probe_due(self, now: float) -> bool:
        """Whether the caller is the one who may try now; the next chance is a minute away."""
        with self._lock:
            if self._probe_at is None or now < self._probe_at:
                return False
            self._probe_at = now + PROBE_SECONDS
            return True
