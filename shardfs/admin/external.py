"""An origin that lies on an engine already: every object is read once, named, and stays where it is.

The objects are listed with what the engine says of their versions, read in chunks by several workers, and looked at
once more at the end: what was changed, added or removed meanwhile is refused. Chunks become pointers; one that is not
longer than its pointer is stored as it is. Zeros are holes, and have to be read to be found.

Links are not followed, empty folders do not show, nothing is executable, and shardfs's own objects are refused.
"""

import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import zip_longest

import trio

from shardfs.admin import huggingface
from shardfs.admin.asking import Asking
from shardfs.admin.cutting import Piece, Zeros, is_zero
from shardfs.admin.source import of_the_source
from shardfs.core.chunk import make_header
from shardfs.core.digest import DIGEST_BYTES
from shardfs.core.manifest import FILE_BYTES_MAX, FILES_MAX
from shardfs.core.names import check_path
from shardfs.core.pointer import make_pointer
from shardfs.core.ranges import chunk_count, chunk_length
from shardfs.errors import NotFound, ShardfsError, SourceError, UsageError

QUESTIONS_MAX = 16
"""Objects asked about at the same time."""

_OWN = re.compile(r"(?:^|/)(?:chunks/([0-9a-f]{2})/\1[0-9a-f]{62}|manifests/[0-9a-f]{64})$", re.ASCII)


@dataclass(frozen=True, slots=True)
class ExternalFile:
    """One object. `path` is its name in the model, `place` where it lies on the engine, `tag` its version."""

    path: str
    place: str
    size: int
    tag: str
    executable: bool = False


class ExternalOrigin:
    """`Origin` of what was listed at `place`. Made by `find_external`."""

    folders: Sequence[str] = ()

    def __init__(self, asking: Asking, place: str, *, single: bool, files: Sequence[ExternalFile]) -> None:
        self.place = place
        self.single = single
        self.files = files
        self.shown = f"node {asking.node}: {place}"
        self._asking = asking

    @property
    def size(self) -> int:
        return sum(file.size for file in self.files)

    def pieces(self, *, chunk_size: int, block_size: int, readers: int) -> "ExternalPieces":
        """`readers` is for disks; here as many read as carry."""
        del readers
        return ExternalPieces(self._asking, self.files, chunk_size=chunk_size, block_size=block_size)

    async def check_unchanged(self) -> None:
        """List everything again."""
        try:
            now = await find_external(self._asking, self.place)
        except NotFound:
            raise self._problem(self.place, "disappeared") from None
        for found, known in zip_longest(now.files, self.files):
            if found == known:
                continue
            if found and known and found.place == known.place:
                raise self._problem(known.place, "changed")
            if known is None or (found is not None and found.path.encode() < known.path.encode()):
                raise self._problem((found or known).place, "appeared")
            raise self._problem(known.place, "disappeared")

    def _problem(self, place: str, what: str) -> SourceError:
        return SourceError(f"node {self._asking.node}: {place} {what} while it was being imported")


async def find_external(asking: Asking, place: str) -> ExternalOrigin:
    """List the object or the folder `place`. NotFound, SourceError or UsageError say what cannot be imported."""
    check_path(place, "PATH")
    try:
        one = await asking.stat(place)
    except NotFound:
        pass
    else:
        file = ExternalFile("", place, one.size, one.tag)
        _check(asking.node, file)
        return ExternalOrigin(asking, place, single=True, files=(file,))
    with of_the_source():
        names = await asking.names(place, limit=FILES_MAX)
    kept = sorted((name for name in names if f"/{huggingface.BOOKKEEPING}/" not in name), key=str.encode)
    files: list[ExternalFile | None] = [None] * len(kept)
    waiting = iter(enumerate(kept))
    failures: list[ShardfsError] = []

    async def ask() -> None:
        try:
            for at, name in waiting:
                with of_the_source():
                    path = check_path(name.removeprefix(f"{place}/"), f"node {asking.node}: file name")
                now = await asking.stat(name)
                files[at] = file = ExternalFile(path, name, now.size, now.tag)
                _check(asking.node, file)
        except ShardfsError as error:  # raised below, outside of the nursery, which would wrap it in a group
            failures.append(error)
            nursery.cancel_scope.cancel()

    async with trio.open_nursery() as nursery:
        for _ in range(QUESTIONS_MAX):
            nursery.start_soon(ask)
    if failures:
        raise failures[0]
    return ExternalOrigin(asking, place, single=False, files=tuple(file for file in files if file is not None))


def _check(node: str, file: ExternalFile) -> None:
    if _OWN.search(file.place):
        raise UsageError(f"node {node}: {file.place} is shardfs's own; name the folder or file of a model")
    if file.size > FILE_BYTES_MAX:
        raise SourceError(f"node {node}: {file.place} is larger than {FILE_BYTES_MAX} bytes")


class ExternalPieces:
    """`Pieces` of listed objects. Changing, in the event loop only: the plan, `digests`, `bytes_zero`."""

    def __init__(self, asking: Asking, files: Sequence[ExternalFile], *, chunk_size: int, block_size: int) -> None:
        self.digests = bytearray(DIGEST_BYTES * sum(chunk_count(file.size, chunk_size) for file in files))
        self.bytes_zero = 0
        self._asking = asking
        self._chunk_size = chunk_size
        self._block_size = block_size
        self._plan = self._make_plan(files)

    @property
    def chunks(self) -> int:
        return len(self.digests) // DIGEST_BYTES

    def _make_plan(self, files: Sequence[ExternalFile]) -> Iterator[tuple[int, ExternalFile, int]]:
        """Slot among all chunks, file, number in the file."""
        slot = 0
        for file in files:
            for chunk in range(chunk_count(file.size, self._chunk_size)):
                yield slot, file, chunk
                slot += 1

    async def next_into(self, buffer: memoryview) -> Piece | Zeros | None:
        """As `Pieces.next_into`. Raises SourceError when the object is not what was listed, StoreError."""
        planned = next(self._plan, None)
        if planned is None:
            return None
        slot, file, chunk = planned
        plain = buffer[: chunk_length(file.size, self._chunk_size, chunk)]
        offset = chunk * self._chunk_size
        try:
            count = await self._asking.read(file.place, plain, offset)
        except NotFound:
            count = 0
        if count != len(plain):
            raise SourceError(f"node {self._asking.node}: {file.place} changed while it was being imported")
        piece = await trio.to_thread.run_sync(self._name, file, plain, offset)
        if piece is None:
            self.bytes_zero += len(plain)
            return Zeros()
        self.digests[slot * DIGEST_BYTES : (slot + 1) * DIGEST_BYTES] = piece.digest
        return piece

    def _name(self, file: ExternalFile, plain: memoryview, offset: int) -> Piece | None:
        """In a thread. None for zeros."""
        if is_zero(plain):
            return None
        digest, header = make_header(plain, self._block_size)
        pointer = make_pointer(
            self._asking.node, file.place, offset, size=file.size, tag=file.tag, length=len(plain)
        ).encode()
        return Piece(digest, header, plain, pointer if len(pointer) < len(plain) else b"")

    def close(self) -> None:
        """Nothing is held open."""
