"""One real cluster for the whole folder: three chunk servers, `shardfs put`, and one mount."""

import os
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from shardfs.api.local import LocalCluster

# Set before any of the libraries is imported: nothing here may reach for the network or draw progress bars.
os.environ.update(HF_HUB_OFFLINE="1", HF_HUB_DISABLE_PROGRESS_BARS="1", TRANSFORMERS_VERBOSITY="error")

VISIBLE_SECONDS_MAX = 60.0


@pytest.fixture(scope="session")
def cluster(tmp_path_factory: pytest.TempPathFactory) -> Iterator[LocalCluster]:
    """Three running `shardfs node` processes that hold two copies of everything."""
    pytest.importorskip("pyfuse3", reason="left out: pyfuse3 is not installed (shardfs[mount] brings it)")
    if not os.access("/dev/fuse", os.R_OK | os.W_OK):
        pytest.skip("left out: /dev/fuse cannot be opened, so nothing can be mounted here")
    with LocalCluster(tmp_path_factory.mktemp("cluster"), nodes=3, replicas=2) as running:
        yield running


@pytest.fixture(scope="session")
def mounted(cluster: LocalCluster, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Callable[[Path, str], Path]]:
    """Publishes a folder or file under a name and returns where it appears on the mount."""
    top = tmp_path_factory.mktemp("mount")
    mountpoint = top / "models"
    mountpoint.mkdir()
    cluster.mount(mountpoint, "--cache", str(top / "cache"), "--cache-size", "2GiB")

    def publish(source: Path, name: str) -> Path:
        cluster.put(source, name)
        path = mountpoint / name
        deadline = time.monotonic() + VISIBLE_SECONDS_MAX
        while not path.exists():
            assert time.monotonic() < deadline, f"{name} is published but not on the mount"
            time.sleep(0.05)
        return path

    yield publish
    cluster.umount(mountpoint)
