"""Whether a mount can be made at a place, said before anything is tried, and the unmounting of what is there.

A daemon that was killed leaves a dead mount (every access: ENOTCONN); it is detached and replaced.
"""

import errno
import logging
import os
import shutil
import stat
import subprocess
import threading
from collections.abc import Callable
from pathlib import Path
from typing import TypeVar

from shardfs.errors import MountError

logger = logging.getLogger(__name__)

T = TypeVar("T")

FUSE_DEVICE = Path("/dev/fuse")
_COMMAND_SECONDS = 10
_ANSWER_SECONDS = 3.0
_LINKS_MAX = 40


def check_system() -> None:
    """MountError with what to do, unless this machine and user can mount through FUSE."""
    if not FUSE_DEVICE.exists():
        raise MountError(
            f"{FUSE_DEVICE} is missing: load the kernel module (modprobe fuse), "
            f"or give the container the device (docker run --device {FUSE_DEVICE} --cap-add SYS_ADMIN)"
        )
    if not os.access(FUSE_DEVICE, os.R_OK | os.W_OK):
        raise MountError(f"{FUSE_DEVICE} cannot be opened: no permission (run as root, or chmod 666 {FUSE_DEVICE})")
    if os.geteuid() != 0 and shutil.which("fusermount3") is None:
        raise MountError("fusermount3 is missing, which mounts without root: apt-get install fuse3")


def prepare(mountpoint: Path) -> Path:
    """The absolute path of an empty folder that is no mount, a dead one taken away. MountError otherwise."""
    place = locate(mountpoint)
    if is_dead(place):
        logger.warning("%s: replacing the dead mount of a daemon that was killed", place)
        detach(place)
    try:
        mode = place.stat().st_mode
    except FileNotFoundError:
        raise MountError(f"{place}: no such folder (mkdir -p {place})") from None
    except OSError as error:
        raise MountError(f"{place}: {error.strerror}") from None
    if not stat.S_ISDIR(mode):
        raise MountError(f"{place}: not a folder")
    if mounted := filesystem_at(place):
        raise MountError(f"{place}: already mounted ({mounted}); shardfs umount {place}")
    try:
        if any(place.iterdir()):
            raise MountError(f"{place}: not empty, and a mount would hide what is there")
    except PermissionError:
        raise MountError(f"{place}: no permission to look inside") from None
    return place


def locate(mountpoint: Path) -> Path:
    """The absolute path without symbolic links, as the kernel's tables have it.

    Nothing is asked of a filesystem that is mounted there: a daemon that hangs would never answer.
    """
    path = os.path.abspath(mountpoint)
    for _ in range(_LINKS_MAX):
        parent = os.path.realpath(os.path.dirname(path))
        path = os.path.join(parent, os.path.basename(path))
        try:
            path = os.path.abspath(os.path.join(parent, os.readlink(path)))
        except OSError:
            break
    return Path(path)


def is_dead(place: Path) -> bool:
    """Whether a FUSE mount without its daemon is here. MountError when there is one that does not answer."""

    def look() -> bool:
        try:
            os.statvfs(place)  # never answered from the kernel's caches, as `stat` is for a second
        except OSError as error:
            return error.errno in (errno.ENOTCONN, errno.ECONNABORTED)
        return False

    return ask(place, look)


def ask(place: Path, question: Callable[[], T]) -> T:
    """The answer of whoever serves `place`; MountError when it does not come.

    A call to a daemon that hangs cannot be taken back, so a thread makes it.
    """
    answers: list[T] = []
    thread = threading.Thread(target=lambda: answers.append(question()), daemon=True)
    thread.start()
    thread.join(_ANSWER_SECONDS)
    if not answers:
        raise MountError(f"{place}: the daemon does not answer; fusermount3 -u -z {place} takes the mount away")
    return answers[0]


def filesystem_at(place: Path) -> str | None:
    """The type of the filesystem mounted exactly at `place`, or None."""
    found = None
    with Path("/proc/self/mountinfo").open() as lines:
        for line in lines:
            left, _, right = line.partition(" - ")
            where = left.split(" ")[4].encode().decode("unicode_escape").encode("latin-1").decode(errors="replace")
            if where == str(place):
                found = right.split(" ")[0]
    return found


def detach(place: Path) -> None:
    """Take the mount out of the tree at once, even with open files (lazily). MountError if that fails."""
    command = ["umount", "-l", str(place)] if os.geteuid() == 0 else ["fusermount3", "-u", "-z", str(place)]
    result = subprocess.run(command, capture_output=True, text=True, timeout=_COMMAND_SECONDS, check=False)
    if result.returncode != 0:
        raise MountError(f"{place}: cannot unmount: {result.stderr.strip() or result.returncode}")
