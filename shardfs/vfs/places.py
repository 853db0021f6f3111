"""Where the bytes of one file are: its chunks in runs that fit the memory, and its file in the disk cache."""

import struct
from contextlib import suppress

import trio

from shardfs.cache import CacheFile, DiskCache, Lent
from shardfs.cache import Content as CacheContent
from shardfs.core.digest import DIGEST_BYTES, digest_of
from shardfs.core.manifest import FileEntry, Manifest
from shardfs.core.ranges import block_span, chunk_count, chunk_length, run_size
from shardfs.core.readahead import Range, ReadAheadOptions
from shardfs.core.shards import ModelReadAhead
from shardfs.fetch import ChunkPlace, Engine

_DOMAIN = b"shardfs file 1\0"


class Places:
    """`run_size`: the unit of reading; a chunk, or an equal part of one where chunks are larger than the memory's unit.

    Holds the cache file open until `close`.
    """

    __slots__ = ("_cache_file", "entry", "manifest", "run_size")

    def __init__(self, manifest: Manifest, entry: FileEntry, engine: Engine, disk: DiskCache | None) -> None:
        self.manifest = manifest
        self.entry = entry
        self.run_size = run_size(manifest.chunk_size, manifest.block_size, engine.run_bytes)
        self._cache_file: CacheFile | None = None
        if disk is not None and entry.size:
            self._cache_file = disk.file(cache_content(manifest, entry))

    def place(self, run: int) -> ChunkPlace | None:
        """Run number `run` of the file; None for a hole."""
        manifest = self.manifest
        chunk, start = divmod(run * self.run_size, manifest.chunk_size)
        digest = manifest.digest(self.entry, chunk)
        if digest is None:
            return None
        size = chunk_length(self.entry.size, manifest.chunk_size, chunk)
        first, end = block_span(start, min(start + self.run_size, size), manifest.block_size)
        cache_block = run * self.run_size // manifest.block_size
        return ChunkPlace(digest, size, manifest.block_size, self._cache_file, cache_block, first, end)

    def same_run(self, span: Range, offset: int, end: int) -> bool:
        """Whether `span` and [offset, end) lie in one run and touch, block by block."""
        block, run = self.manifest.block_size, self.run_size
        touch = span[0] // block <= -(-end // block) and -(-span[1] // block) >= offset // block
        return touch and min(span[0], offset) // run == (max(span[1], end) - 1) // run

    @property
    def settled(self) -> bool:
        """Whether it is known what the disk cache has of the file."""
        return self._cache_file is None or self._cache_file.settled

    async def settle(self, seconds: float) -> None:
        """Wait for that, so long at most, and not at all while the cache disk hangs."""
        file = self._cache_file
        if file is None or file.settled or file.hangs:
            return
        settled, token = trio.Event(), trio.lowlevel.current_trio_token()

        def tell() -> None:
            with suppress(trio.RunFinishedError):
                token.run_sync_soon(settled.set)

        file.when_settled(tell)
        try:
            with trio.move_on_after(seconds):
                await settled.wait()
        finally:
            file.forget(tell)

    def cached_bytes(self) -> int:
        """Bytes of the file in the disk cache."""
        return 0 if self._cache_file is None else self._cache_file.present_bytes()

    def lend(self) -> Lent | None:
        """The whole file in the disk cache for somebody who reads it without us, if it is there.

        May block on the disk.
        """
        return None if self._cache_file is None else self._cache_file.lend()

    def close(self) -> None:
        if self._cache_file is not None:
            self._cache_file.close()


def model_readahead(manifest: Manifest, engine: Engine, options: ReadAheadOptions) -> ModelReadAhead:
    """The read-ahead of a generation's files, in units of the engine's runs."""
    run = run_size(manifest.chunk_size, manifest.block_size, engine.run_bytes)
    return ModelReadAhead(manifest.files, run, manifest.block_size, options)


def cache_content(manifest: Manifest, entry: FileEntry) -> CacheContent:
    """The identity of a file's bytes: equal files of different models share one cache file."""
    start = entry.first_chunk * DIGEST_BYTES
    end = start + chunk_count(entry.size, manifest.chunk_size) * DIGEST_BYTES
    head = struct.pack("<QII", entry.size, manifest.chunk_size, manifest.block_size)
    digest = digest_of(b"".join((_DOMAIN, head, manifest.digests[start:end])))
    return CacheContent(digest, entry.size, manifest.block_size)
