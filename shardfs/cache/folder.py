"""The cache folder: whose it is, which version, what its filesystem can do, what lies in it.

    lock                        flock of the one owner, and its process id
    format                      one line, the version of all below `files`
    files/<2 hex>/<64 hex>.data and .map
    manifests/<64 hex>          the catalog's

A folder that is not empty and not ours is refused, since whatever looks wrong inside ours is deleted.
"""

import errno
import fcntl
import os
import re
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from shardfs.cache import holes
from shardfs.cache.openers import is_open
from shardfs.core.digest import Digest
from shardfs.errors import CacheError

FORMAT = "shardfs cache 1\n"
_OURS = frozenset({"lock", "format", "files", "manifests", "probe", "lost+found"})
_SHELF = re.compile(r"[0-9a-f]{2}", re.ASCII)
_NAME = re.compile(r"([0-9a-f]{64})\.(data|map)", re.ASCII)
_PROBE_BYTES = 1 << 20


@dataclass(frozen=True, slots=True)
class Medium:
    """What the filesystem under the cache folder can do.

    Give back parts of a file; read and write around the page cache; tell whether anybody has a file open.
    """

    punches: bool
    direct: bool
    leases: bool


class CacheFolder:
    """A locked cache folder. Raises CacheError, with folder and cause, from `claim` only."""

    def __init__(self, path: Path, lock_fd: int) -> None:
        self.path = path
        self.files = path / "files"
        self.manifests = path / "manifests"
        self._lock_fd = lock_fd

    @classmethod
    def claim(cls, path: Path) -> "CacheFolder":
        """Make the folder if need be and become its owner."""
        try:
            path.mkdir(mode=0o700, parents=True, exist_ok=True)
            _check_ours(path)
            folder = cls(path, _lock(path))
        except OSError as error:
            raise CacheError(f"cache folder {path}: {error.strerror or error}") from None
        try:
            folder._prepare()
        except OSError as error:
            folder.release()
            raise CacheError(f"cache folder {path}: {error.strerror or error}") from None
        return folder

    def release(self) -> None:
        """Let the next owner in."""
        if self._lock_fd >= 0:
            os.close(self._lock_fd)
            self._lock_fd = -1

    def medium(self) -> Medium:
        """Try out what the filesystem can do. CacheError when files cannot be sparse at all; OSError."""
        probe = self.path / "probe"
        fd = os.open(probe, os.O_RDWR | os.O_CREAT | os.O_TRUNC | os.O_NOFOLLOW, 0o600)
        try:
            try:
                os.ftruncate(fd, _PROBE_BYTES)
                if os.fstat(fd).st_blocks * 512 > _PROBE_BYTES // 2:
                    raise CacheError(f"cache folder {self.path}: its filesystem has no sparse files")
                punches, direct, open_now = _punches(fd), _takes_direct(probe), _said_open(probe)
            finally:
                os.close(fd)
            open_then = _said_open(probe)
            return Medium(punches=punches, direct=direct, leases=(open_now, open_then) == (True, False))
        finally:
            probe.unlink(missing_ok=True)

    def answers(self) -> bool:
        """Whether a few bytes reach the disk and come back. A full disk answers."""
        probe = self.path / "probe"
        try:
            fd = os.open(probe, os.O_RDWR | os.O_CREAT | os.O_TRUNC | os.O_NOFOLLOW, 0o600)
            try:
                os.pwrite(fd, FORMAT.encode(), 0)
                os.fsync(fd)
                return os.pread(fd, 64, 0) == FORMAT.encode()
            finally:
                os.close(fd)
                probe.unlink()
        except OSError as error:
            return error.errno in {errno.ENOSPC, errno.EDQUOT}

    def file(self, digest: Digest, kind: str) -> Path:
        """Where the `data` or `map` of a content lies."""
        name = str(digest)
        return self.files / name[:2] / f"{name}.{kind}"

    def pairs(self) -> Iterator[Digest]:
        """The digests that have both files. Everything else below `files` is deleted. OSError."""
        for shelf in sorted(self.files.iterdir()):
            if not _SHELF.fullmatch(shelf.name) or not shelf.is_dir() or shelf.is_symlink():
                continue
            found: dict[str, set[str]] = {}
            with os.scandir(shelf) as entries:
                for entry in entries:
                    name = _NAME.fullmatch(entry.name)
                    fits = name and name.group(1).startswith(shelf.name)
                    if name and fits and entry.is_file(follow_symlinks=False):
                        found.setdefault(name.group(1), set()).add(name.group(2))
                    elif not entry.is_dir(follow_symlinks=False):
                        os.unlink(entry.path)
            for digest, kinds in found.items():
                if len(kinds) == 2:
                    yield Digest.parse(digest)
                else:
                    (shelf / f"{digest}.{kinds.pop()}").unlink()

    def _prepare(self) -> None:
        self.path.chmod(0o700)
        for folder in (self.files, self.manifests):
            folder.mkdir(mode=0o700, exist_ok=True)
        os.ftruncate(self._lock_fd, 0)
        os.pwrite(self._lock_fd, f"{os.getpid()}\n".encode(), 0)
        version = self.path / "format"
        if not version.is_file() or version.read_bytes()[:80] != FORMAT.encode():
            # Another version, or damaged: nothing below `files` may be read as if it were ours.
            for digest in self.pairs():
                for kind in ("map", "data"):
                    self.file(digest, kind).unlink()
            version.unlink(missing_ok=True)
            version.write_text(FORMAT)
            version.chmod(0o600)


def _check_ours(path: Path) -> None:
    names = {entry.name for entry in path.iterdir()}
    if "format" in names or names <= _OURS:
        return
    stranger = min(names - _OURS)
    raise CacheError(f"cache folder {path}: not empty and no shardfs cache (there is {stranger!r})")


def _lock(path: Path) -> int:
    fd = os.open(path / "lock", os.O_RDWR | os.O_CREAT | os.O_NOFOLLOW | os.O_CLOEXEC, 0o600)
    try:
        fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        owner = os.pread(fd, 20, 0).decode("ascii", "replace").strip() or "unknown"
        os.close(fd)
        raise CacheError(f"cache folder {path} is in use by process {owner}") from None
    except OSError:
        os.close(fd)
        raise
    return fd


def _punches(fd: int) -> bool:
    """Whether a punched hole really gives its space back."""
    try:
        os.pwrite(fd, b"\1" * _PROBE_BYTES, 0)
        before = os.fstat(fd).st_blocks
        holes.punch(fd, _PROBE_BYTES // 4, _PROBE_BYTES // 2)
        return os.fstat(fd).st_blocks < before
    except OSError as error:
        if error.errno in {errno.EOPNOTSUPP, errno.ENOSYS, errno.EINVAL}:
            return False
        if error.errno in {errno.ENOSPC, errno.EDQUOT}:
            return True  # too full to try; those that cannot punch are rare, and then eviction fails and is counted
        raise


def _said_open(probe: Path) -> bool | None:
    """What the kernel says; None when it does not tell."""
    try:
        return is_open(probe)
    except OSError:
        return None


def _takes_direct(probe: Path) -> bool:
    try:
        os.close(os.open(probe, os.O_RDWR | os.O_DIRECT))
    except OSError:
        return False
    return True
