"""The bytes of one open file: from offsets to chunks, with read-ahead.

One `Content` serves all handles of an inode, so that several readers of one file are seen together.
"""

import struct

from shardfs.cache import CacheFile, DiskCache
from shardfs.cache import Content as CacheContent
from shardfs.core.digest import DIGEST_BYTES, digest_of
from shardfs.core.manifest import FileEntry, Manifest
from shardfs.core.ranges import block_span, chunk_count, chunk_length, clamp, run_size, spans
from shardfs.core.readahead import ReadAhead, ReadAheadOptions
from shardfs.fetch import ChunkPlace, Engine

_ZEROS = memoryview(bytes(1024 * 1024))
_DOMAIN = b"shardfs file 1\0"


class Content:
    """Given: manifest entry, engine, cache. Changing: the streams of the read-ahead."""

    def __init__(
        self,
        manifest: Manifest,
        entry: FileEntry,
        *,
        engine: Engine,
        disk: DiskCache | None,
        readahead: ReadAheadOptions,
    ) -> None:
        self._manifest = manifest
        self._entry = entry
        self._engine = engine
        # The unit of reading: a chunk, or an equal part of one where chunks are larger than the memory's unit.
        self._run_size = run_size(manifest.chunk_size, manifest.block_size, engine.run_bytes)
        self._readahead = ReadAhead(entry.size, self._run_size, readahead)
        self._cache_file: CacheFile | None = None
        if disk is not None and entry.size:
            self._cache_file = disk.file(cache_content(manifest, entry))

    async def read(self, offset: int, size: int) -> memoryview:
        """Exactly the bytes [offset, offset + size) that exist, verified; valid until the next checkpoint.

        Raises NoCopy; never returns less.
        """
        length = clamp(offset, size, self._entry.size)
        if not length:
            return _ZEROS[:0]
        plan = self._readahead.observe(offset, length)
        parts = list(spans(offset, length, self._run_size))
        if plan.whole:
            # What is asked for now gets memory before what may be asked for next.
            for run in (*(part.chunk for part in parts), *plan.ahead):
                place = self._place(run)
                if place is not None and not self._engine.prefetch(place):
                    break
        if len(parts) == 1:
            return await self._part(parts[0].chunk, parts[0].start, length, plan.whole)
        whole = memoryview(bytearray(length))
        at = 0
        for part in parts:
            whole[at : at + part.length] = await self._part(part.chunk, part.start, part.length, plan.whole)
            at += part.length
        return whole

    def cached_bytes(self) -> int:
        """Bytes of this file in the disk cache."""
        return 0 if self._cache_file is None else self._cache_file.present_bytes()

    def close(self) -> None:
        if self._cache_file is not None:
            self._cache_file.close()

    async def _part(self, run: int, start: int, length: int, whole: bool) -> memoryview:
        place = self._place(run)
        if place is None:
            return _ZEROS[:length] if length <= len(_ZEROS) else memoryview(bytes(length))
        return await self._engine.read(place, start, length, whole=whole)

    def _place(self, run: int) -> ChunkPlace | None:
        manifest = self._manifest
        chunk, start = divmod(run * self._run_size, manifest.chunk_size)
        digest = manifest.digest(self._entry, chunk)
        if digest is None:
            return None
        size = chunk_length(self._entry.size, manifest.chunk_size, chunk)
        first, end = block_span(start, min(start + self._run_size, size), manifest.block_size)
        cache_block = run * self._run_size // manifest.block_size
        return ChunkPlace(digest, size, manifest.block_size, self._cache_file, cache_block, first, end)


def cache_content(manifest: Manifest, entry: FileEntry) -> CacheContent:
    """The identity of a file's bytes: equal files of different models share one cache file."""
    start = entry.first_chunk * DIGEST_BYTES
    end = start + chunk_count(entry.size, manifest.chunk_size) * DIGEST_BYTES
    head = struct.pack("<QII", entry.size, manifest.chunk_size, manifest.block_size)
    digest = digest_of(b"".join((_DOMAIN, head, manifest.digests[start:end])))
    return CacheContent(digest, entry.size, manifest.block_size)
