"""One file content as the rest of the program meets it in the disk cache: what is missing, read, write.

Nothing here raises because of the disk: a block is there and verified, or it is a miss; a write is stored or it is
not. All methods are synchronous and thread-safe. `read`, `write`, `touch`, `evict` and `lend` may block on the disk,
the others never do. How blocks are stored and dropped is in `writer`; which are there, in `presence`.
"""

import time
from collections.abc import Callable

import numpy as np

from shardfs.cache.block_map import Words, block_words
from shardfs.cache.lent import Lent
from shardfs.cache.shared import Shared
from shardfs.cache.stored import StoredFile
from shardfs.cache.writer import Writer


class CacheFile:
    """Blocks of one content. Made by `DiskCache.file`, given back by `close`.

    Block numbers count from 0 in the file; every block has `content.block_size` bytes, the last may be shorter.
    """

    def __init__(self, number: int, stored: StoredFile, shared: Shared, settle: Callable[["CacheFile"], None]) -> None:
        """`settle` brings the map of a file that is held, and lets go of that of another."""
        self.content = stored.content
        self.number = number
        self.stored = stored
        self._presence = stored.presence
        self._writer = Writer(number, stored, shared)
        self._shared = shared
        self._settle = settle

    @property
    def settled(self) -> bool:
        """Whether the map has come. Until then, as after it could not be read, every block is a miss."""
        return self._presence.words is not None or not self._shared.errands.busy(self.number)

    def when_settled(self, tell: Callable[[], None]) -> None:
        """Call `tell` once the map has come, or could not be read: at once, or in another thread; see `forget`."""
        self._shared.errands.do(self.number, tell, here=True)

    def forget(self, tell: Callable[[], None]) -> None:
        """Do not call `tell` any more, unless that has begun."""
        self._shared.errands.undo(self.number, tell)

    def settle(self) -> None:
        """An errand: only one may run for a file."""
        self._settle(self)

    @property
    def hangs(self) -> bool:
        """Whether the disk does not answer. Until it does, every block is a miss and nothing is stored."""
        return self._shared.health.hangs

    @property
    def given_up(self) -> bool:
        """Whether it has not answered for so long that nothing should be kept in memory to be stored later."""
        return self._shared.health.given_up

    def held_up(self, first: int, end: int) -> bool:
        """Whether all blocks of [first, end) are there, on a disk that does not answer."""
        return self.hangs and self._presence.missing(first, end) == end

    def missing(self, first: int, end: int) -> int:
        """The first absent block of [first, end), or `end`."""
        return first if self._shared.health.bypassed else self._presence.missing(first, end)

    def present_bytes(self) -> int:
        """Plain bytes that are there."""
        return 0 if self._shared.health.bypassed else self._presence.present_bytes()

    def read(self, first: int, into: memoryview) -> bool:
        """Fill `into` with whole blocks from `first` on, verified. False = a miss, `into` is then undefined."""
        if not len(into):
            return True
        end = self._end(first, len(into))
        good = not self._shared.health.bypassed and self._read(first, end, into)
        self._shared.counters.add("hit_bytes" if good else "miss_bytes", len(into))
        self._leave()
        return good

    def write(self, first: int, data: memoryview) -> bool:
        """Store verified plain bytes of whole blocks from `first` on.

        False = not, or only in part, stored: no room that may be taken, an error of the disk, or it is bypassed.
        """
        if not len(data):
            return True
        end = self._end(first, len(data))
        done = self._writer.write(first, end, data)
        self._shared.counters.add("written_bytes" if done else "rejected_bytes", len(data))
        self._leave()
        return done

    def touch(self) -> None:
        """The whole file counts as just used."""
        self._shared.ledger.use_file(self.number, self.stored.granules)
        self._used()

    def evict(self) -> int:
        """Drop what nobody is using right now; return the bytes of disk that came free.

        Nothing of a file that is lent or that somebody still has open. The map goes with the last `close`.
        """
        shared = self._shared
        if not shared.lending.recall(self.number):
            return 0
        return sum(map(shared.room.evict, shared.ledger.granules(self.number, self.stored.granules)))

    @property
    def whole(self) -> bool:
        """Whether `lend` would probably succeed. Takes no time."""
        return self.stored.leases and self._presence.whole and not self._shared.health.bypassed

    def lend(self) -> Lent | None:
        """The data file, for somebody who reads it without us; None when that cannot be now.

        Every block must be there and have been seen to be right since the cache was opened. The file, which is open,
        stays so until the `Lent` is closed. Until then, and for as long as any process has the data file open or mapped
        after it, nothing of it is evicted or changed. Opens one file, and may block for that.
        """
        if not self.whole or not self._shared.lending.lend(self.number, lambda: self.whole):
            return None
        fd = None
        try:
            fd = self.stored.open_apart()
        except FileNotFoundError:
            pass  # somebody deleted it, which the next read will find out
        except OSError as error:
            self._shared.troubled(error, "read_errors")
        if fd is None:
            self._take_back()
            return None
        return Lent(fd, self._take_back, later=lambda job: self._shared.errands.do(self.number, job))

    def hold(self) -> None:
        """Hand the file, which is open, out once more: it stays open for one more `close`."""
        if self.number >= 0:
            self._shared.ledger.hold(self.number)

    def close(self) -> None:
        """Give the file back, once for each time it was handed out or held."""
        if self._shared.ledger.unhold(self.number):
            self._put_away()

    # ---------------------------------------------------------------------------------------------------- inner

    def _put_away(self) -> None:
        self._shared.errands.do(self.number, self.settle, here=not self.stored.on_disk, once=True)

    def _leave(self) -> None:
        """The end of a read or write that the disk held up, and that everybody else has left."""
        if self.number >= 0 and self._shared.ledger.idle(self.number):
            self._put_away()

    def _take_back(self) -> None:
        lending = self._shared.lending
        last = lending.give_back(self.number)
        if not self._shared.books.closed:
            if last:
                # Most often nobody has it open any more. If somebody has, that is asked again when room is needed.
                lending.recall(self.number)
                self.touch()
            else:
                self._used()
        self.close()

    def _end(self, first: int, length: int) -> int:
        """The end block of a request; ValueError when it is not made of whole blocks of the file."""
        block_size = self.content.block_size
        end = first + -(-length // block_size)
        if first < 0 or end > self.content.blocks or self.content.length(first, end) != length:
            raise ValueError(f"cache file {self.content.digest}: {length} bytes at block {first}")
        return end

    def _used(self) -> None:
        self.stored.used_ns = time.time_ns()
        try:
            self.stored.save_use()
        except OSError as error:
            self._shared.troubled(error, "write_errors")

    def _read(self, first: int, end: int, into: memoryview) -> bool:
        ledger, size = self._shared.ledger, self.stored.granule_blocks
        granules = first // size, -(-end // size)
        if not ledger.begin_read(self.number, *granules):
            return False
        bad: list[int] = []
        expected: Words | None = None
        try:
            expected = self._presence.expected(first, end)
            if expected is not None:
                bad = self._read_verified(first, expected, into)
        finally:
            ledger.end_read(self.number, *granules, used=expected is not None and not bad)
        if expected is None:
            return False
        for block in bad:
            self._writer.drop(block, expected[block - first])
        if not bad:
            self._used()
        return not bad

    def _read_verified(self, first: int, expected: Words, into: memoryview) -> list[int]:
        """Read; return the blocks that are not what their words say, which after an error are all."""
        presence = self._presence
        epoch = presence.verified.epoch
        try:
            self.stored.read(first, into)
            found = block_words(into, self.content.block_size)
            blocks = [first + int(i) for i in np.flatnonzero(found != expected)]
            presence.verified.add(first, found, presence.words, epoch=epoch)
            self._shared.counters.add("corrupt_blocks", len(blocks))
            self._shared.health.succeeded()
        except OSError as error:
            self._shared.troubled(error, "read_errors")
            blocks = list(range(first, first + len(expected)))
        return blocks
