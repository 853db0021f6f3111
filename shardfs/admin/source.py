"""What will be published: a file or a folder of files, listed before a byte is read, and listed again afterwards.

A scan checks every name and every kind of file, so that nothing is sent for a source that cannot be published. It
keeps one digest of (device, inode, size, mtime, ctime) a file; `Source.check_unchanged` lists everything again
and refuses what was changed, added or removed meanwhile. A change that leaves size and both times alone (a write
through a mapping that the kernel has not accounted for yet) cannot be seen by anybody.

Symbolic links are followed while they stay inside the source, or inside the `blobs` of the Hugging Face cache that the
source is a snapshot of. Refused by name are all others, links that go round in a circle, and everything that is neither
file nor folder. Hidden files are published; `.cache/huggingface`, the books of `hf download --local-dir`, is not,
and neither are files that a download has begun and not ended.
"""

import os
import stat
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from itertools import zip_longest

import xxhash

from shardfs.admin import huggingface
from shardfs.admin.part import PART_SUFFIX
from shardfs.core.manifest import FILE_BYTES_MAX, FILES_MAX
from shardfs.core.names import check_path
from shardfs.errors import SourceError, UsageError

_KINDS = {
    stat.S_IFIFO: "a named pipe",
    stat.S_IFSOCK: "a socket",
    stat.S_IFBLK: "a block device",
    stat.S_IFCHR: "a character device",
}


@dataclass(frozen=True, slots=True)
class SourceFile:
    """One file as the scan found it. `path` is its name in the model, "" when the model is this one file."""

    path: str
    size: int
    executable: bool
    identity: bytes


@dataclass(frozen=True, slots=True)
class Source:
    """A scanned source. `files` are sorted by path bytes; `folders` are the empty ones; `skipped` is left out."""

    root: str
    single: bool
    files: tuple[SourceFile, ...]
    folders: tuple[str, ...]
    skipped: tuple[str, ...]

    @property
    def size(self) -> int:
        """Bytes of all files together, holes included."""
        return sum(file.size for file in self.files)

    def local(self, path: str) -> str:
        """Where the file `path` of the model lies on this machine."""
        return os.path.join(self.root, path) if path else self.root

    def check_unchanged(self) -> None:
        """List everything again; SourceError names the first thing that is not as it was. Blocks."""
        walk = _Walk(self.root)
        for found, known in zip_longest(walk.files(), self.files):
            if found == known:
                continue
            if found and known and found.path == known.path:
                raise SourceError(f"{shown(self.local(found.path))} changed while it was being published")
            if known is None or (found is not None and _order(found.path) < _order(known.path)):
                path, what = (found or known).path, "appeared"
            else:
                path, what = known.path, "disappeared"
            raise SourceError(f"{shown(self.local(path))} {what} while it was being published")
        if different := set(walk.folders).symmetric_difference(self.folders):
            raise SourceError(f"{shown(self.local(min(different)))} changed while it was being published")


def identity(found: os.stat_result) -> bytes:
    """16 bytes that change when the file is replaced, written, resized, renamed over or touched."""
    fields = (found.st_dev, found.st_ino, found.st_size, found.st_mtime_ns, found.st_ctime_ns)
    return xxhash.xxh3_128_digest(repr(fields).encode())


def scan(src: str) -> Source:
    """List `src`, a file or a folder. SourceError names what cannot be published. Blocks."""
    if "\0" in src or not src:
        raise UsageError(f"not a path: {src!r}")
    root = os.path.realpath(src)
    walk = _Walk(root, said=src)
    if meant := huggingface.snapshot_to_use(root):
        raise SourceError(f"{shown(src)} is a Hugging Face cache folder; publish its snapshot {shown(meant)}")
    files = tuple(walk.files())
    return Source(root, walk.single, files, tuple(walk.folders), tuple(walk.skipped))


def default_name(src: str) -> str:
    """The model name for a source without one: the last part of `src`, or `org/name` for a snapshot."""
    path = os.path.abspath(src)
    if name := huggingface.model_name(path):
        return name
    name = os.path.basename(path)
    if not name:
        raise UsageError(f"{shown(src)} has no last part to name the model after; give a NAME")
    return name


def shown(path: str) -> str:
    """`path` on one line, whatever bytes it has."""
    return path if path.isprintable() else ascii(path)


@contextmanager
def of_the_source() -> Iterator[None]:
    """A name or kind of file that cannot be published is a SourceError: it lies there, and nobody called it wrongly."""
    try:
        yield
    except UsageError as error:
        raise SourceError(str(error)) from None


def problem(path: str, error: OSError) -> SourceError:
    """What to tell about `error` at `path`."""
    return SourceError(f"{shown(path)}: {error.strerror or error}")


class _Walk:
    """One listing. `files` is the walk itself; the other attributes are complete when it has ended."""

    def __init__(self, root: str, *, said: str | None = None) -> None:
        self.folders: list[str] = []
        self.skipped: list[str] = []
        self._root = root
        self._said = said or root
        blobs = huggingface.blobs(root)
        self._inside = tuple(os.path.join(folder, "") for folder in (root, blobs) if folder)
        self._count = 0
        try:
            self._found = os.stat(root)
        except OSError as error:
            raise problem(self._said, error) from None
        self.single = not stat.S_ISDIR(self._found.st_mode)

    def files(self) -> Iterator[SourceFile]:
        """Every file, in the order of the bytes of its path."""
        if self.single:
            yield self._file("", self._root, self._found)
            return
        yield from self._folder("", ((self._found.st_dev, self._found.st_ino),))

    def _folder(self, path: str, above: tuple[tuple[int, int], ...]) -> Iterator[SourceFile]:
        """`above` identifies the folder and those it is in: one of them below it again is a circle."""
        entries = self._entries(path, above)
        if not entries and path and f"{path}/huggingface" not in self.skipped:
            self.folders.append(path)
        for _, child, entry in sorted(entries, key=lambda entry: entry[0]):
            if isinstance(entry, SourceFile):
                yield entry
            else:
                yield from self._folder(child, (*above, entry))

    def _entries(
        self, path: str, above: tuple[tuple[int, int], ...]
    ) -> list[tuple[bytes, str, SourceFile | tuple[int, int]]]:
        """What is in folder `path`, each with its place in the order: a folder sorts as its files do."""
        local = os.path.join(self._root, path) if path else self._root
        entries: list[tuple[bytes, str, SourceFile | tuple[int, int]]] = []
        try:
            with of_the_source(), os.scandir(local) as found:
                for entry in found:
                    child = f"{path}/{entry.name}" if path else entry.name
                    if child == huggingface.BOOKKEEPING or child.endswith("/" + huggingface.BOOKKEEPING):
                        self.skipped.append(child)
                        continue
                    if child.endswith(PART_SUFFIX) and not entry.is_dir():
                        self.skipped.append(child)
                        continue
                    check_path(child, f"{shown(self._said)}: file name")
                    status = self._status(entry)
                    if not stat.S_ISDIR(status.st_mode):
                        entries.append((_order(child), child, self._file(child, entry.path, status)))
                        continue
                    folder = (status.st_dev, status.st_ino)
                    if folder in above:
                        raise SourceError(f"{shown(entry.path)} leads back to a folder that it is in")
                    entries.append((_order(child + "/"), child, folder))
        except OSError as error:
            raise problem(error.filename or local, error) from None
        self._count += len(entries)
        if self._count > FILES_MAX:
            raise SourceError(f"{shown(self._said)} holds more than {FILES_MAX} files and folders")
        return entries

    def _status(self, entry: os.DirEntry[str]) -> os.stat_result:
        """What `entry` is, through links that may be followed."""
        if not entry.is_symlink():
            return entry.stat(follow_symlinks=False)
        target = shown(os.readlink(entry.path))
        try:
            status = os.stat(entry.path)
        except OSError as error:
            raise SourceError(f"{shown(entry.path)} -> {target}: {error.strerror}") from None
        real = os.path.realpath(entry.path)
        if not os.path.join(real, "").startswith(self._inside):
            raise SourceError(
                f"{shown(entry.path)} -> {target} leads out of the source; copy the file, or publish its folder"
            )
        return status

    def _file(self, path: str, local: str, found: os.stat_result) -> SourceFile:
        kind = stat.S_IFMT(found.st_mode)
        if kind != stat.S_IFREG:
            raise SourceError(
                f"{shown(local)} is {_KINDS.get(kind, 'not a regular file')}; only files and folders are published"
            )
        if found.st_size > FILE_BYTES_MAX:
            raise SourceError(f"{shown(local)} is larger than {FILE_BYTES_MAX} bytes")
        if not os.access(local, os.R_OK, effective_ids=True):
            raise SourceError(f"{shown(local)}: permission denied")
        return SourceFile(path, found.st_size, bool(found.st_mode & stat.S_IXUSR), identity(found))


def _order(path: str) -> bytes:
    return os.fsencode(path)
