"""The manifest: what one generation consists of. Immutable, canonical, named by the digest of its bytes.

    "SHFM" 0x01   magic and version
    msgpack array [created, chunk_size, block_size, single, [[path, size, executable]...], [folder...], digests]

`created` is seconds since 1970 and becomes the mtime of every file. `single` says that the model is one file
(then there is exactly one entry, with path ""). Files are sorted by the bytes of their path. `folders` lists
only folders that would not exist otherwise (empty ones). `digests` is one packed blob, 32 bytes for each
chunk of each file in order; 32 zero bytes are a hole: the chunk reads as zeros and is stored nowhere.

Encoding is canonical: bytes that decode but do not encode to themselves are refused, so one content has one
digest. Every limit is checked before anything is allocated from a declared number.
"""

import heapq
import itertools
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Annotated, Any

import msgspec

from shardfs.core.chunk import BLOCK_SIZE, BLOCK_SIZE_MAX, BLOCK_SIZE_MIN, CHUNK_SIZE, CHUNK_SIZE_MAX
from shardfs.core.digest import DIGEST_BYTES, ZERO_DIGEST, Bytes, Digest, digest_of
from shardfs.core.names import check_path
from shardfs.core.ranges import chunk_count, chunk_length
from shardfs.errors import InvalidFormat, InvalidName

MANIFEST_BYTES_MAX = 64 * 1024 * 1024
FILES_MAX = 1_000_000
FOLDERS_MAX = 1_000_000
FOLDER_LETTERS_MAX = 64 * 1024 * 1024
"""Of the paths of all folders, without which a few long paths of many parts would fill a reader's memory."""
FILE_BYTES_MAX = 2**62

_MAGIC = b"SHFM\x01"


@dataclass(frozen=True, slots=True)
class FileEntry:
    """One file. Its chunks are `first_chunk` and following in the manifest's digest list."""

    path: str
    size: int
    executable: bool
    first_chunk: int


@dataclass(frozen=True, slots=True)
class Manifest:
    """A generation's content. Build one with `make_manifest` or `decode_manifest`, which check it."""

    created: int
    chunk_size: int
    block_size: int
    single: bool
    files: tuple[FileEntry, ...]
    folders: tuple[str, ...]
    digests: bytes

    @property
    def size(self) -> int:
        """Bytes of all files together."""
        return sum(f.size for f in self.files)

    @property
    def chunks(self) -> int:
        """Number of chunks, holes and repetitions included."""
        return len(self.digests) // DIGEST_BYTES

    def digest(self, file: FileEntry, chunk: int) -> Digest | None:
        """The name of chunk `chunk` of `file`, or None for a hole."""
        at = (file.first_chunk + chunk) * DIGEST_BYTES
        raw = self.digests[at : at + DIGEST_BYTES]
        return None if raw == ZERO_DIGEST else Digest(raw)

    def chunk_lengths(self) -> dict[Digest, int]:
        """Every stored chunk once, with its plain size in bytes."""
        return {
            digest: chunk_length(file.size, self.chunk_size, chunk)
            for file in self.files
            for chunk in range(chunk_count(file.size, self.chunk_size))
            if (digest := self.digest(file, chunk)) is not None
        }

    def same_content(self, other: "Manifest") -> bool:
        """Equal but for the time of creation."""
        return (self.chunk_size, self.block_size, self.single, self.files, self.folders, self.digests) == (
            other.chunk_size, other.block_size, other.single, other.files, other.folders, other.digests,
        )  # fmt: skip

    def encode(self) -> bytes:
        files = [[f.path, f.size, f.executable] for f in self.files]
        body: list[Any] = [self.created, self.chunk_size, self.block_size, self.single, files,
                           list(self.folders), self.digests]  # fmt: skip
        return _MAGIC + msgspec.msgpack.encode(body)

    def encodes_to(self, data: bytes) -> bool:
        """Whether `encode` gives `data`, without making it: the digests may be large, and are their own encoding."""
        count = len(self.digests)
        width, mark = next((width, mark) for width, mark in ((1, 0xC4), (2, 0xC5), (4, 0xC6)) if count < 256**width)
        head = replace(self, digests=b"").encode()[:-2] + bytes([mark]) + count.to_bytes(width, "big")
        return len(data) == len(head) + count and data.startswith(head) and data.endswith(self.digests)


class _Wire(msgspec.Struct, array_like=True, forbid_unknown_fields=True):
    created: int
    chunk_size: int
    block_size: int
    single: bool
    files: Annotated[list[tuple[str, int, bool]], msgspec.Meta(max_length=FILES_MAX)]
    folders: Annotated[list[str], msgspec.Meta(max_length=FILES_MAX)]
    digests: bytes


def make_manifest(
    files: Sequence[tuple[str, int, bool]],
    digests: bytes,
    *,
    created: int,
    single: bool = False,
    folders: Sequence[str] = (),
    chunk_size: int = CHUNK_SIZE,
    block_size: int = BLOCK_SIZE,
) -> Manifest:
    """Check everything and build. `files` are (path, size, executable) sorted by path bytes.

    Raises InvalidFormat (or InvalidName) naming the first thing that is wrong.
    """
    if not 0 <= created < 2**40:
        raise InvalidFormat(f"manifest: time {created} out of range")
    if not BLOCK_SIZE_MIN <= block_size <= BLOCK_SIZE_MAX:
        raise InvalidFormat(f"manifest: block size {block_size} out of range")
    if not block_size <= chunk_size <= CHUNK_SIZE_MAX or chunk_size % block_size:
        raise InvalidFormat(f"manifest: chunk size {chunk_size} and block size {block_size} do not fit")
    if len(files) + len(folders) > FILES_MAX:
        raise InvalidFormat(f"manifest: more than {FILES_MAX} files")
    _check_tree([path for path, _, _ in files], folders, single)
    entries, first = [], 0
    for path, size, executable in files:
        if not 0 <= size <= FILE_BYTES_MAX:
            raise InvalidFormat(f"manifest: size {size} of {path!r} out of range")
        entries.append(FileEntry(path, size, executable, first))
        first += chunk_count(size, chunk_size)
    if first * DIGEST_BYTES != len(digests):
        raise InvalidFormat(f"manifest: {len(digests)} bytes of digests for {first} chunks")
    return Manifest(created, chunk_size, block_size, single, tuple(entries), tuple(folders), digests)


def decode_manifest(data: Bytes, name: Digest) -> Manifest:
    """The manifest named `name` from its bytes, verified; InvalidFormat for anything else."""
    if len(data) > MANIFEST_BYTES_MAX:
        raise InvalidFormat(f"manifest {name}: larger than {MANIFEST_BYTES_MAX} bytes")
    if digest_of(data) != name:
        raise InvalidFormat(f"manifest {name}: bytes do not match the digest")
    if bytes(data[: len(_MAGIC)]) != _MAGIC:
        raise InvalidFormat(f"manifest {name}: unknown format or version")
    try:
        wire = msgspec.msgpack.decode(memoryview(data)[len(_MAGIC) :], type=_Wire)  # no copy: it may be large
        manifest = make_manifest(
            wire.files, wire.digests, created=wire.created, single=wire.single, folders=wire.folders,
            chunk_size=wire.chunk_size, block_size=wire.block_size,
        )  # fmt: skip
    except (msgspec.DecodeError, UnicodeDecodeError, InvalidName, RecursionError) as error:
        raise InvalidFormat(f"manifest {name}: {error}") from None
    if not manifest.encodes_to(bytes(data)):
        raise InvalidFormat(f"manifest {name}: not in canonical encoding")
    return manifest


def _check_tree(paths: Sequence[str], folders: Sequence[str], single: bool) -> None:
    """Names allowed, sorted, unique, nothing both a file and a folder, and not too many folders."""
    if single:
        if list(paths) != [""] or folders:
            raise InvalidFormat("manifest: a single-file model has exactly one file, without a name")
        return
    for listed in (paths, folders):
        for path in listed:
            check_path(path)
        if any(a >= b for a, b in itertools.pairwise(listed)):  # str sorts as the bytes of its UTF-8
            raise InvalidFormat("manifest: names are not sorted and unique")
    everything = list(heapq.merge(paths, folders)) if folders else paths
    _check_folders(everything, folders)
    _check_places(everything, frozenset(folders))


def _check_places(listed: Sequence[str], folders: frozenset[str]) -> None:
    """`listed` is sorted. What begins with a name follows it at once, so those that a name begins with are a stack.

    Of these the last tells: an earlier one was compared with it when it came.
    """
    begun: list[str] = []
    for path in listed:
        while begun and not path.startswith(begun[-1]):
            begun.pop()
        if begun:
            last = begun[-1]
            if path == last:
                raise InvalidFormat(f"manifest: {path!r} is both a file and a folder")
            if path[len(last)] == "/":
                if last in folders:
                    raise InvalidFormat(f"manifest: folder {last!r} is not empty and must not be listed")
                raise InvalidFormat(f"manifest: {last!r} is both a file and a folder")
        begun.append(path)


def _check_folders(listed: Sequence[str], folders: Sequence[str]) -> None:
    """Those that are not listed included, which need no room of their own in a manifest, but in a reader's memory."""
    count, letters = len(folders), sum(map(len, folders))
    before = ""
    for path in listed:
        end = path.rfind("/")
        while end > 0 and not before.startswith(path[: end + 1]):  # what is in a folder follows each other
            count, letters = count + 1, letters + end
            end = path.rfind("/", 0, end)
        if count > FOLDERS_MAX:
            raise InvalidFormat(f"manifest: more than {FOLDERS_MAX} folders")
        if letters > FOLDER_LETTERS_MAX:
            raise InvalidFormat(f"manifest: the paths of its folders have more than {FOLDER_LETTERS_MAX} characters")
        before = path
