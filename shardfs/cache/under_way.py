"""How long the oldest disk operation under way has taken: the one sign of a disk that hangs, which gives no error."""

import math
import threading
from collections.abc import Callable


class UnderWay:
    """Thread-safe. `clock` is monotonic, in seconds."""

    def __init__(self, clock: Callable[[], float]) -> None:
        self._clock = clock
        self._lock = threading.Lock()  # guards all below; reading `_oldest` needs no lock
        self._began: dict[int, float] = {}  # in the order of beginning
        self._next = 0
        self._oldest = math.inf

    def begin(self) -> int:
        """An operation begins; give the number to `end`."""
        with self._lock:
            number = self._next
            self._next += 1
            now = self._began[number] = self._clock()
            self._oldest = min(self._oldest, now)
            return number

    def end(self, number: int) -> None:
        """It has returned, or failed."""
        with self._lock:
            del self._began[number]
            self._oldest = next(iter(self._began.values()), math.inf)

    def seconds(self) -> float:
        """Age of the oldest, negative without any."""
        return self._clock() - self._oldest
