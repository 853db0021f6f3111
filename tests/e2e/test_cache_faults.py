"""The local side: a cache that serves alone, fills its disk or is damaged; a daemon killed or short of descriptors."""

import errno
import hashlib
import os
import re
import resource
import signal
import subprocess
from contextlib import ExitStack

import pytest

from shardfs.cache.disk import GRANULE_BYTES
from shardfs.fetch.writeback import WRITERS
from tests.e2e.conftest import BIG_BYTES
from tests.e2e.rig import Reader, flip, read
from tests.mount.kit import MiB, forget_pages, runs, scratch, until
from tests.mount.opener import cached

pytestmark = pytest.mark.fuse
ROOT_ONLY = pytest.mark.skipif(os.geteuid() != 0, reason="left out: takes root")


def wait_until_cached(path, size: int) -> None:
    until(lambda: cached(path) == size, what=f"{path.name} in the cache")


def from_disk(log: str) -> float:
    """How much the last daemon said to have read from its disk cache; only whether it is nothing matters."""
    return float(re.findall(r"and ([0-9.]+) \S+ from the disk cache", log)[-1])


def test_a_full_cache_serves_without_any_node(cluster, big, place):
    """Everything is on the disk here: with all nodes stopped and the page cache dropped, the file is read whole."""
    place.mount("--cache-size", "1GiB")
    path = place.path / "big.bin"
    assert read(path).sha256 == big
    wait_until_cached(path, BIG_BYTES)
    for node in cluster.node_ids:
        cluster.stop(node)
    for way in ("read", "mmap", "direct"):
        forget_pages(path)
        result = read(path, way)
        assert (result.error, result.size, result.sha256) == (None, BIG_BYTES, big), way


def test_small_files_reach_the_cache_too(cluster, place, tmp_path):
    """Read in one go and closed at once, as loaders read configurations: the daemon still writes them down."""
    for number in range(20):
        (tmp_path / f"{number}.json").write_bytes(b"%d" % number * 100)
    cluster.put(tmp_path, "small")
    try:
        place.mount()
        for number in range(20):
            assert (place.path / "small" / f"{number}.json").read_bytes() == b"%d" % number * 100
        for path in (place.path / "small").iterdir():
            wait_until_cached(path, path.stat().st_size)
        for node in cluster.node_ids:
            cluster.kill(node)
        for number in range(20):
            path = place.path / "small" / f"{number}.json"
            forget_pages(path)
            assert path.read_bytes() == b"%d" % number * 100
    finally:
        for node in cluster.node_ids:
            if not cluster.running(node):
                cluster.start(node)
        cluster.run("rm", "small")


@pytest.mark.parametrize("way", ["read", "mmap"])
def test_the_daemon_is_killed_in_the_middle_of_a_read(cluster, big, place, way):
    """The reader gets an error; mounted again with the same cache, all bytes are right and the cache was of use."""
    pid = place.mount("--cache-size", "1GiB")["pid"]
    with Reader(place.path / "big.bin", "read", 32 * MiB) as reader:
        reader.paused_at()
        reader.go_on()
        reader.paused_at()
        until(lambda: cached(place.path / "big.bin") > 0, what="something in the cache")
        os.kill(pid, signal.SIGKILL)
        until(lambda: not runs(pid), what="its end")
        result = reader.result()
        assert result.error in {"ENOTCONN", "ECONNABORTED", "EIO"}
        assert result.size < BIG_BYTES
    place.mount("--cache-size", "1GiB")
    result = read(place.path / "big.bin", way)
    assert (result.error, result.size, result.sha256) == (None, BIG_BYTES, big)
    assert place.umount().returncode == 0
    assert from_disk(place.log.read_text()) > 0


@ROOT_ONLY
def test_the_disk_of_the_cache_is_full(cluster, big, place):
    """Far more than fits: reads go on, once a warning; then the space is there and the cache is used again."""
    place.cache.mkdir()
    subprocess.run(["mount", "-t", "tmpfs", "-o", "size=64m,mode=700", "none", place.cache], check=True)
    try:
        place.mount("--cache-size", "1GiB")
        assert place.cache.stat().st_dev != place.folder.stat().st_dev
        assert read(place.path / "big.bin").sha256 == big
        until(lambda: "the disk is full" in place.log.read_text(), what="a full disk")  # written behind the reader
        # It was full, and what fits is used. Each of the two writers may just have been refused: then what it had
        # written is free again, and as much that it evicted for the next one, 4 MiB each.
        until(lambda: free_bytes(place.cache) <= 2 * WRITERS * GRANULE_BYTES, what="a cache that is used")
        assert place.umount().returncode == 0
        log = place.log.read_text()
        assert log.count("the disk is full") == 1
        assert "Traceback" not in log
    finally:
        place.clean()
        subprocess.run(["umount", "-l", place.cache], check=True)


def free_bytes(folder) -> int:
    space = os.statvfs(folder)
    return space.f_bavail * space.f_frsize


def flip_everywhere(files) -> None:
    for path in files:
        for offset in range(1000, path.stat().st_size, 300_000):
            flip(path, offset)


def cut(files) -> None:
    for path in files:
        os.truncate(path, path.stat().st_size // 2)


def empty(files) -> None:
    for path in files:
        os.truncate(path, 0)


def exchange(files) -> None:
    """The two files trade names."""
    data, other = files
    spare = data.with_suffix(".spare")
    data.rename(spare)
    other.rename(data)
    spare.rename(other)


def zeros(files) -> None:
    for path in files:
        size = path.stat().st_size
        os.truncate(path, 0)
        os.truncate(path, size)


@pytest.fixture(scope="module")
def two_models(e2e_cluster):
    contents = {name: os.urandom(size) for name, size in (("one.bin", 9 * MiB), ("two.bin", 5 * MiB))}
    with scratch() as folder:
        for name, content in contents.items():
            (folder / name).write_bytes(content)
            e2e_cluster.put(folder / name, name)
    yield contents
    for name in contents:
        e2e_cluster.run("rm", name)


@pytest.mark.parametrize("harm", [flip_everywhere, cut, empty, exchange, zeros])
def test_the_cache_was_damaged_between_two_mounts(cluster, two_models, place, harm):
    """The data of one file and the map of the other, or both data files: right bytes, and a mount that starts."""
    contents = two_models
    place.mount("--cache-size", "1GiB")
    for name, content in contents.items():
        assert (place.path / name).read_bytes() == content
        wait_until_cached(place.path / name, len(content))
    assert place.umount().returncode == 0
    data, maps = sorted(place.cache.rglob("*.data")), sorted(place.cache.rglob("*.map"))
    assert (len(data), len(maps)) == (2, 2)
    harm(data if harm is exchange else [data[0], maps[1]])
    place.mount("--cache-size", "1GiB")
    for name, content in contents.items():
        assert (place.path / name).read_bytes() == content
    assert "Traceback" not in place.log.read_text()


def test_the_daemon_is_short_of_descriptors(cluster, big, publish, place, logged):
    """24 are allowed, of which most are in use: reads are right all the same, with many files open and many nodes asked
    at once."""
    content = publish("small.bin", 3 * MiB)
    pid = place.mount("--cache-size", "1GiB")["pid"]
    resource.prlimit(pid, resource.RLIMIT_NOFILE, (24, 24))
    with ExitStack() as stack:
        readers = [stack.enter_context(Reader(place.path / "big.bin", way)) for way in ("read", "mmap", "direct")]
        files = [stack.enter_context((place.path / "small.bin").open("rb")) for _ in range(200)]
        assert all(file.read() == content for file in files)
        for reader in readers:
            result = reader.result()
            assert (result.error, result.sha256) == (None, big)
    assert logged(os.strerror(errno.EMFILE)), "there were enough"
    assert place.umount().returncode == 0
    assert "Traceback" not in place.log.read_text()


def test_a_cache_that_is_far_too_small(cluster, big, place):
    """The limit holds at every look, and eviction under the reader changes no byte."""
    place.mount("--cache-size", "16MiB", "--memory", "32MiB")
    with Reader(place.path / "big.bin", "read", 16 * MiB) as reader:
        for _ in range(BIG_BYTES // (16 * MiB)):
            reader.paused_at()
            used = sum(path.stat().st_blocks * 512 for path in place.cache.rglob("*.data"))
            assert used <= 16 * MiB
            reader.go_on()
        assert reader.result().sha256 == big


def test_two_readers_of_different_files_with_hardly_any_memory(cluster, big, publish, place):
    """Memory for a few chunks only: everybody waits for a slot now and then, nobody starves."""
    content = publish("other.bin", 40 * MiB)
    place.mount("--no-cache", "--memory", "20MiB")
    with (
        Reader(place.path / "big.bin") as first,
        Reader(place.path / "big.bin", "mmap") as second,
        Reader(place.path / "other.bin") as third,
    ):
        assert first.result().sha256 == second.result().sha256 == big
        assert third.result().sha256 == hashlib.sha256(content).hexdigest()


def test_an_unreadable_cache_folder_is_no_reason_to_fail_reads(cluster, publish, place):
    """Somebody deletes the cache under the daemon: reads go on."""
    content = publish("m.bin", 9 * MiB)
    place.mount("--cache-size", "1GiB")
    path = place.path / "m.bin"
    assert path.read_bytes() == content
    wait_until_cached(path, len(content))
    subprocess.run(["rm", "-rf", place.cache], check=True)
    forget_pages(path)
    assert path.read_bytes() == content
    with pytest.raises(OSError, match=f"Errno {errno.ENOENT}"):
        (place.path / "nothing").stat()
