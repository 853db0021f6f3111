"""Download: a generation's files written to a local folder, each whole or absent, holes kept as holes.

A file is written beside its place under a temporary name, forced to disk and renamed. A file that is there already
with exactly the right bytes is left alone; one with other bytes is never overwritten unless asked for. A file that
was begun stays under its temporary name, and a second run takes from it every chunk that verifies.

Patience is measured by what comes: a chunk is asked for again while verified bytes come from anywhere, however slowly,
and for a while when none do, since nodes come back. There is no limit for the whole and no least speed.
"""

import errno
import os
from dataclasses import dataclass, field
from pathlib import Path

import trio

from shardfs.admin.folders import make_folder
from shardfs.admin.part import bytes_kept, finish_part, open_part, part_path
from shardfs.admin.upload import Tally
from shardfs.core.chunk import make_header
from shardfs.core.manifest import FileEntry, Manifest
from shardfs.core.ranges import chunk_count, chunk_length
from shardfs.core.readahead import ReadAheadOptions
from shardfs.core.units import format_size
from shardfs.errors import DeadlineExceeded, NoCopy, SourceError
from shardfs.fetch import Engine
from shardfs.obs.reading import ReadMetrics
from shardfs.store.fleet import Fleet
from shardfs.vfs.content import Content

STALL_SECONDS = 60.0
_AGAIN_SECONDS_MIN = 0.5
_AGAIN_SECONDS_MAX = 5.0
_AGAIN_SHARE = 0.05
"""Of `stall_seconds`, at most, between two tries: an engine that tries for 0.9 of it must get a byte in between."""
_LOOK_SECONDS = 1.0


@dataclass(frozen=True, slots=True)
class DownloadOptions:
    """`overwrite`: replace files that have other bytes. `stall_seconds`: without a verified byte, until it is given up.

    `job_seconds`: a bit less than the engine tries; what it gives up sooner, with every node well, nobody has.
    """

    overwrite: bool = False
    stall_seconds: float = STALL_SECONDS
    job_seconds: float = 8.0
    readahead: ReadAheadOptions = field(default_factory=ReadAheadOptions)


class Download:
    """One run; `tally.sent` counts what was fetched and written.

    `dest` is the file itself for a single-file model, else the folder.
    """

    def __init__(
        self,
        manifest: Manifest,
        dest: Path,
        engine: Engine,
        *,
        fleet: Fleet,
        metrics: ReadMetrics,
        tally: Tally,
        options: DownloadOptions,
    ) -> None:
        self._manifest = manifest
        self._dest = dest
        self._engine = engine
        self._fleet = fleet
        self._metrics = metrics
        self._tally = tally
        self._options = options
        tally.total = manifest.size

    async def run(self) -> None:
        """Write everything. NoCopy, DeadlineExceeded; SourceError names a local file that is in the way or fails."""
        try:
            if not self._manifest.single:
                for folder in ("", *self._manifest.folders):
                    await trio.to_thread.run_sync(make_folder, self._dest, folder)
            for entry in self._manifest.files:
                await self._file(entry, self._dest / entry.path if entry.path else self._dest)
        except OSError as error:
            raise SourceError(f"{error.filename or self._dest}: {error.strerror}") from None

    async def _file(self, entry: FileEntry, path: Path) -> None:
        if entry.path:
            await trio.to_thread.run_sync(make_folder, self._dest, entry.path.rpartition("/")[0])
        if await trio.to_thread.run_sync(os.path.lexists, path):
            if await trio.to_thread.run_sync(self._equal, entry, path, abandon_on_cancel=True):
                self._tally.present += entry.size
                return
            if not self._options.overwrite:
                raise SourceError(f"{path}: exists with other content (--overwrite replaces it)")
        if not entry.path:
            await trio.to_thread.run_sync(lambda: path.parent.mkdir(parents=True, exist_ok=True))
        part = part_path(path, self._manifest, entry)
        fd = open_part(part, executable=entry.executable)
        try:
            await self._bytes(entry, fd)
            await trio.to_thread.run_sync(_sync, os.dup(fd), abandon_on_cancel=True)
            finish_part(part, fd, path)
        except OSError as error:
            kept = bytes_kept(part, fd)
            stays = f"; it is kept ({format_size(kept)}), and the same command goes on from there" if kept else ""
            raise SourceError(f"{part}: {error.strerror}{stays}") from None
        except BaseException:
            bytes_kept(part, fd)
            raise
        finally:
            os.close(fd)
        await trio.to_thread.run_sync(_sync_folder, path.parent, abandon_on_cancel=True)

    async def _bytes(self, entry: FileEntry, fd: int) -> None:
        manifest = self._manifest
        content = Content(manifest, entry, engine=self._engine, disk=None, readahead=self._options.readahead)
        buffer = bytearray(min(manifest.chunk_size, entry.size))
        begun = os.fstat(fd).st_size > 0
        os.truncate(fd, entry.size)
        for chunk in range(chunk_count(entry.size, manifest.chunk_size)):
            length = chunk_length(entry.size, manifest.chunk_size, chunk)
            offset = chunk * manifest.chunk_size
            there = begun and await trio.to_thread.run_sync(self._there, entry, chunk, fd)
            if manifest.digest(entry, chunk) is None:
                self._tally.zero += length
                continue
            if there:
                self._tally.present += length
                continue
            await self._fetch(content, entry, offset, memoryview(buffer)[:length])
            await trio.to_thread.run_sync(_write_all, fd, memoryview(buffer)[:length], offset)
            self._tally.sent += length

    def _there(self, entry: FileEntry, chunk: int, fd: int) -> bool:
        """Whether an earlier run has written this chunk; what lies where a hole belongs is cleared. In a thread."""
        manifest = self._manifest
        offset = chunk * manifest.chunk_size
        length = chunk_length(entry.size, manifest.chunk_size, chunk)
        try:
            written = os.lseek(fd, offset, os.SEEK_DATA) < offset + length
        except OSError as error:
            if error.errno != errno.ENXIO:  # which means: nothing from here on
                raise
            written = False
        wanted = manifest.digest(entry, chunk)
        if not written or wanted is None:
            if written:
                _write_all(fd, memoryview(bytes(length)), offset)
            return False
        return make_header(os.pread(fd, length, offset), manifest.block_size)[0] == wanted

    async def _fetch(self, content: Content, entry: FileEntry, offset: int, into: memoryview) -> None:
        """Fill `into` from `offset` on, in as many tries as it takes. NoCopy, DeadlineExceeded."""
        reasons: list[NoCopy] = []
        with trio.CancelScope() as patience:
            async with trio.open_nursery() as nursery:
                nursery.start_soon(self._cancel_when_stalled, patience)
                came, pause = self._came(), _AGAIN_SECONDS_MIN
                while not await self._try(content, offset, into, reasons):
                    if self._came() != came:
                        came, pause = self._came(), _AGAIN_SECONDS_MIN
                    await trio.sleep(min(pause, self._options.stall_seconds * _AGAIN_SHARE))
                    pause = min(pause * 2, _AGAIN_SECONDS_MAX)
                nursery.cancel_scope.cancel()
        if patience.cancelled_caught:
            why = f" ({reasons[-1]})" if reasons else ""
            raise DeadlineExceeded(
                f"{entry.path or self._dest.name}: no block of {format_size(self._manifest.block_size)} has come "
                f"for {self._options.stall_seconds:g} s{why}; "
                "what has come stays, and the same command goes on from there"
            )
        if reasons:
            raise reasons[-1]

    async def _try(self, content: Content, offset: int, into: memoryview, reasons: list[NoCopy]) -> bool:
        """Whether another try is of no use: `into` is full and `reasons` empty, or nobody has it."""
        began = trio.current_time()
        try:
            into[:] = await content.read(offset, len(into))
        except NoCopy as error:
            reasons.append(error)
            quick = trio.current_time() - began < self._options.job_seconds
            return quick and all(store.available for store in self._fleet.stores)
        reasons.clear()
        return True

    async def _cancel_when_stalled(self, scope: trio.CancelScope) -> None:
        """Cancel `scope` when no verified byte has come for the limit, for this chunk or those fetched ahead."""
        limit = self._options.stall_seconds
        came, since = self._came(), trio.current_time()
        while trio.current_time() < since + limit:
            await trio.sleep(min(_LOOK_SECONDS, limit / 10))
            if self._came() != came:
                came, since = self._came(), trio.current_time()
        scope.cancel()

    def _came(self) -> int:
        return self._metrics.total(self._metrics.fetched_bytes)

    def _equal(self, entry: FileEntry, path: Path) -> bool:
        """Whether the file at `path` has exactly the entry's bytes. Blocks for long: in a thread that may be left."""
        if path.is_symlink() or not path.is_file() or path.stat().st_size != entry.size:
            return False
        manifest = self._manifest
        with path.open("rb") as file:
            for chunk in range(chunk_count(entry.size, manifest.chunk_size)):
                length = chunk_length(entry.size, manifest.chunk_size, chunk)
                plain = file.read(length)
                if len(plain) != length:  # cut off meanwhile
                    return False
                wanted = manifest.digest(entry, chunk)
                if wanted is None:
                    if plain.count(0) != len(plain):
                        return False
                elif make_header(plain, manifest.block_size)[0] != wanted:
                    return False
        return True


def _write_all(fd: int, data: memoryview, offset: int) -> None:
    while data:
        count = os.pwrite(fd, data, offset)
        data, offset = data[count:], offset + count


def _sync(own: int) -> None:
    """Close it, too: in a thread that may be left, when its owner closes the file."""
    try:
        os.fsync(own)
    finally:
        os.close(own)


def _sync_folder(path: Path) -> None:
    fd = os.open(path, os.O_RDONLY | os.O_DIRECTORY)
    try:
        os.fsync(fd)
    finally:
        os.close(fd)
