"""At most so many open descriptors, however many files the cache holds: least recently used ones are closed.

Descriptors in use are never closed, so the limit may be passed by as many as there are threads inside `use`.
"""

import os
import threading
from collections import OrderedDict
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from shardfs.cache.under_way import UnderWay

DESCRIPTORS_MAX = 64


@dataclass(slots=True)
class _Open:
    fd: int
    users: int = 0
    doomed: bool = False  # forgotten while in use: closed by its last user


class DescriptorPool:
    """Thread-safe. Opens existing files only, never through a symbolic link.

    All that is done at the disk is noted in `under_way`: most of it happens within `use`, the rest within `noted`.
    """

    def __init__(self, under_way: UnderWay, limit: int = DESCRIPTORS_MAX) -> None:
        self.limit = limit
        self._under_way = under_way
        self._lock = threading.Lock()  # guards the table and every _Open in it; held for close(), not for open()
        self._open: OrderedDict[tuple[Path, int], _Open] = OrderedDict()

    def __len__(self) -> int:
        return len(self._open)

    @contextmanager
    def use(self, path: Path, flags: int = os.O_RDWR) -> Iterator[int]:
        """A descriptor of `path` that stays open within the block. OSError."""
        with self.noted():
            item = self._take((path, flags))
            try:
                yield item.fd
            finally:
                with self._lock:
                    item.users -= 1
                    if item.doomed and item.users == 0:
                        os.close(item.fd)

    @contextmanager
    def noted(self) -> Iterator[None]:
        """Something is done at the disk within the block, without a descriptor from here."""
        number = self._under_way.begin()
        try:
            yield
        finally:
            self._under_way.end(number)

    def forget(self, path: Path) -> None:
        """Close what is open of `path`: it is being removed."""
        with self._lock:
            for key in [key for key in self._open if key[0] == path]:
                self._discard(self._open.pop(key))

    def close(self) -> None:
        """Close all, those in use when their users are done."""
        with self._lock:
            while self._open:
                self._discard(self._open.popitem()[1])

    def _take(self, key: tuple[Path, int]) -> _Open:
        with self._lock:
            item = self._open.get(key)
            if item is not None:
                self._open.move_to_end(key)
                item.users += 1
                return item
        # Opening may block on a sick disk: not under the lock.
        fd = os.open(key[0], key[1] | os.O_NOFOLLOW | os.O_CLOEXEC)
        with self._lock:
            item = self._open.get(key)
            if item is not None:
                os.close(fd)  # another thread was quicker
            else:
                item = self._open[key] = _Open(fd)
            item.users += 1
            self._shrink()
            return item

    def _shrink(self) -> None:
        if len(self._open) <= self.limit:
            return
        idle = [key for key, item in self._open.items() if item.users == 0]
        for key in idle[: len(self._open) - self.limit]:
            self._discard(self._open.pop(key))

    def _discard(self, item: _Open) -> None:
        item.doomed = True
        if item.users == 0:
            os.close(item.fd)
