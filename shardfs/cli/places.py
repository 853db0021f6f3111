"""Where a mount keeps its disk cache and its log unless told, and how large the cache may be."""

import hashlib
import os
import shutil
import tempfile
from contextlib import suppress
from pathlib import Path

from shardfs.core.units import parse_size
from shardfs.errors import UsageError

_FREE_SHARE = 4
_OWN_FILES = ("files/*/*", "manifests/*")


def cache_folder(mountpoint: Path, settings: dict[str, object]) -> Path | None:
    """The folder that the options mean, None for no disk cache. UsageError when they contradict each other."""
    if settings.get("no_cache"):
        if settings.get("cache"):
            raise UsageError("give --cache or --no-cache, not both")
        if settings.get("passthrough"):
            raise UsageError("--passthrough hands out files of the disk cache: without --no-cache")
        return None
    if settings.get("cache"):
        return Path(os.path.abspath(str(settings["cache"])))
    base = os.environ.get("XDG_CACHE_HOME")
    return (Path(base) if base else Path.home() / ".cache") / "shardfs" / _tag(mountpoint)


def cache_size(cache: Path | None, size: object) -> int:
    """Bytes that the disk cache may take: `size` if it is given, else a quarter of the space that is free for it.

    What an earlier mount has left in the folder counts as free, or the limit would shrink from mount to mount.
    """
    if cache is None:
        return 0
    if size is not None:
        return parse_size(str(size))
    existing = next(folder for folder in (cache, *cache.parents) if os.path.exists(folder))
    return (shutil.disk_usage(existing).free + _left_in(cache)) // _FREE_SHARE


def log_file(mountpoint: Path, said: object) -> Path:
    """Where the log is. A link stays a link: what is renamed at 10 MiB is the file that it leads to."""
    log = str(said or _state_folder() / f"mount-{_tag(mountpoint)}.log")
    if os.path.exists(log) and not os.path.isfile(log):
        return Path(os.path.abspath(log))  # such as /dev/stderr, which leads to what has no path
    return Path(os.path.realpath(log))


def _left_in(cache: Path) -> int:
    """Bytes on the disk of the files of a cache. Nothing else is looked at: the folder may be somebody else's."""
    total = 0
    with suppress(OSError):  # the cache itself says what is wrong
        for pattern in _OWN_FILES:
            for file in cache.glob(pattern):
                with suppress(OSError):
                    total += file.lstat().st_blocks * 512
    return total


def _state_folder() -> Path:
    base = os.environ.get("XDG_STATE_HOME")
    try:
        home = Path.home()
    except RuntimeError:
        home = Path(tempfile.gettempdir())
    return (Path(base) if base else home / ".local" / "state") / "shardfs"


def _tag(mountpoint: Path) -> str:
    """A short file name for a mountpoint: readable, and different for different places."""
    place = os.path.abspath(mountpoint)
    return f"{Path(place).name or 'root'}-{hashlib.sha256(os.fsencode(place)).hexdigest()[:8]}"
