"""Copies of manifests in a local folder: a convenience that may be lost, or stop answering, at any time.

Nobody waits long for it. A disk that hangs keeps its thread, so after one late answer the folder is left alone for a
while, and its threads are counted apart from all others. What is late may still come to its end: a file appears whole
by rename, whoever waits for it or not.

It verifies nothing: who reads does.
"""

import logging
import os
import tempfile
from collections.abc import Callable
from contextlib import suppress
from math import inf
from pathlib import Path
from threading import Lock
from typing import TypeVar, TypeVarTuple

import trio

from shardfs.catalog.options import CatalogOptions
from shardfs.core.manifest import MANIFEST_BYTES_MAX

logger = logging.getLogger(__name__)

T = TypeVar("T")
Ts = TypeVarTuple("Ts")

_SPARE_SHARE = 0.1  # of the folder's limit


class ManifestFolder:
    """Given: path, options. Changing, by the event loop only: warned, silent_until. `bytes`: under its lock."""

    def __init__(self, path: Path, *, options: CatalogOptions) -> None:
        self._path = path
        self._options = options
        self._threads = trio.CapacityLimiter(options.folder_threads)
        self._turns = trio.Semaphore(options.folder_threads)  # or waiting for a thread would look like a late answer
        self._silent_until = -inf
        self._warned: set[str] = set()
        self._lock = Lock()
        self._bytes = inf  # at most so much is in it; not known before the first look

    async def read(self, name: str) -> bytes | None:
        """The whole file; None when it cannot be read in time or is too large to be a manifest."""
        return await self._ask(_read_file, self._path / name)

    async def read_late(self, name: str) -> bytes | None:
        """As `read`, where nobody else has it: a folder that does not answer is waited for like a node."""
        with trio.move_on_after(self._options.manifest_timeout):
            return await trio.to_thread.run_sync(
                _read_file, self._path / name, abandon_on_cancel=True, limiter=self._threads
            )
        return None

    async def remove(self, name: str) -> None:
        """Gone if that is possible now."""
        with suppress(OSError):
            await self._ask(_remove_file, self._path / name)

    async def write(self, name: str, data: bytes) -> None:
        """Keep a copy if that is possible now, and make room for it. A folder that does not take it is warned about."""
        if trio.current_time() < self._silent_until:
            return
        try:
            with self._lock:
                self._bytes += len(data)  # also when it is late: it may be there in the end
            await self._ask(_write_file, self._path, name, data)
            limit = self._options.folder_bytes
            if self._bytes > limit:
                # To make room for several: looking through the folder for each of ten thousand manifests would take
                # longer than fetching them.
                spare = int(limit * _SPARE_SHARE)
                await self._make_room(limit if len(data) > spare else limit - spare)
        except OSError as error:
            self._warn(error.strerror or str(error))

    async def _make_room(self, keep: int) -> None:
        """What takes long here is no sign of a disk that hangs: the folder may have very many files."""
        if trio.current_time() < self._silent_until:
            return
        with trio.move_on_after(self._options.folder_timeout):
            await trio.to_thread.run_sync(self._sweep, keep, abandon_on_cancel=True, limiter=self._threads)

    def _sweep(self, keep: int) -> None:
        with self._lock:
            self._bytes = 0  # what is written from now on is counted besides
        left = inf
        try:
            left = _sweep(self._path, keep)
        finally:
            with self._lock:
                self._bytes += left

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


def _read_file(path: Path) -> bytes | None:
    """The whole file, marked as used; None when it cannot be read or is too large to be a manifest."""
    try:
        with path.open("rb") as file:
            data = file.read(MANIFEST_BYTES_MAX + 1)
            os.utime(file.fileno())
    except OSError:
        return None
    return data if len(data) <= MANIFEST_BYTES_MAX else None


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


def _sweep(folder: Path, bytes_max: int) -> int:
    """The longest unused go until what is left has at most `bytes_max`; return how much that is."""
    with os.scandir(folder) as entries:
        kept = sorted(((e.stat().st_mtime, e.stat().st_size, e.path) for e in entries), reverse=True)
    total = 0
    for _, size, path in kept:
        if total + size > bytes_max:
            Path(path).unlink(missing_ok=True)
        else:
            total += size
    return total
