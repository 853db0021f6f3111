"""A file that is being downloaded: beside its place under a temporary name, until it is whole.

The name tells the content, so that two contents never share a file, even where a filesystem has no locks.
"""

import fcntl
import os
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
    """A descriptor of the file to write, for one download only. SourceError when another one has it."""
    fd = os.open(part, os.O_RDWR | os.O_CREAT | os.O_NOFOLLOW, 0o777 if executable else 0o666)
    try:
        with suppress(OSError):  # a filesystem without locks
            try:
                fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError:
                raise SourceError(f"{part}: another download is writing it") from None
        if not is_at(part, fd):  # renamed or removed between the two
            raise SourceError(f"{part}: another download is writing it")
        mode = os.fstat(fd).st_mode
        if bool(mode & 0o100) != executable:
            with suppress(OSError):  # a filesystem without modes
                os.fchmod(fd, mode & 0o777 | (mode & 0o444) >> 2 if executable else mode & 0o666)
    except BaseException:
        os.close(fd)
        raise
    return fd


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
