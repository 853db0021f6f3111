"""Whether the cache disk deserves to be asked: a breaker with one question a minute, and open while the disk hangs.

Three errors in a row and the disk is left alone; each `probe_seconds` one caller may try it, and one success
brings it back. A full disk is no error here: it answers well, it only has no room.

A disk that hangs gives no error. It is left alone while an operation takes longer than `hang_seconds`, and is back as
soon as that one has returned; nothing else is a question to such a disk that would not take one more thread.
"""

import threading
from collections.abc import Callable
from dataclasses import dataclass

from shardfs.cache.under_way import UnderWay


@dataclass(frozen=True, slots=True)
class DiskHealthOptions:
    """`hang_seconds`: what takes longer hangs. It is more than a busy disk needs for a few MiB.

    `give_up_seconds`: what hangs for longer is not waited for with what is to be stored.
    """

    errors_max: int = 3
    probe_seconds: float = 60.0
    hang_seconds: float = 1.0
    give_up_seconds: float = 5.0


class DiskHealth:
    """Thread-safe. `now` is any monotonic clock in seconds.

    `hung` is told each time that the disk began (True) or ceased to hang, when somebody asks after that.
    """

    def __init__(
        self,
        under_way: UnderWay,
        *,
        hung: Callable[[bool], None] = lambda _: None,
        options: DiskHealthOptions = DiskHealthOptions(),
    ) -> None:
        self.options = options
        self._under_way = under_way
        self._tell_hung = hung
        self._lock = threading.Lock()  # guards all below; reading one attribute alone needs no lock
        self._errors = 0
        self._probe_at: float | None = None
        self._hung = False

    @property
    def bypassed(self) -> bool:
        """Whether to do without the disk, for errors or because it hangs."""
        return self._probe_at is not None or self.hangs

    @property
    def hangs(self) -> bool:
        """Whether an operation takes too long right now."""
        hangs = self._under_way.seconds() >= self.options.hang_seconds
        if hangs is not self._hung:
            self._turn(hangs)
        return hangs

    @property
    def given_up(self) -> bool:
        """Whether it has taken so long that nothing should be kept for it."""
        return self._under_way.seconds() >= self.options.give_up_seconds

    def failed(self, now: float) -> bool:
        """An operation ended with an error of the disk. True when this one made the cache go on without it."""
        with self._lock:
            self._errors += 1
            if self._errors < self.options.errors_max:
                return False
            begins = self._probe_at is None
            self._probe_at = now + self.options.probe_seconds
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
        if self.hangs:
            return False
        with self._lock:
            if self._probe_at is None or now < self._probe_at:
                return False
            self._probe_at = now + self.options.probe_seconds
            return True

    def _turn(self, hangs: bool) -> None:
        with self._lock:
            if hangs is self._hung:
                return
            self._hung = hangs
        self._tell_hung(hangs)
