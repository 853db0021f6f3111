"""The bytes of one open file: from offsets to chunks, with read-ahead.

One `Content` serves all handles of an inode, so that several readers of one file are seen together.
"""

from shardfs.cache import DiskCache, Lent
from shardfs.core.manifest import FileEntry, Manifest
from shardfs.core.ranges import clamp, spans
from shardfs.core.readahead import NOTHING, WHOLE, Plan, ReadAheadOptions
from shardfs.core.shards import ModelReadAhead
from shardfs.fetch import ChunkPlace, Engine, Reading
from shardfs.vfs.places import Places, cache_content, model_readahead

__all__ = ["Content", "cache_content", "model_readahead"]

_ZEROS = memoryview(bytes(1024 * 1024))


class Content:
    """Given: manifest entry, engine, cache. Changing: the model's read-ahead, the shard that is fetched beforehand."""

    def __init__(
        self,
        manifest: Manifest,
        entry: FileEntry,
        *,
        engine: Engine,
        disk: DiskCache | None,
        readahead: ReadAheadOptions | ModelReadAhead,
    ) -> None:
        """`readahead`: the state that all files of the model share, or options for this file alone."""
        self._engine = engine
        self._disk = disk
        self._file = Places(manifest, entry, engine, disk)
        self._following: tuple[int, Places] | None = None
        self._current: tuple[int, ChunkPlace | None] = (-1, None)
        if isinstance(readahead, ReadAheadOptions):
            readahead = model_readahead(manifest, engine, readahead)
        self._model = readahead
        number = readahead.number(entry.path)
        if number is None:
            raise ValueError(f"{entry.path!r} is not a file of this manifest")
        self._number = number

    def request(self, offset: int, size: int) -> memoryview | Reading:
        """Exactly the bytes [offset, offset + size) that exist, verified; valid until the next checkpoint.

        At once when they are in memory, else to be awaited; that raises NoCopy. Never less.
        """
        length = clamp(offset, size, self._file.entry.size)
        if not length:
            return _ZEROS[:0]
        plan = self._model.observe(self._number, offset, length)
        if plan is not NOTHING and plan is not WHOLE:
            self._follow(plan, offset, offset + length)
        run, start = divmod(offset, self._file.run_size)
        if start + length <= self._file.run_size:
            return self._part(run, start, length, plan.whole)
        return self._parts(offset, length, plan.whole)

    async def read(self, offset: int, size: int) -> memoryview:
        """As `request`, and wait for the answer. Raises NoCopy."""
        answer = self.request(offset, size)
        return answer if isinstance(answer, memoryview) else await answer

    async def settle(self, seconds: float) -> None:
        """See `Places.settle`."""
        await self._file.settle(seconds)

    def cached_bytes(self) -> int:
        """Bytes of this file in the disk cache."""
        return self._file.cached_bytes()

    def lend(self) -> Lent | None:
        """See `Places.lend`."""
        return self._file.lend()

    def close(self) -> None:
        """What was fetched ahead and not read may go first, and stays as long as nothing else needs its memory."""
        for start, end in self._model.file(self._number).give_up():
            self._unwanted(self._file, start, end)
        self._file.close()
        if self._following is not None:
            number, places = self._following
            self._following = None
            if not self._model.file(number).in_use:
                for start, end in self._model.file(number).give_up():
                    self._unwanted(places, start, end)
            places.close()

    def _follow(self, plan: Plan, offset: int, end: int) -> None:
        """Do what the plan says. What is asked for now gets memory before what may be asked for next."""
        for start, stop in plan.drop:
            self._unwanted(self._file, start, stop)
        ahead = list(plan.ahead)
        if ahead and self._file.same_run(ahead[0], offset, end):
            # One request with the read itself.
            start, stop = ahead.pop(0)
            if not self._fetch(self._file, min(start, offset), max(stop, end)):
                self._refused(start, stop)
        elif ahead or plan.following:
            self._fetch(self._file, offset, end)
        for number, (start, stop) in [*((self._number, span) for span in ahead), *plan.following]:
            places = self._places(number)
            # Who does not know yet what the disk has would ask the nodes for it.
            if not places.settled or not self._fetch(places, start, stop):
                self._model.file(number).refused(start, stop)

    def _refused(self, start: int, end: int) -> None:
        self._model.file(self._number).refused(start, end)

    def _fetch(self, places: "Places", start: int, end: int) -> bool:
        """Begin to fetch [start, end); False when memory is short for some of it."""
        block = places.manifest.block_size
        for part in spans(start, end - start, places.run_size):
            place = places.place(part.chunk)
            if place is None:
                continue
            if not self._engine.prefetch(place, part.start // block, -(-part.end // block)):
                return False
        return True

    def _unwanted(self, places: "Places", start: int, end: int) -> None:
        for part in spans(start, end - start, places.run_size):
            place = places.place(part.chunk)
            if place is not None:
                self._engine.unwanted(place)

    def _places(self, number: int) -> "Places":
        """Where the bytes of file `number` are: this one, or the shard that follows."""
        if number == self._number:
            return self._file
        if self._following is None or self._following[0] != number:
            if self._following is not None:
                self._following[1].close()
            manifest = self._file.manifest
            self._following = number, Places(manifest, manifest.files[number], self._engine, self._disk)
        return self._following[1]

    async def _parts(self, offset: int, length: int, whole: bool) -> memoryview:
        together = memoryview(bytearray(length))
        at = 0
        for part in spans(offset, length, self._file.run_size):
            # Every run but the last is read to its end.
            answer = self._part(part.chunk, part.start, part.length, whole)
            together[at : at + part.length] = answer if isinstance(answer, memoryview) else await answer
            at += part.length
        return together

    def _part(self, run: int, start: int, length: int, whole: bool) -> memoryview | Reading:
        if run != self._current[0]:  # the kernel asks for a chunk in several pieces
            self._current = run, self._file.place(run)
        place = self._current[1]
        if place is None:
            return _ZEROS[:length] if length <= len(_ZEROS) else memoryview(bytes(length))
        return self._engine.request(place, start, length, whole=whole)
