"""Whole cached files are read by the kernel itself: with the daemon stopped, every way of reading gives the file."""

import errno
import hashlib
import os
import random
import subprocess
import sys
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import NamedTuple

import pytest

from shardfs.cache.descriptors import DESCRIPTORS_MAX
from tests.mount.kit import NOBODY, MiB, Place, as_nobody, assert_refused, private_dev, sha256, until
from tests.mount.opener import Opener, cached, fill, handed_over, kernel_reads, stopped, waiting

KERNEL = tuple(int(part) for part in os.uname().release.split("-")[0].split(".")[:2])
CAN = KERNEL >= (6, 9) and os.geteuid() == 0
pytestmark = [
    pytest.mark.skipif(not CAN, reason="left out: takes root and Linux 6.9"),
    *([pytest.mark.fuse] if CAN else []),
]
SIZES = {
    "weights": 9 * MiB + 12345,
    "chunk": 4 * MiB,
    "block+1": 256 * 1024 + 1,
    "page": 4096,
    "page-1": 4095,
    "one": 1,
}


class Mounted(NamedTuple):
    place: Place
    pid: int
    folder: Path


def digest(content: bytes) -> str:
    return hashlib.sha256(content).hexdigest()


@pytest.fixture(scope="module")
def files(cluster, tmp_path_factory) -> Iterator[dict[str, bytes]]:
    """The model `whole`: files by name."""
    folder = tmp_path_factory.mktemp("whole")
    content = {name: random.Random(name).randbytes(size) for name, size in SIZES.items()}
    for name, data in content.items():
        (folder / name).write_bytes(data)
    cluster.put(folder, "whole")
    yield content
    cluster.run("rm", "whole")


@pytest.fixture
def passing(place, files) -> Mounted:
    report = place.mount("--passthrough", "--cache-size", "1GiB")
    assert report["passthrough"] is True
    return Mounted(place, report["pid"], place.path / "whole")


@pytest.mark.parametrize("name", SIZES)
def test_what_was_read_is_read_by_the_kernel_from_then_on(passing, files, name):
    path = passing.folder / name
    with Opener(path) as first:
        assert first("read") == digest(files[name])
        assert not kernel_reads(passing.place, passing.pid, first)
    assert fill(path) == files[name]
    with handed_over(passing.place, passing.pid, path) as opener, stopped(passing.pid):
        assert opener("read") == digest(files[name])


def test_every_way_to_read(passing, files):
    path, expected = passing.folder / "weights", digest(files["weights"])
    fill(path)
    with handed_over(passing.place, passing.pid, path) as opener, stopped(passing.pid):
        assert opener("read") == expected
        assert opener("ranks") == expected
        assert opener("sendfile") == expected
        for name in ("shared", "private"):
            assert opener("map", name) is None
            assert opener("mapped", name) == expected
        assert opener("scribble") == files["weights"][:4].hex()
        assert opener("mapped", "shared") == expected
        for offset, size in [(0, 1), (4095, 2), (len(files["weights"]) - 3, 10), (len(files["weights"]) + 5, 10)]:
            assert opener("at", offset, size) == files["weights"][offset : offset + size].hex()


def test_all_who_have_it_open_at_once(passing, files):
    """Who comes later shares it with the first, also when the first has gone."""
    path, expected = passing.folder / "weights", digest(files["weights"])
    fill(path)
    with ExitStack() as stack:
        first = stack.enter_context(handed_over(passing.place, passing.pid, path))
        second, third = (stack.enter_context(Opener(path)) for _ in range(2))
        assert kernel_reads(passing.place, passing.pid, second)
        first.end()
        with stopped(passing.pid):
            assert [second("read"), third("read")] == [expected, expected]
        second.end()
        with Opener(path) as fourth:
            assert kernel_reads(passing.place, passing.pid, fourth)
            third.end()
            with stopped(passing.pid):
                assert fourth("read") == expected
    with handed_over(passing.place, passing.pid, path) as again, stopped(passing.pid):
        assert again("read") == expected


def test_while_the_daemon_serves_one_it_serves_all(passing, files):
    """The kernel refuses to have a file open both ways; so nobody gets it until all have closed it."""
    path, expected = passing.folder / "weights", digest(files["weights"])
    with Opener(path) as first:  # nothing is cached yet
        fill(path)
        with Opener(path) as second:
            for opener in (first, second):
                assert not kernel_reads(passing.place, passing.pid, opener)
                assert opener("read") == expected
            assert first("map", "shared") is None
            assert first("close") is None  # the map is as good as an open file, to the kernel and so to the daemon
        with Opener(path) as third:
            assert not kernel_reads(passing.place, passing.pid, third)
            assert first("mapped", "shared") == third("read") == expected
    with handed_over(passing.place, passing.pid, path) as opener, stopped(passing.pid):
        assert opener("read") == expected


def test_what_is_handed_over_costs_the_daemon_no_descriptors(passing, cluster, tmp_path):
    """Else it could not connect to its nodes any more once a program holds enough files."""
    many, folder = 120, passing.place.path / "many"
    content = {f"{number:03d}": random.Random(number).randbytes(5000) for number in range(many)}
    for name, data in content.items():
        (tmp_path / name).write_bytes(data)
    cluster.put(tmp_path, "many")
    for name, data in content.items():
        assert fill(folder / name) == data
    before = descriptors(passing.pid)
    with all_handed_over(passing, [folder / name for name in content]):
        assert descriptors(passing.pid) < before + DESCRIPTORS_MAX
    cluster.run("rm", "many")


def descriptors(pid: int) -> int:
    return len(os.listdir(f"/proc/{pid}/fd"))


@contextmanager
def all_handed_over(passing: Mounted, paths: list[Path]) -> Iterator[None]:
    """All are open, and read by the kernel. More than one try, as for one file."""
    for _ in range(100):
        with ExitStack() as stack:
            files = [stack.enter_context(path.open("rb", buffering=0)) for path in paths]
            if kernel_reads_all(passing, [file.fileno() for file in files]):
                yield
                return
    raise AssertionError("some are served all the time")


def kernel_reads_all(passing: Mounted, fds: list[int]) -> bool:
    for fd in fds:
        os.posix_fadvise(fd, 0, 0, os.POSIX_FADV_DONTNEED)
    with ThreadPoolExecutor(len(fds)) as pool, stopped(passing.pid):
        pages = [pool.submit(os.pread, fd, 1, 0) for fd in fds]
        until(lambda: waiting(passing.place) or all(page.done() for page in pages), what="an answer")
        return not waiting(passing.place)


def test_opening_for_writing_is_refused_all_the_same(passing, files):
    path = passing.folder / "weights"
    fill(path)
    with handed_over(passing.place, passing.pid, path):
        for flags in (os.O_WRONLY, os.O_RDWR, os.O_WRONLY | os.O_APPEND, os.O_RDONLY | os.O_TRUNC):
            with pytest.raises(OSError, match=f"Errno {errno.EROFS}"):
                os.open(path, flags)
    assert path.read_bytes() == files["weights"]


def test_what_cannot_be_whole_is_served(passing, model):
    """Holes are never stored; an empty file has nothing to be stored."""
    path = passing.place.path / "m" / "holes"
    for _ in range(2):
        with Opener(path) as opener:
            assert opener("read") == sha256(model / "holes")
            assert not kernel_reads(passing.place, passing.pid, opener)
    assert cached(path) < path.stat().st_size
    empty = passing.place.path / "m" / "empty"
    for _ in range(2):
        with Opener(empty) as opener:
            assert opener("read") == digest(b"")
            assert opener("at", 0, 10) == ""


def test_two_names_of_one_content_are_handed_over_at_once(passing, model):
    """`m/weights` and `team/single.bin` are two inodes and one cache file."""
    expected = sha256(model / "weights")
    paths = [passing.place.path / "m" / "weights", passing.place.path / "team" / "single.bin"]
    fill(paths[0])
    with ExitStack() as stack:
        openers = [stack.enter_context(handed_over(passing.place, passing.pid, path)) for path in paths]
        with stopped(passing.pid):
            assert [opener("read") for opener in openers] == [expected] * 2
        openers[0].end()
        with stopped(passing.pid):
            assert openers[1]("read") == expected


def test_without_the_option_nothing_is_handed_over(place, files):
    report = place.mount()
    assert report["passthrough"] is False
    path = place.path / "whole" / "weights"
    assert fill(path) == files["weights"]
    with Opener(path) as opener:
        assert not kernel_reads(place, report["pid"], opener)


def test_nothing_to_hand_over_without_a_cache(place):
    assert_refused(place.try_mount("--passthrough", "--no-cache"), 2, "--passthrough", "--no-cache")
    assert not place.mounted()


AS_USER = """
import sys
from pathlib import Path
from tests.mount.kit import sha256, shardfs

place, cluster, log = Path(sys.argv[1]), sys.argv[2], sys.argv[3]
done = shardfs("mount", place, "--cluster", cluster, "--passthrough", "--log-file", log, "--json")
assert done.returncode == 0, done.stderr
assert '"passthrough": false' in done.stdout, done.stdout
for _ in range(2):
    print(sha256(place / "m" / "weights"))
assert shardfs("umount", place).returncode == 0
"""


def test_without_root_it_is_said_once_and_files_are_served(place, model):
    for folder in (place.folder, place.path):
        os.chown(folder, NOBODY, NOBODY)
    done = subprocess.run(
        [*private_dev("666"), *as_nobody(), sys.executable, "-c", AS_USER, place.path, place.cluster_file, place.log],
        env={**os.environ, "HOME": str(place.folder), "PYTHONPATH": str(Path(__file__).parents[2])},
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    assert done.stdout.split() == [sha256(model / "weights")] * 2
    warnings = [line for line in place.log.read_text().splitlines() if "passthrough" in line]
    assert len(warnings) == 1
    assert "only root" in warnings[0]
