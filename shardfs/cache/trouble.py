"""What is said and counted when the disk fails, fills up, hangs, or is there again."""

import logging
from collections.abc import Callable

from shardfs.cache.folder import CacheFolder
from shardfs.cache.health import DiskHealth, DiskHealthOptions
from shardfs.cache.shared import Counters, is_full, is_own_trouble
from shardfs.cache.under_way import UnderWay
from shardfs.obs.throttle import Throttle

_log = logging.getLogger(__name__)

_HANGS_SAID = 5


class Trouble:
    """Thread-safe. `health` follows from what is told here and from what is under way."""

    def __init__(
        self,
        folder: CacheFolder,
        counters: Counters,
        under_way: UnderWay,
        *,
        clock: Callable[[], float],
        options: DiskHealthOptions,
    ) -> None:
        self.health = DiskHealth(under_way, hung=self._hung, options=options)
        self._under_way = under_way
        self._folder = folder
        self._counters = counters
        self._clock = clock
        self._warned_full = False
        # A disk that comes and goes: after some pairs of lines in a minute neither is said.
        self._throttle = Throttle(burst=_HANGS_SAID, seconds=60.0)
        self._said_hung = False

    def probe(self) -> bool:
        """Ask the disk whether it is there again."""
        number = self._under_way.begin()
        try:
            if not self._folder.answers():
                return False
        finally:
            self._under_way.end(number)
        if self.health.recovered():
            _log.info("cache folder %s: in use again", self._folder.path)
        return True

    def troubled(self, error: OSError, counter: str) -> None:
        """Count an error; warn once of a full disk and once each time the disk is given up."""
        self._counters.add(counter, 1)
        if is_full(error):
            if not self._warned_full:
                self._warned_full = True
                _log.warning("cache folder %s: the disk is full; going on with less", self._folder.path)
        elif not is_own_trouble(error) and self.health.failed(self._clock()):
            _log.warning(
                "cache folder %s: %s; going on without it, next try in %d s",
                self._folder.path,
                error.strerror or error,
                self.health.options.probe_seconds,
            )

    def _hung(self, hangs: bool) -> None:
        if hangs:
            self._said_hung, left_out = self._throttle.admit(self._clock())
            if left_out:
                _log.warning("cache folder %s: and did not answer %d times more", self._folder.path, left_out)
            if self._said_hung:
                _log.warning("cache folder %s: the disk does not answer; going on without it", self._folder.path)
        elif self._said_hung and not self.health.bypassed:  # it may have answered with errors
            _log.info("cache folder %s: in use again", self._folder.path)
