"""Run by test_life.py as a user without privileges: mount, read, unmount; prints the digest of what was read."""

import os
import sys
from pathlib import Path

from shardfs.mount.mountpoint import filesystem_at
from tests.mount.kit import sha256, shardfs


def main() -> None:
    mountpoint, cluster_file = Path(sys.argv[1]), sys.argv[2]
    assert os.geteuid() != 0
    done = shardfs("mount", mountpoint, "--cluster", cluster_file)
    assert done.returncode == 0, done.stderr
    assert "without root" in done.stdout
    assert filesystem_at(mountpoint) == "fuse.shardfs"
    print(sha256(mountpoint / "m" / "weights"))
    done = shardfs("umount", mountpoint)
    assert done.returncode == 0, done.stderr
    assert filesystem_at(mountpoint) is None


main()
