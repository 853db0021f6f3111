"""What root can do for a mount: a larger read-ahead window and more requests in flight.

The kernel reads 128 KiB ahead by default and FUSE can only lower that, which keeps two small requests in flight; the
window is raised through sysfs instead (measured: 0.3-0.8 GiB/s at 128 KiB, 1.3-4 at 4 MiB).
"""

import logging
import os
import subprocess
from dataclasses import dataclass
from pathlib import Path

logger = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class KernelOptions:
    """`readahead_kib` per file; `background` requests the kernel sends without being waited for."""

    readahead_kib: int = 4096
    background: int = 64


def tune(mountpoint: Path, options: KernelOptions) -> bool:
    """Raise both for the mount at `mountpoint`; False where that needs root. Call from a thread: it stats the mount."""
    device = os.stat(mountpoint).st_dev
    major, minor = os.major(device), os.minor(device)
    window = Path(f"/sys/class/bdi/{major}:{minor}/read_ahead_kb")
    try:
        window.write_text(str(options.readahead_kib))
    except OSError as error:
        logger.debug("%s: %s", window, error)
        return False
    control = Path("/sys/fs/fuse/connections")
    try:
        if not any(control.iterdir()):
            subprocess.run(["mount", "-t", "fusectl", "fusectl", str(control)], check=True, capture_output=True)
        connection = control / str(minor)
        (connection / "max_background").write_text(str(options.background))
        (connection / "congestion_threshold").write_text(str(options.background * 3 // 4))
    except (OSError, subprocess.CalledProcessError) as error:
        logger.debug("max_background: %s", error)
    return True
