"""Whether a mount can be made at a place, said before anything is tried, and the unmounting of what is there.

A daemon that was killed leaves a dead mount (every access: ENOTCONN); it is detached and replaced.
"""

import errno
import logging
import os
import shutil
import stat
import subprocess
from pathlib import Path

from shardfs.errors import MountError

logger = logging.getLogger(__name__)

FUSE_DEVICE = Path("/dev/fuse")
_COMMAND_SECONDS = 10


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
    place = Path(os.path.abspath(mountpoint))
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


def is_dead(place: Path) -> bool:
    """Whether a FUSE mount without its daemon is here."""
    try:
        place.stat()
    except OSError as error:
        return error.errno == errno.ENOTCONN
    return False


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
