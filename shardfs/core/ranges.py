"""Arithmetic of files, chunks and blocks. All offsets and lengths are bytes; ends are exclusive."""

from collections.abc import Iterator
from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Span:
    """A contiguous part of one chunk of a file: `chunk` counts from 0 within the file."""

    chunk: int
    start: int
    length: int

    @property
    def end(self) -> int:
        return self.start + self.length


def chunk_count(size: int, chunk_size: int) -> int:
    """Chunks of a file of `size` bytes: shard index = offset // chunk_size."""
    return -(-size // chunk_size)


def chunk_length(size: int, chunk_size: int, chunk: int) -> int:
    """Plain bytes of chunk `chunk`: `chunk_size`, less for the last."""
    return min(chunk_size, size - chunk * chunk_size)


def clamp(offset: int, length: int, size: int) -> int:
    """How many bytes a read of `length` at `offset` returns from a file of `size` bytes."""
    return max(0, min(length, size - offset))


def spans(offset: int, length: int, chunk_size: int) -> Iterator[Span]:
    """The parts of chunks that cover [offset, offset + length), in order. The caller has clamped."""
    end = offset + length
    while offset < end:
        chunk, start = divmod(offset, chunk_size)
        part = min(chunk_size - start, end - offset)
        yield Span(chunk, start, part)
        offset += part


def block_span(start: int, end: int, block_size: int) -> tuple[int, int]:
    """First and end block that cover plain bytes [start, end) of a chunk; empty for an empty range."""
    return (start // block_size, -(-end // block_size)) if end > start else (0, 0)


def run_size(chunk_size: int, block_size: int, limit: int) -> int:
    """The largest number of bytes up to `limit` that is whole blocks and divides a chunk evenly.

    Chunks larger than the memory's unit are handled in runs of this size. `limit` is at least one block.
    """
    blocks = chunk_size // block_size
    return block_size * max(n for n in range(1, limit // block_size + 1) if blocks % n == 0)
