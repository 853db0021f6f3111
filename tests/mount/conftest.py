"""One real cluster and one real mount of it for all tests that only read."""

import os
import random
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from shardfs.api.local import LocalCluster
from tests.mount.kit import MiB, Place, scratch, until

LONG = "é" * 100 + "x" * 55  # 255 bytes
SIZES = {"empty": 0, "one": 1, "block": 256 * 1024, "block+1": 256 * 1024 + 1, "chunk-1": 4 * MiB - 1, "chunk": 4 * MiB}


@pytest.fixture(scope="session")
def top() -> Iterator[Path]:
    pytest.importorskip("pyfuse3", reason="left out: pyfuse3 is not installed (shardfs[mount] brings it)")
    if not os.access("/dev/fuse", os.R_OK | os.W_OK):
        pytest.skip("left out: /dev/fuse cannot be opened, so nothing can be mounted here")
    with scratch() as folder:
        yield folder


@pytest.fixture(scope="session")
def model(top: Path) -> Path:
    """A folder with files of all sizes that matter, holes, a long name, an empty folder, an executable."""
    chance = random.Random(7)
    root = top / "model"
    (root / "deep" / "er").mkdir(parents=True)
    (root / "void").mkdir()
    (root / "deep" / "er" / "config.json").write_bytes(b'{"hidden_size": 4096}\n')
    (root / LONG).write_bytes(b"long name")
    for name, size in SIZES.items():
        (root / name).write_bytes(chance.randbytes(size))
    (root / "weights").write_bytes(chance.randbytes(9 * MiB + 12345))
    (root / "tool").write_bytes(b"#!/bin/sh\necho it runs\n")
    (root / "tool").chmod(0o755)
    with (root / "holes").open("wb") as file:
        file.write(b"begin")
        file.seek(8 * MiB)
        file.write(b"middle")
        file.truncate(20 * MiB + 5)
    return root


@pytest.fixture(scope="session")
def cluster(top: Path, model: Path) -> Iterator[LocalCluster]:
    """Three running nodes that hold two copies of `m` (a folder) and `team/single.bin` (a file)."""
    with LocalCluster(top / "cluster", nodes=3, replicas=2) as running:
        running.put(model, "m")
        running.put(model / "weights", "team/single.bin")
        yield running


@pytest.fixture(scope="session")
def mounted(top: Path, cluster: LocalCluster) -> Iterator[Path]:
    """The mount of the tests that only read."""
    mountpoint = top / "models"
    cluster.mount(mountpoint, "--cache", str(top / "cache"), "--cache-size", "1GiB")
    yield mountpoint
    cluster.umount(mountpoint)


@pytest.fixture
def place(cluster: LocalCluster) -> Iterator[Place]:
    """A mountpoint for a test that mounts and unmounts by itself."""
    with scratch() as folder:
        here = Place(folder, cluster.cluster_file)
        try:
            yield here
        finally:
            here.clean()


@pytest.fixture
def publish(cluster: LocalCluster, mounted: Path, tmp_path: Path) -> Iterator[Callable[[str, bytes], None]]:
    """Publishes bytes as a single-file model, and deletes it at the end."""
    names: set[str] = set()

    def put(name: str, content: bytes) -> None:
        source = tmp_path / "source"
        source.write_bytes(content)
        cluster.put(source, name)
        names.add(name)

    yield put
    for name in names:
        cluster.run("rm", name)


@pytest.fixture
def appears(mounted: Path) -> Callable[[str], Path]:
    """Waits for a name to be on the mount. That two seconds are enough is proven in virtual time, in tests/vfs."""

    def wait(name: str) -> Path:
        until((mounted / name).exists, what=name)
        return mounted / name

    return wait
