"""The counters of a real mount agree with the replayed traces, with root's kernel window and with 128 KiB."""

import os
import random
import re
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from shardfs.api.local import LocalCluster
from shardfs.core.units import parse_size

pytestmark = [pytest.mark.fuse]

MIB = 2**20
BLOCK = 256 * 1024
SIZE = 96 * MIB
READS = 80


@pytest.fixture(scope="module")
def cluster(tmp_path_factory: pytest.TempPathFactory) -> Iterator[LocalCluster]:
    pytest.importorskip("pyfuse3", reason="left out: pyfuse3 is not installed (shardfs[mount] brings it)")
    if not os.access("/dev/fuse", os.R_OK | os.W_OK):
        pytest.skip("left out: /dev/fuse cannot be opened, so nothing can be mounted here")
    if os.geteuid():
        pytest.skip("left out: only root may set the kernel's window")
    folder = tmp_path_factory.mktemp("readahead")
    (folder / "weights").write_bytes(random.Random(1).randbytes(SIZE))
    with LocalCluster(folder / "cluster", nodes=2, replicas=1) as running:
        running.put(folder / "weights", "m")
        yield running


def cold(cluster: LocalCluster, mountpoint: Path, kernel_kib: int, reads: list[tuple[int, int]]) -> tuple[int, int]:
    """Bytes that the kernel asked the daemon for, and bytes that the nodes sent, for `reads` of a fresh mount."""
    trace = mountpoint.with_suffix(".trace")
    cluster.mount(mountpoint, "--no-cache", "--trace", str(trace))
    device = os.stat(mountpoint).st_dev
    Path(f"/sys/class/bdi/{os.major(device)}:{os.minor(device)}/read_ahead_kb").write_text(str(kernel_kib))
    deadline = time.monotonic() + 60
    while not (mountpoint / "m").exists():
        assert time.monotonic() < deadline
        time.sleep(0.05)
    descriptor = os.open(mountpoint / "m", os.O_RDONLY)
    for offset, length in reads:
        assert len(os.pread(descriptor, length, offset)) == length
    os.close(descriptor)
    cluster.umount(mountpoint)
    (sent,) = re.findall(r"read (\S+ ?\S*) from nodes", cluster.log(mountpoint.name).read_text())
    asked = sum(int(line.split()[3]) for line in trace.read_text().splitlines())
    return asked, parse_size(sent)


def scattered(length: int) -> list[tuple[int, int]]:
    chance = random.Random(length)
    return [(chance.randrange(1, (SIZE - length) // 4096) * 4096, length) for _ in range(READS)]


@pytest.mark.parametrize("kernel_kib", [4096, 128])
def test_random_4k_costs_one_block_each(cluster: LocalCluster, tmp_path: Path, kernel_kib: int):
    reads = scattered(4096)
    asked, sent = cold(cluster, tmp_path / f"four-{kernel_kib}", kernel_kib, reads)
    assert asked == READS * 4096
    assert sent == pytest.approx(len({offset // BLOCK for offset, _ in reads}) * BLOCK, rel=0.01)


@pytest.mark.parametrize("kernel_kib", [4096, 128])
def test_random_256k_costs_at_most_twice_what_is_asked(cluster: LocalCluster, tmp_path: Path, kernel_kib: int):
    asked, sent = cold(cluster, tmp_path / f"big-{kernel_kib}", kernel_kib, scattered(BLOCK))
    assert asked >= 0.9 * READS * BLOCK
    assert sent <= 2 * asked


@pytest.mark.parametrize("kernel_kib", [4096, 128])
def test_sequential_costs_each_byte_once(cluster: LocalCluster, tmp_path: Path, kernel_kib: int):
    reads = [(at, 128 * 1024) for at in range(0, SIZE, 128 * 1024)]
    asked, sent = cold(cluster, tmp_path / f"all-{kernel_kib}", kernel_kib, reads)
    assert asked == sent == SIZE
