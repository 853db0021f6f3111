"""Download: a generation's files written to a local folder, each whole or absent, holes kept as holes.

A file is written beside its place under a temporary name, forced to disk and renamed. A file that is there already
with exactly the right bytes is left alone, so a second run goes on where the first was stopped; one with other bytes
is never overwritten unless asked for.
"""

import os
from dataclasses import dataclass, field
from pathlib import Path

import trio

from shardfs.admin.upload import Tally
from shardfs.core.chunk import make_header
from shardfs.core.manifest import FileEntry, Manifest
from shardfs.core.ranges import chunk_count, chunk_length
from shardfs.core.readahead import ReadAheadOptions
from shardfs.errors import SourceError
from shardfs.fetch import Engine
from shardfs.vfs.content import Content

_PART_SUFFIX = ".shardfs-part"


@dataclass(frozen=True, slots=True)
class DownloadOptions:
    """`overwrite`: replace files that have other bytes."""

    overwrite: bool = False
    readahead: ReadAheadOptions = field(default_factory=ReadAheadOptions)


class Download:
    """One run; `tally.sent` counts what was fetched and written.

    `dest` is the file itself for a single-file model, else the folder.
    """

    def __init__(
        self, manifest: Manifest, dest: Path, engine: Engine, *, tally: Tally, options: DownloadOptions
    ) -> None:
        self._manifest = manifest
        self._dest = dest
        self._engine = engine
        self._tally = tally
        self._options = options
        tally.total = manifest.size

    async def run(self) -> None:
        """Write everything. SourceError names a local file that is in the way or cannot be written; NoCopy."""
        try:
            if not self._manifest.single:
                self._dest.mkdir(parents=True, exist_ok=True)
                for folder in self._manifest.folders:
                    (self._dest / folder).mkdir(parents=True, exist_ok=True)
            for entry in self._manifest.files:
                await self._file(entry, self._dest / entry.path if entry.path else self._dest)
        except OSError as error:
            raise SourceError(f"{error.filename or self._dest}: {error.strerror}") from None

    async def _file(self, entry: FileEntry, path: Path) -> None:
        if await trio.to_thread.run_sync(os.path.lexists, path):
            if await trio.to_thread.run_sync(self._equal, entry, path):
                self._tally.present += entry.size
                return
            if not self._options.overwrite:
                raise SourceError(f"{path}: exists with other content (--overwrite replaces it)")
        await trio.to_thread.run_sync(lambda: path.parent.mkdir(parents=True, exist_ok=True))
        part = path.with_name(path.name[: 255 - len(_PART_SUFFIX) - 1] + _PART_SUFFIX)
        fd = os.open(part, os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_NOFOLLOW, 0o777 if entry.executable else 0o666)
        try:
            try:
                await self._bytes(entry, fd)
                await trio.to_thread.run_sync(os.fsync, fd)
            finally:
                os.close(fd)
            os.rename(part, path)
        except BaseException:
            part.unlink(missing_ok=True)
            raise
        await trio.to_thread.run_sync(_sync_folder, path.parent)

    async def _bytes(self, entry: FileEntry, fd: int) -> None:
        manifest = self._manifest
        content = Content(manifest, entry, engine=self._engine, disk=None, readahead=self._options.readahead)
        buffer = bytearray(min(manifest.chunk_size, entry.size))
        os.truncate(fd, entry.size)
        for chunk in range(chunk_count(entry.size, manifest.chunk_size)):
            length = chunk_length(entry.size, manifest.chunk_size, chunk)
            if manifest.digest(entry, chunk) is None:
                self._tally.zero += length
                continue
            offset = chunk * manifest.chunk_size
            buffer[:length] = await content.read(offset, length)
            await trio.to_thread.run_sync(_write_all, fd, memoryview(buffer)[:length], offset)
            self._tally.sent += length

    def _equal(self, entry: FileEntry, path: Path) -> bool:
        """Whether the file at `path` has exactly the entry's bytes. Blocks: runs in a thread."""
        if path.is_symlink() or not path.is_file() or path.stat().st_size != entry.size:
            return False
        manifest = self._manifest
        with path.open("rb") as file:
            for chunk in range(chunk_count(entry.size, manifest.chunk_size)):
                plain = file.read(chunk_length(entry.size, manifest.chunk_size, chunk))
                wanted = manifest.digest(entry, chunk)
                if wanted is None:
                    if plain.count(0) != len(plain):
                        return False
                elif not plain or make_header(plain, manifest.block_size)[0] != wanted:
                    return False
        return True


def _write_all(fd: int, data: memoryview, offset: int) -> None:
    while data:
        count = os.pwrite(fd, data, offset)
        data, offset = data[count:], offset + count


def _sync_folder(path: Path) -> None:
    fd = os.open(path, os.O_RDONLY | os.O_DIRECTORY)
    try:
        os.fsync(fd)
    finally:
        os.close(fd)
