"""One real cluster for the fault tests; after each test every node runs again."""

import hashlib
import os
import random
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from shardfs.api.local import LocalCluster
from tests.mount.kit import MiB, Place, scratch

BIG_BYTES = 192 * MiB


@pytest.fixture(scope="session")
def e2e_cluster() -> Iterator[LocalCluster]:
    pytest.importorskip("pyfuse3", reason="left out: pyfuse3 is not installed (shardfs[mount] brings it)")
    if not os.access("/dev/fuse", os.R_OK | os.W_OK):
        pytest.skip("left out: /dev/fuse cannot be opened, so nothing can be mounted here")
    with scratch() as folder, LocalCluster(folder / "cluster", nodes=3, replicas=2) as running:
        yield running


@pytest.fixture
def cluster(e2e_cluster: LocalCluster) -> Iterator[LocalCluster]:
    yield e2e_cluster
    for node in e2e_cluster.node_ids:
        if e2e_cluster.running(node):
            e2e_cluster.resume(node)
        else:
            e2e_cluster.start(node)


@pytest.fixture(scope="session")
def big(e2e_cluster: LocalCluster) -> str:
    """The model `big.bin`, 192 MiB, put once; its sha256."""
    chance = random.Random(11)
    with scratch() as folder:
        source = folder / "big.bin"
        digest = hashlib.sha256()
        with source.open("wb") as file:
            for _ in range(BIG_BYTES // MiB):
                part = chance.randbytes(MiB)
                digest.update(part)
                file.write(part)
        e2e_cluster.put(source, "big.bin")
    return digest.hexdigest()


@pytest.fixture
def publish(cluster: LocalCluster) -> Iterator[Callable[..., bytes]]:
    """Publishes `size` bytes, different each time, as a single-file model; returns them."""
    names: list[str] = []

    def put(name: str, size: int) -> bytes:
        content = random.Random(f"{name} {size}").randbytes(size)
        with scratch() as folder:
            (folder / "source").write_bytes(content)
            cluster.put(folder / "source", name)
        names.append(name)
        return content

    yield put
    for name in names:
        cluster.run("rm", name)


@pytest.fixture
def place(cluster: LocalCluster) -> Iterator[Place]:
    """A mountpoint with a fresh cache folder."""
    with scratch() as folder:
        here = Place(folder, cluster.cluster_file)
        try:
            yield here
        finally:
            here.clean()


@pytest.fixture
def logged(place: Place) -> Callable[[str], int]:
    """How many lines of the daemon's log contain a text."""

    def count(text: str) -> int:
        return sum(text in line for line in Path(place.log).read_text().splitlines())

    return count
