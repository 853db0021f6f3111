"""Objects in a local folder, one file per object, for everybody who keeps one: `FileStore` and the chunk server.

    <root>/chunks/<2 hex>/<64 hex>, <root>/manifests/..., <root>/refs/...     the objects, named by their keys
    <root>/tmp/                                                               what is being written

Blocking code, to be run in threads; it keeps no descriptor open between calls, so that a disk can be unmounted and come
back. Every name below the root is opened without following links: a link planted in the folder leads nowhere. A listing
costs the memory of one page, however full a folder is. Errors are plain OSError; the callers say what they mean.

The root is made when its parent exists. A node on a removable disk is therefore best kept one folder below the mount
point's own folders (`/mnt/disk/shardfs/a`): when the disk is not there, neither is the parent, and nothing is
written beside it.
"""

import errno
import os
import stat
import threading
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from heapq import nsmallest
from pathlib import Path

from shardfs.core.keys import CHUNKS, MANIFESTS, REFS, ObjectKey, parse_key
from shardfs.errors import InvalidFormat
from shardfs.store.base import SpanInto, StoreStat

TEMP = "tmp"

_FOLDER_FLAGS = os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC
_FILE_FLAGS = os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC  # NONBLOCK: a FIFO must not hang us
_FOLDERS_AT_ONCE = 1000
_LAST = "\U0010ffff"  # sorts after every character of a key


class Folder:
    """The objects under `root`. Safe to use from several threads and several processes at once."""

    def __init__(self, root: Path) -> None:
        self.root = root
        self._lock = threading.Lock()
        self._durable: set[str] = set()  # folders whose own entry this process has made durable; guarded by _lock

    @contextmanager
    def open_folder(self, path: str, *, create: bool = False) -> Iterator[int]:
        """A descriptor of the folder `path` (relative, '' for the root). With `create`, it exists durably."""
        at = self._open_root()
        try:
            done = ""
            for part in path.split("/") if path else ():
                done = f"{done}/{part}"
                if create:
                    self._make(at, part, done)
                below = os.open(part, _FOLDER_FLAGS, dir_fd=at)
                os.close(at)
                at = below
            yield at
        finally:
            os.close(at)

    def _open_root(self) -> int:
        flags = os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC  # the root itself may be a link: the owner chose it
        try:
            return os.open(self.root, flags)
        except FileNotFoundError:
            pass
        try:
            self.root.mkdir(exist_ok=True)
            _sync_path(self.root.parent)
        except FileNotFoundError:
            raise NotADirectoryError(errno.ENOTDIR, "folder does not exist", str(self.root.parent)) from None
        return os.open(self.root, flags)

    def _make(self, parent: int, part: str, path: str) -> None:
        """Make the folder and sync its entry in its parent, also when somebody else made it a moment ago."""
        with suppress(FileExistsError):
            os.mkdir(part, 0o755, dir_fd=parent)
        with self._lock:
            if path in self._durable:
                return
        os.fsync(parent)
        with self._lock:
            if not path.startswith(f"/{REFS}/"):  # there is no bound on the number of models
                self._durable.add(path)

    def open(self, key: str) -> tuple[int, int]:
        """Descriptor and size of an object, or of another file by a checked path. The caller closes it.

        FileNotFoundError when there is none.
        """
        path, _, name = key.rpartition("/")
        with self.open_folder(path) as at:
            try:
                file = os.open(name, _FILE_FLAGS, dir_fd=at)
            except OSError as error:
                if error.errno in (errno.ELOOP, errno.ENXIO):  # a link or a socket is not an object
                    raise FileNotFoundError(errno.ENOENT, "not a file", key) from None
                raise
        status = os.fstat(file)
        if not stat.S_ISREG(status.st_mode):
            os.close(file)
            raise FileNotFoundError(errno.ENOENT, "not a file", key)
        return file, status.st_size

    def read_at(self, key: str, spans: Sequence[SpanInto]) -> Sequence[int]:
        """Fill each span from the object; how many bytes there were of each, fewer only where it ends."""
        file, _ = self.open(key)
        try:
            return [read_full(file, into, offset) for offset, into in spans]
        finally:
            os.close(file)

    def size(self, key: ObjectKey) -> int | None:
        """Bytes of the object, or None when there is none."""
        try:
            file, size = self.open(key)
        except FileNotFoundError:
            return None
        os.close(file)
        return size

    def delete(self, key: ObjectKey) -> bool:
        """Remove the object, durably; False when there was none."""
        path, _, name = key.rpartition("/")
        try:
            with self.open_folder(path) as at:
                os.unlink(name, dir_fd=at)
                os.fsync(at)
        except FileNotFoundError:
            return False
        return True

    def walk(self, path: str) -> Iterator[tuple[str, os.DirEntry[str]]]:
        """Everything below the folder `path` that is no folder, with its path from the root. Follows no links."""
        folders = []
        with self.open_folder(path) as at, os.scandir(at) as entries:
            for entry in entries:
                below = f"{path}/{entry.name}" if path else entry.name
                if entry.is_dir(follow_symlinks=False):
                    folders.append(below)
                else:
                    yield below, entry
        for below in folders:
            yield from self.walk(below)

    def keys(self, prefix: str, after: str, limit: int) -> list[ObjectKey]:
        """Up to `limit` keys that begin with `prefix` and sort after `after`, sorted; fewer only at the end."""
        found: list[ObjectKey] = []
        for kind in (CHUNKS, MANIFESTS, REFS):
            for path in self._folders(kind, prefix, after):
                if len(found) >= limit:
                    return found
                found += self._page(path, prefix, after, limit - len(found))
        return found

    def _folders(self, kind: str, prefix: str, after: str) -> Iterator[str]:
        """The folders that may hold such keys, in the order of the keys in them."""
        if not _overlap(f"{kind}/", prefix) or f"{kind}/{_LAST}" <= after:
            return
        if kind == MANIFESTS:
            yield kind
            return
        last = ""
        while True:
            # With the slash, because "a-b/" sorts before "a/" although "a" sorts before "a-b".
            paths = (
                path
                for entry in self._scan(kind)
                if last < (path := f"{kind}/{entry.name}/")
                and path + _LAST > after
                and _overlap(path, prefix)
                and entry.is_dir(follow_symlinks=False)
            )
            batch = nsmallest(_FOLDERS_AT_ONCE, paths)
            for last in batch:
                yield last.rstrip("/")
            if len(batch) < _FOLDERS_AT_ONCE:
                return

    def _page(self, path: str, prefix: str, after: str, limit: int) -> list[ObjectKey]:
        return nsmallest(
            limit,
            (
                key
                for entry in self._scan(path)
                if (name := f"{path}/{entry.name}") > after
                and name.startswith(prefix)
                and entry.is_file(follow_symlinks=False)
                and (key := _key_or_none(name)) is not None
            ),
        )

    def _scan(self, path: str) -> Iterator[os.DirEntry[str]]:
        try:
            with self.open_folder(path) as at, os.scandir(at) as entries:
                yield from entries
        except FileNotFoundError:
            return

    def stat(self) -> StoreStat:
        """Space of the disk that holds the folder, as far as an ordinary user may fill it."""
        with self.open_folder("") as at:
            space = os.fstatvfs(at)
        return StoreStat(space.f_blocks * space.f_frsize, space.f_bavail * space.f_frsize)


def read_full(file: int, into: memoryview, offset: int) -> int:
    """Fill `into` from `offset` of a file; fewer bytes only at its end."""
    done = 0
    while done < len(into):
        count = os.preadv(file, [into[done:]], offset + done)
        if count == 0:
            break
        done += count
    return done


def _sync_path(path: Path) -> None:
    at = os.open(path, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        os.fsync(at)
    finally:
        os.close(at)


def _overlap(path: str, prefix: str) -> bool:
    return path.startswith(prefix) or prefix.startswith(path)


def _key_or_none(name: str) -> ObjectKey | None:
    try:
        return parse_key(name)
    except InvalidFormat:
        return None
