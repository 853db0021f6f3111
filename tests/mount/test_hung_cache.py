"""A cache disk that hangs below a real mount: strace holds the daemon's reads of it up for as long as it lives."""

import os
import re
import shutil
import subprocess
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from shardfs.fetch import EngineOptions
from tests.mount.kit import MiB, Place, forget_pages, until

pytestmark = [
    pytest.mark.fuse,
    pytest.mark.skipif(os.geteuid() != 0, reason="left out: takes root"),
    pytest.mark.skipif(shutil.which("strace") is None, reason="left out: needs strace"),
]


@contextmanager
def hung(place: Place) -> Iterator[Callable[[], int]]:
    """No read of a data file in the cache returns before the end. Given is how many have begun."""
    pid, log = str(place.pids[-1]), place.folder / "strace"
    calls = "preadv,preadv2"
    command = ["strace", "-f", "-p", pid, "-o", log, "-e", f"trace={calls}", "-e", f"inject={calls}:delay_enter=600s"]
    for path in place.cache.rglob("*.data"):
        command += ["-P", path]
    with subprocess.Popen(command, stderr=subprocess.DEVNULL) as process:
        try:
            until(lambda: _traced(place.pids[-1]), what="strace")
            yield lambda: len(re.findall(r"preadv2?\(", log.read_text()))
        finally:
            process.kill()  # it would end by itself only after the time for which it holds calls up


def _traced(pid: int) -> bool:
    """All threads of a process are traced, so that those begun later will be."""
    status = [(task / "status").read_text() for task in Path(f"/proc/{pid}/task").iterdir()]
    return not any("TracerPid:\t0\n" in text for text in status)


def cached_bytes(path: Path) -> int:
    return int(os.getxattr(path, "user.shardfs.cached"))


def cached(place: Place, name: str, content: bytes) -> Path:
    """All of it is in the cache of a mount that has just begun, and nowhere else."""
    path = place.path / name
    place.mount("--cache-size", "1GiB")
    assert path.read_bytes() == content
    until(lambda: cached_bytes(path) == len(content), what="all of it in the cache")
    assert place.umount().returncode == 0
    place.mount("--cache-size", "1GiB")
    assert cached_bytes(path) >= len(content)
    return path


def test_reads_of_a_cached_file_come_from_the_nodes(place, cluster, publish):
    """More at once than there are threads for the disk. When it answers, it serves again, without any node."""
    content = os.urandom(40 * MiB)
    publish("big.bin", content)
    path = cached(place, "big.bin", content)
    with hung(place) as begun:
        assert path.read_bytes() == content
        until(lambda: begun() > 0, what="what strace says")
        assert begun() <= EngineOptions().disk_threads
        assert cached_bytes(path) == 0
    until(lambda: cached_bytes(path) == len(content), what="the disk")
    forget_pages(path)
    try:
        for node in cluster.node_ids:
            cluster.stop(node)
        assert path.read_bytes() == content
    finally:
        for node in cluster.node_ids:
            cluster.start(node)
    log = place.log.read_text()
    assert log.count("the disk does not answer; going on without it") == 1
    assert "Traceback" not in log
