"""Copies of manifests in a local folder: a convenience that may be lost, or stop answering, at any time.

Nobody waits long for it. A disk that hangs keeps its thread, so after one late answer the folder is left alone for a
while, and its threads are counted apart from all others. What is late may still come to its end: a file appears whole
by rename, whoever waits for it or not.

Its limit holds at every instant: it counts what files take from the disk, and room is made before one is written.

It verifies nothing: who reads does.
"""

import logging
import os
import tempfile
import time
from collections.abc import Callable
from contextlib import suppress
from math import inf
from pathlib import Path
from threading import Lock
from typing import TypeVar, TypeVarTuple

import trio

from shardfs.catalog.options import CatalogOptions

logger = logging.getLogger(__name__)

T = TypeVar("T")
Ts = TypeVarTuple("Ts")

_SPARE_SHARE = 0.1  # of the folder's limit
_PAGE_BYTES = 4096
_WRITE_SECONDS_MAX = 60.0


class ManifestFolder:
    """Given: path, options. Changing, by the event loop only: warned, silent_until. Under its lock: what is in it."""

    def __init__(self, path: Path, *, options: CatalogOptions) -> None:
        self._path = path
        self._options = options
        self._threads = trio.CapacityLimiter(options.folder_threads)
        self._turns = trio.Semaphore(options.folder_threads)  # or waiting for a thread would look like a late answer
        self._silent_until = -inf
        self._warned: set[str] = set()
        self._lock = Lock()
        self._bytes = inf  # at most so much is in it; not known before the first look
        self._under_way = 0  # of that, what is being written
        self._sweeping = False
        self._sweeps = trio.Lock()

    async def read(self, name: str, limit: int) -> bytes | None:
        """The first `limit` bytes of the file; None when it cannot be read in time."""
        return await self._ask(_read_file, self._path / name, limit)

    async def read_late(self, name: str, limit: int) -> bytes | None:
        """As `read`, where nobody else has it: a folder that does not answer is waited for like a node."""
        with trio.move_on_after(self._options.manifest_timeout):
            return await trio.to_thread.run_sync(
                _read_file, self._path / name, limit, abandon_on_cancel=True, limiter=self._threads
            )
        return None

    async def remove(self, name: str) -> None:
        """Gone if that is possible now."""
        with suppress(OSError):
            await self._ask(_remove_file, self._path / name)

    async def write(self, name: str, data: bytes) -> None:
        """Keep a copy if that is possible now. Room is made before; a folder that does not take it is warned about."""
        try:
            if await self._ask(self._write, name, data) is False and await self._make_room(len(data)):
                await self._ask(self._write, name, data)
        except OSError as error:
            self._warn(error.strerror or str(error))

    async def tidy(self) -> None:
        """Let what an earlier owner left beyond the limit go."""
        try:
            await self._make_room(0)
        except OSError as error:
            self._warn(error.strerror or str(error))

    def _write(self, name: str, data: bytes) -> bool:
        """False when there is no room for it. It is counted before it is there, until it is known to be gone."""
        charge = _charge(len(data))
        with self._lock:
            if self._bytes + charge > self._options.folder_bytes:
                return False
            self._bytes += charge
            self._under_way += charge
        try:
            _write_file(self._path, name, data)
        finally:
            with self._lock:
                self._under_way -= charge
        return True

    async def _make_room(self, size: int) -> bool:
        """Whether there may be room for `size` bytes now.

        What takes long here is no sign of a disk that hangs: the folder may have very many files.
        """
        charge, limit = _charge(size), self._options.folder_bytes
        if charge > limit:
            return False
        # For several: looking through the folder for each of ten thousand manifests would take longer than fetching
        # them.
        keep = limit - max(charge, int(limit * _SPARE_SHARE))
        async with self._sweeps:  # who waited for another's sweep may find room
            if self._bytes + charge <= limit:
                return True
            if trio.current_time() < self._silent_until:
                return False
            with trio.move_on_after(self._options.folder_timeout):
                await trio.to_thread.run_sync(self._sweep, keep, abandon_on_cancel=True, limiter=self._threads)
        return self._bytes + charge <= limit

    def _sweep(self, keep: int) -> None:
        """Nothing new is written meanwhile; what is being written may be counted twice, until the next time."""
        with self._lock:
            if self._sweeping:
                return  # one that was late has not ended yet
            self._sweeping, self._bytes, under_way = True, inf, self._under_way
        left = inf
        try:
            left = _sweep(self._path, max(0, keep - under_way)) + under_way
        finally:
            with self._lock:
                self._sweeping, self._bytes = False, left

    async def _ask(self, step: Callable[[*Ts], T], *args: *Ts) -> T | None:
        """What `step` returns in a thread; None when it is late, or was so a short time ago."""
        async with self._turns:
            if trio.current_time() < self._silent_until:
                return None
            with trio.move_on_after(self._options.folder_timeout):
                return await trio.to_thread.run_sync(step, *args, abandon_on_cancel=True, limiter=self._threads)
        self._silent_until = trio.current_time() + self._options.folder_pause
        self._warn("the disk does not answer")
        return None

    def _warn(self, why: str) -> None:
        if why not in self._warned:
            self._warned.add(why)
            logger.warning("manifests are not kept in %s: %s", self._path, why)


def _read_file(path: Path, limit: int) -> bytes | None:
    """The first `limit` bytes of the file, which is marked as used; None when it cannot be read."""
    try:
        with path.open("rb") as file:
            data = file.read(limit)
            os.utime(file.fileno())
            return data
    except OSError:
        return None


def _remove_file(path: Path) -> None:
    path.unlink(missing_ok=True)


def _write_file(folder: Path, name: str, data: bytes) -> None:
    """Whole or absent, by rename."""
    folder.mkdir(parents=True, exist_ok=True)
    handle, temporary = tempfile.mkstemp(prefix=".", suffix=".new", dir=folder)
    try:
        with os.fdopen(handle, "wb") as file:
            file.write(data)
        os.replace(temporary, folder / name)
    except BaseException:
        Path(temporary).unlink(missing_ok=True)
        raise


def _charge(size: int) -> int:
    """What a file of that size takes from the disk."""
    return -(-size // _PAGE_BYTES) * _PAGE_BYTES


def _sweep(folder: Path, bytes_max: int) -> int:
    """The longest unused go until what is left takes at most `bytes_max` of the disk; return how much that is."""
    folder.mkdir(parents=True, exist_ok=True)
    kept = []
    with os.scandir(folder) as entries:
        for entry in entries:
            with suppress(FileNotFoundError):
                if entry.name.endswith(".new") and time.time() - entry.stat().st_mtime < _WRITE_SECONDS_MAX:
                    continue  # on its way, and counted as such
                kept.append((entry.stat().st_mtime, entry.stat().st_size, entry.path))
    total = 0
    for _, size, path in sorted(kept, reverse=True):
        charge = _charge(size)
        if total + charge > bytes_max:
            Path(path).unlink(missing_ok=True)
        else:
            total += charge
    return total
