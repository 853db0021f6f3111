"""Cuts a source into chunks: which spans hold data, their bytes, their names.

One `Cutter` is shared by several workers, each with a buffer of its own; a call does everything that blocks (open,
seek, read, hash) in one go, so that a worker needs one hop to a thread for each chunk. Holes are found with SEEK_DATA
and cost nothing, however large. A chunk that is zero throughout, hole or not, keeps the zero digest and is stored
nowhere.

Each file is compared with its scan when it is opened and once more when its last byte has been read.
"""

import errno
import os
import threading
from collections.abc import Generator, Iterator
from dataclasses import dataclass

import numpy as np

from shardfs.admin.source import Source, SourceFile, identity, problem, shown
from shardfs.core.chunk import ChunkHeader, make_header
from shardfs.core.digest import DIGEST_BYTES, Bytes, Digest
from shardfs.core.ranges import chunk_count, chunk_length
from shardfs.errors import SourceError


@dataclass(frozen=True, slots=True)
class Piece:
    """A chunk to store: `plain` is a view of the buffer that was given.

    With a `pointer`, that is stored instead, and nobody looks at `plain`: the buffer may hold something else by then.
    """

    digest: Digest
    header: ChunkHeader
    plain: memoryview
    pointer: bytes = b""

    @property
    def parts(self) -> tuple[Bytes, Bytes]:
        """The object to store."""
        if self.pointer:
            return self.header.as_external().encode(), self.pointer
        return self.header.encode(), self.plain


class Zeros:
    """The chunk just read was all zeros: nothing to store."""


@dataclass(slots=True, eq=False)
class _Open:
    """A file being read; `reading` counts the calls that read it now. Guarded by the cutter's lock."""

    file: SourceFile
    local: str
    fd: int
    reading: int = 0
    cut: bool = False


class Cutter:
    """Given: source, sizes. Changing, under the lock: the plan, open files, `bytes_zero`.

    `digests` has one slot for each chunk of each file, written by the call that read the chunk.
    """

    def __init__(self, source: Source, *, chunk_size: int, block_size: int) -> None:
        self.digests = bytearray(DIGEST_BYTES * sum(chunk_count(file.size, chunk_size) for file in source.files))
        self.bytes_zero = 0
        """Bytes so far that need not be stored because they are zero."""
        self._source = source
        self._chunk_size = chunk_size
        self._block_size = block_size
        self._lock = threading.Lock()
        self._opened: list[_Open] = []
        self._plan = self._make_plan()

    @property
    def chunks(self) -> int:
        """Chunks of all files, holes included."""
        return len(self.digests) // DIGEST_BYTES

    def next_into(self, buffer: memoryview) -> Piece | Zeros | None:
        """Read the next chunk that holds data into `buffer`; None when there is none left. Thread-safe, blocks.

        Raises SourceError naming a file that cannot be read or is not as it was scanned.
        """
        with self._lock:
            planned = next(self._plan, None)
            if planned is None:
                return None
            opened, slot, chunk = planned
            opened.reading += 1
        try:
            length = chunk_length(opened.file.size, self._chunk_size, chunk)
            plain = buffer[:length]
            self._read(opened, plain, chunk * self._chunk_size)
        finally:
            with self._lock:
                opened.reading -= 1
                self._close_if_done(opened)
        if is_zero(plain):
            with self._lock:
                self.bytes_zero += length
            return Zeros()
        digest, header = make_header(plain, self._block_size)
        self.digests[slot * DIGEST_BYTES : (slot + 1) * DIGEST_BYTES] = digest
        return Piece(digest, header, plain)

    def close(self) -> None:
        """Let go of all files. No call may be running or follow."""
        self._plan.close()
        while self._opened:
            os.close(self._opened.pop().fd)

    def _make_plan(self) -> Generator[tuple[_Open, int, int], None, None]:
        """(open file, slot among all chunks, chunk number in the file) of every chunk with data, in order."""
        first_slot = 0
        for file in self._source.files:
            count = chunk_count(file.size, self._chunk_size)
            if count:
                opened = self._open(file)
                planned = 0
                try:
                    for chunks in data_chunks(opened.fd, file.size, self._chunk_size):
                        self._count_hole(file, planned, chunks.start)
                        planned = chunks.stop
                        for chunk in chunks:
                            yield opened, first_slot + chunk, chunk
                except OSError as error:
                    raise problem(opened.local, error) from None
                self._count_hole(file, planned, count)
                opened.cut = True
                self._close_if_done(opened)
            first_slot += count

    def _count_hole(self, file: SourceFile, start: int, stop: int) -> None:
        end = min(stop * self._chunk_size, file.size)
        self.bytes_zero += max(0, end - start * self._chunk_size)

    def _open(self, file: SourceFile) -> _Open:
        local = self._source.local(file.path)
        try:
            # O_NONBLOCK: should a pipe have taken the file's place, do not wait for a writer.
            fd = os.open(local, os.O_RDONLY | os.O_CLOEXEC | os.O_NONBLOCK | os.O_NOCTTY)
        except OSError as error:
            raise problem(local, error) from None
        opened = _Open(file, local, fd)
        self._opened.append(opened)
        self._check(opened)
        os.posix_fadvise(fd, 0, 0, os.POSIX_FADV_SEQUENTIAL)
        return opened

    def _close_if_done(self, opened: _Open) -> None:
        if opened.cut and not opened.reading:
            self._check(opened)
            self._opened.remove(opened)
            os.close(opened.fd)

    def _check(self, opened: _Open) -> None:
        if identity(os.fstat(opened.fd)) != opened.file.identity:
            raise _changed(opened.local)

    def _read(self, opened: _Open, into: memoryview, offset: int) -> None:
        at = 0
        while at < len(into):
            try:
                count = os.preadv(opened.fd, [into[at:]], offset + at)
            except OSError as error:
                raise problem(opened.local, error) from None
            if count == 0:
                raise _changed(opened.local)
            at += count


def is_zero(plain: memoryview) -> bool:
    """Whether there is nothing but zeros in it."""
    return not (plain[0] or plain[-1] or np.frombuffer(plain, np.uint8).any())


def data_chunks(fd: int, size: int, chunk_size: int) -> Iterator[range]:
    """Rising, disjoint ranges of chunk numbers; every byte outside of them is in a hole.

    Where the filesystem cannot tell, everything is data.
    """
    count = chunk_count(size, chunk_size)
    chunk = 0
    while chunk < count:
        try:
            start = os.lseek(fd, chunk * chunk_size, os.SEEK_DATA)
            end = os.lseek(fd, start, os.SEEK_HOLE)
        except OSError as error:
            if error.errno == errno.ENXIO:  # only a hole follows
                return
            if error.errno not in (errno.EINVAL, errno.EOPNOTSUPP):
                raise
            start, end = chunk * chunk_size, size
        stop = min(chunk_count(end, chunk_size), count)
        if start // chunk_size >= stop:  # the file has grown: data, but none of it was promised
            return
        yield range(start // chunk_size, stop)
        chunk = stop


def _changed(local: str) -> SourceError:
    return SourceError(f"{shown(local)} changed while it was being published")
