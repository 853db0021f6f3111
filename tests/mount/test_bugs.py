"""A bug in one call is EIO for that call, and the mount lives. What the kernel has cached is not asked for again."""

import ctypes
import errno
import mmap
import os
import random
import subprocess
import sys
from pathlib import Path

import pytest

from tests.mount.kit import MiB, Place, forget_pages, scratch

pytestmark = [
    pytest.mark.fuse,
    pytest.mark.skipif(os.geteuid() != 0, reason="left out: dropping the kernel's caches takes root"),
]
CONTENT = random.Random(3).randbytes(5 * MiB)
LATE = ("hang", "never")
"""Each of their answers takes the whole deadline."""
BUGS = ["lookup", "group", "hang", "getattr", "open", "read", "later", "never", "release", "xattrs"]


@pytest.fixture(scope="module")
def faulty(cluster, tmp_path_factory):
    """The faulty mount of faulty.py over a model that asks for its faults: the folder and the process."""
    with scratch() as top:
        folder = top / "bugs"
        (folder / "bug-opendir").mkdir(parents=True)
        (folder / "bug-opendir" / "inside").write_bytes(b"fine")
        for bug in BUGS:
            (folder / f"bug-{bug}").write_bytes(b"fine")
        (folder / "good").write_bytes(CONTENT)
        cluster.put(folder, "bugs")
        place = Place(top, cluster.cluster_file)
        with place.log.open("wb") as log:
            process = subprocess.Popen(
                [sys.executable, Path(__file__).with_name("faulty.py"), place.cluster_file, place.path],
                stdout=subprocess.PIPE,
                stderr=log,
                env={**os.environ, "PYTHONPATH": str(Path(__file__).parents[2])},
                text=True,
            )
        try:
            with process.stdout:
                assert process.stdout.readline() == f"{place.path}\n", place.log.read_text()
                yield place.path / "bugs", process
        finally:
            process.kill()
            process.wait()
            place.clean()
            cluster.run("rm", "bugs")


def ask_attributes(path: Path) -> None:
    """The attributes of a looked-up file are believed for long; only an explicit question gets through."""
    fd = os.open(path, os.O_PATH)
    try:
        force = 0x2000  # AT_STATX_FORCE_SYNC
        buffer = ctypes.create_string_buffer(256)
        libc = ctypes.CDLL(None, use_errno=True)
        if libc.statx(fd, b"", 0x1000 | force, 0x7FF, buffer) != 0:
            raise OSError(ctypes.get_errno(), os.strerror(ctypes.get_errno()))
    finally:
        os.close(fd)


CALLS = {
    "lookup": os.stat,
    "group": os.stat,  # an exception group, as a nursery raises it
    "hang": os.stat,
    "getattr": ask_attributes,
    "open": lambda path: path.open("rb"),
    "read": lambda path: path.read_bytes(),
    "later": lambda path: path.read_bytes(),  # a read that has to wait first
    "never": lambda path: path.read_bytes(),
    "opendir": os.listdir,
    "xattrs": lambda path: os.getxattr(path, "user.shardfs.reads"),
    "statfs": lambda path: os.statvfs(path.parent),
}


@pytest.mark.parametrize("bug", CALLS)
def test_a_bug_is_an_error_for_one_call(faulty, bug):
    folder, process = faulty
    for _ in range(1 if bug in LATE else 3):
        with pytest.raises(OSError, match=f"Errno {errno.EIO}"):
            CALLS[bug](folder / f"bug-{bug}")
    assert (folder / "good").read_bytes() == CONTENT
    assert process.poll() is None


def test_bugs_after_the_fact_are_nobodys_error(faulty):
    """`release` and `forget` have no answer that anybody waits for."""
    folder, process = faulty
    for _ in range(3):
        assert (folder / "bug-release").read_bytes() == b"fine"
    for name in ("nothing", "good@9"):
        assert not (folder / name).exists()
    Path("/proc/sys/vm/drop_caches").write_text("2\n")  # the kernel forgets its inodes
    assert (folder / "good").read_bytes() == CONTENT
    assert process.poll() is None


def test_what_is_hot_is_not_asked_for_again(faulty):
    """Opened again and read again, by this and another process: not one read reaches the daemon."""
    folder, _ = faulty

    def reads() -> int:
        return int(os.getxattr(folder, "user.shardfs.reads"))

    path = folder / "good"
    assert path.read_bytes() == CONTENT
    before = reads()
    assert path.read_bytes() == CONTENT
    with path.open("rb") as file, mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ) as mapped:
        assert mapped[:] == CONTENT
    assert subprocess.run(["cmp", path, "-"], input=CONTENT, check=True)
    assert reads() == before
    forget_pages(path)
    assert path.read_bytes() == CONTENT
    assert reads() >= before + 5  # at most 1 MiB each
