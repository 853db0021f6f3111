"""Carries the chunks of a source to the nodes: a fixed number of workers, each with one buffer that it reuses.

A worker reads and names the next chunk in a thread, then has it copied, then takes the next; so memory is the buffers,
whatever the source. Few read at a time, which keeps the disk going forward. A pointer needs no buffer: tasks of their
own bring as many as `pointers_max` to the nodes while the workers read on, since an engine takes longer to make a file
than to be read. Equal chunks that are on their way at the same time are sent once; those that come later are found
present on the nodes.

The first failure ends all workers and comes out as it is. Where the chunks come from is behind `Pieces`.
"""

import mmap
from dataclasses import dataclass

import trio

from shardfs.admin.copies import Copies
from shardfs.admin.cutting import Piece, Zeros
from shardfs.admin.origin import Pieces
from shardfs.core.digest import Digest
from shardfs.errors import ShardfsError


@dataclass(frozen=True, slots=True)
class UploadOptions:
    """`buffer_bytes_max` bounds the buffers together, except that there are never fewer than `workers_min`.

    `pointers_max`: pointers on their way, beside the chunks that the workers are busy with.
    """

    buffer_bytes_max: int = 64 * 1024 * 1024
    workers_min: int = 2
    workers_max: int = 16
    readers: int = 2
    pointers_max: int = 64

    def workers(self, chunk_size: int, chunks: int) -> int:
        """How many chunks are on their way at a time."""
        fitting = min(self.workers_max, self.buffer_bytes_max // chunk_size)
        return max(1, min(chunks, max(self.workers_min, fitting)))


@dataclass(slots=True)
class Tally:
    """How far an upload is, in bytes of the source; for reading by whoever shows it.

    A chunk is `sent` when at least one copy of it had to be, `present` when all R were there already, `zero` when it
    need not be stored. `committing`: the chunks are stored and the model is becoming visible.
    """

    total: int = 0
    sent: int = 0
    present: int = 0
    zero: int = 0
    committing: bool = False


async def upload(
    pieces: Pieces, copies: Copies, *, chunk_size: int, tally: Tally, options: UploadOptions = UploadOptions()
) -> None:
    """R copies of every chunk are stored when this returns. Errors are those of `pieces` and `Copies`."""
    await _Upload(pieces, copies, tally, options).run(chunk_size)


class _Upload:
    """Changing, by the event loop only: `coming` (chunks on their way), the tally, `error`, free places of pointers."""

    def __init__(self, pieces: Pieces, copies: Copies, tally: Tally, options: UploadOptions) -> None:
        self._pieces = pieces
        self._copies = copies
        self._tally = tally
        self._options = options
        self._coming: dict[Digest, trio.Event] = {}
        self._error: ShardfsError | None = None
        self._places = trio.Semaphore(options.pointers_max)

    async def run(self, chunk_size: int) -> None:
        workers = self._options.workers(chunk_size, self._pieces.chunks)
        async with trio.open_nursery() as nursery:
            for _ in range(workers):
                nursery.start_soon(self._work, chunk_size, nursery)
        if self._error is not None:
            raise self._error

    async def _work(self, chunk_size: int, nursery: trio.Nursery) -> None:
        # Not closed but dropped: a failed send may leave a view of it in a traceback for a while.
        buffer = memoryview(mmap.mmap(-1, chunk_size))
        try:
            while (piece := await self._pieces.next_into(buffer)) is not None:
                self._tally.zero = self._pieces.bytes_zero
                if isinstance(piece, Zeros):
                    continue
                if piece.pointer:
                    await self._places.acquire()
                    nursery.start_soon(self._store_pointer, piece, nursery)
                else:
                    await self._store(piece)
        except ShardfsError as error:
            self._fail(error, nursery)
        self._tally.zero = self._pieces.bytes_zero

    async def _store_pointer(self, piece: Piece, nursery: trio.Nursery) -> None:
        """Meanwhile the buffer that the piece was read into holds another one."""
        try:
            await self._store(piece)
        except ShardfsError as error:
            self._fail(error, nursery)
        finally:
            self._places.release()

    def _fail(self, error: ShardfsError, nursery: trio.Nursery) -> None:
        self._error = self._error or error
        nursery.cancel_scope.cancel()

    async def _store(self, piece: Piece) -> None:
        size = piece.header.plain_size
        if (same := self._coming.get(piece.digest)) is not None:
            await same.wait()  # should it fail, everything fails
            self._tally.present += size
            return
        self._coming[piece.digest] = trio.Event()
        try:
            sent = await self._copies.ensure(piece)
        finally:
            self._coming.pop(piece.digest).set()
        if sent:
            self._tally.sent += size
        else:
            self._tally.present += size
