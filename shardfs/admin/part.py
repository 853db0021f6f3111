"""A file that is being downloaded: beside its place under a temporary name, until it is whole.

The name tells the content, so that two contents never share a file, even where a filesystem has no locks. Others may
know it, too: what lies there is gone on with only if it is a file of ours with this one name.
"""

import fcntl
import os
import stat
import tempfile
from contextlib import suppress
from pathlib import Path

import xxhash

from shardfs.core.digest import DIGEST_BYTES
from shardfs.core.manifest import FileEntry, Manifest
from shardfs.core.ranges import chunk_count
from shardfs.errors import SourceError

PART_SUFFIX = ".shardfs-part"
_NAME_BYTES_MAX = 255


def part_path(path: Path, manifest: Manifest, entry: FileEntry) -> Path:
    """Where `entry` is written before it is renamed to `path`. At most 255 bytes long, as every name."""
    first = entry.first_chunk * DIGEST_BYTES
    end = first + chunk_count(entry.size, manifest.chunk_size) * DIGEST_BYTES
    content = xxhash.xxh3_64(f"{entry.size} {manifest.chunk_size} {manifest.block_size} ".encode())
    content.update(memoryview(manifest.digests)[first:end])
    ending = f".{content.hexdigest()}{PART_SUFFIX}"
    return path.with_name(os.fsdecode(os.fsencode(path.name)[: _NAME_BYTES_MAX - len(ending)]) + ending)


def open_part(part: Path, *, executable: bool) -> int:
    """A descriptor of the file to write, for one download only. SourceError: another one has it, or it is not ours."""
    fd, begun = _open(part, 0o777 if executable else 0o666)
    try:
        if begun:
            _check_ours(part, os.fstat(fd))
        with suppress(OSError):  # a filesystem without locks
            try:
                fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError:
                raise SourceError(f"{part}: another download is writing it") from None
        if not is_at(part, fd):  # renamed or removed between the two
            raise SourceError(f"{part}: another download is writing it")
        if begun:
            mode = stat.S_IMODE(os.fstat(fd).st_mode)
            wanted = (mode & 0o777 | (mode & 0o444) >> 2 if executable else mode & 0o666) & ~(_umask() & 0o022)
            if mode != wanted:
                with suppress(OSError):  # a filesystem without modes
                    os.fchmod(fd, wanted)
    except BaseException:
        os.close(fd)
        raise
    return fd


def _open(part: Path, mode: int) -> tuple[int, bool]:
    """The descriptor, and whether the file was there before."""
    flags = os.O_RDWR | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_NOCTTY  # whatever lies there, do not wait for it
    with suppress(FileExistsError):
        return os.open(part, flags | os.O_CREAT | os.O_EXCL, mode), False
    try:
        return os.open(part, flags), True
    except FileNotFoundError:  # finished between the two
        raise SourceError(f"{part}: another download is writing it") from None
    except OSError as error:
        if part.is_symlink():
            raise _in_the_way(part, "is a symbolic link") from None
        raise _in_the_way(part, f"cannot be gone on with ({error.strerror})") from None


def _check_ours(part: Path, found: os.stat_result) -> None:
    if not stat.S_ISREG(found.st_mode):
        raise _in_the_way(part, "is no regular file")
    if found.st_uid != os.geteuid() and found.st_uid != _owner_here(part.parent):
        raise _in_the_way(part, f"belongs to another user ({found.st_uid}), who could change it later")
    if found.st_nlink > 1:
        raise _in_the_way(part, "has another name, too (a hard link), which would be written")


def _in_the_way(part: Path, why: str) -> SourceError:
    return SourceError(f"{part}: {why}; delete it, and the same command begins this file anew")


def _owner_here(folder: Path) -> int:
    """Whom this filesystem calls the owner of what we create: with root_squash, `uid=` and their like somebody else."""
    with tempfile.NamedTemporaryFile(prefix=".", suffix=PART_SUFFIX, dir=folder) as probe:
        return os.fstat(probe.fileno()).st_uid


def _umask() -> int:
    """Asked for without a change, which would be one for all threads. Without /proc, the usual one."""
    with suppress(OSError):
        for line in Path("/proc/self/status").read_text().splitlines():
            name, _, value = line.partition(":")
            if name == "Umask":
                return int(value, 8)
    return 0o022


def is_at(part: Path, fd: int) -> bool:
    """Whether `part` is still the file that `fd` is."""
    try:
        return os.path.samestat(os.fstat(fd), part.lstat())
    except FileNotFoundError:
        return False


def finish_part(part: Path, fd: int, path: Path) -> None:
    """Give the file its name. SourceError when somebody else has put another one there or taken it away."""
    if not is_at(part, fd):
        raise SourceError(f"{part}: was removed or replaced while it was being written")
    os.rename(part, path)


def bytes_kept(part: Path, fd: int) -> int:
    """How many bytes a download that ended leaves for the next one; a file of none is removed."""
    with suppress(OSError):
        if not is_at(part, fd):
            return 0
        if kept := os.fstat(fd).st_blocks * 512:
            return kept
        part.unlink()
    return 0
