"""Nodes that hang with readers under way: killed readers, too many of them, and mounts cut off from outside."""

import errno
import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Self

import pytest

from tests.mount.kit import Place, connection_of, output_of, runs, until
from tests.mount.opener import waiting

pytestmark = [pytest.mark.fuse, pytest.mark.skipif(os.geteuid() != 0, reason="left out: takes root")]


@contextmanager
def hung(cluster) -> Iterator[None]:
    """All nodes stopped: reads of what is not cached wait. Afterwards they go on."""
    try:
        for node in cluster.node_ids:
            cluster.pause(node)
        yield
    finally:
        for node in cluster.node_ids:
            cluster.resume(node)


# --------------------------------------------------------------------------------------- readers that go away

READ = """
import os, sys
fd = os.open(sys.argv[1], os.O_RDONLY)
print("open", flush=True)
try:
    print(len(os.pread(fd, 4096, 5 << 20)), flush=True)
except OSError as error:
    print(os.strerror(error.errno), flush=True)
"""


def reader(path: Path) -> subprocess.Popen[str]:
    """A process that has opened the file and now reads one page of it, by the time this returns or a moment later."""
    process = subprocess.Popen(
        [sys.executable, "-c", READ, path], stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True
    )
    assert process.stdout is not None
    assert process.stdout.readline() == "open\n"
    return process


@pytest.mark.parametrize("number", [signal.SIGKILL, signal.SIGINT, signal.SIGTERM])
def test_a_reader_that_is_told_to_end_in_the_middle_of_a_read(place, cluster, model, number):
    """The kernel may ask to interrupt the read, which is declined; the mount is as well as before and keeps nothing."""
    place.mount("--no-cache", "--read-timeout", "30")
    path = place.path / "m" / "weights"
    os.listdir(path.parent)
    before = descriptors(place)
    with hung(cluster):
        readers = [reader(path) for _ in range(3)]
        until(lambda: waiting(place) > 0, what="the reads")
        for process in readers:
            process.send_signal(number)
        assert os.stat(place.path / "m" / "one").st_size == 1
    for process in readers:
        output_of(process)
        assert process.returncode != 0
    assert path.read_bytes() == (model / "weights").read_bytes()
    until(lambda: waiting(place) == 0, what="the end of all questions")
    until(lambda: descriptors(place) == before, what="as many descriptors as before")
    assert "Traceback" not in place.log.read_text()


def descriptors(place: Place) -> int:
    """How many of the daemon's descriptors are neither connections to nodes nor files of the cache."""
    links = []
    for link in Path(f"/proc/{place.pids[-1]}/fd").iterdir():
        try:
            links.append(os.readlink(link))
        except OSError:
            continue
    return sum(not link.startswith(("socket:", str(place.cache))) for link in links)


# ------------------------------------------------------------------------------------------------- nodes that hang


READ_MANY = """
import mmap, os, sys, threading
path, many = sys.argv[1], int(sys.argv[2])
with open(path, "rb") as file:
    pages = mmap.mmap(file.fileno(), 0, prot=mmap.PROT_READ)
pages.madvise(mmap.MADV_RANDOM)
pipes = [os.pipe() for _ in range(many)]
found = []
def read(number):
    try:
        found.append(os.write(pipes[number][1], memoryview(pages)[number * 4096 : number * 4096 + 1]))
    except OSError as error:
        found.append(-error.errno)
threading.stack_size(65536)
print("open", flush=True)
sys.stdin.readline()
threads = [threading.Thread(target=read, args=(number,)) for number in range(many)]
for thread in threads: thread.start()
for thread in threads: thread.join()
print(*found)
"""


class Readers:
    """`many` threads of another process, each to read one page of a map when `go` says so.

    Of what is read in any other way the kernel asks for no more than `max_background` at a time.
    """

    def __init__(self, path: Path, many: int) -> None:
        command = [sys.executable, "-c", READ_MANY, path, str(many)]
        self._process = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
        assert self._process.stdout is not None
        assert self._process.stdout.readline() == "open\n"

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        with self._process:
            self._process.kill()

    def go(self) -> None:
        assert self._process.stdin is not None
        self._process.stdin.write("\n")
        self._process.stdin.flush()

    def found(self) -> list[int]:
        """For each thread 1, or the negative errno: EFAULT where touching the map would be SIGBUS."""
        return [int(word) for word in self._process.communicate(timeout=90)[0].split()]


MANY = 300
"""More than are answered at once."""


def test_more_waiting_reads_than_are_answered_at_once(place, cluster):
    """Whoever asks for names and attributes meanwhile is answered; when the nodes are back, so are all reads."""
    place.mount("--no-cache", "--read-timeout", "60")
    with Readers(place.path / "m" / "weights", MANY) as readers:
        with hung(cluster):
            readers.go()
            until(lambda: waiting(place) == MANY, what="the reads")
            assert os.statvfs(place.path).f_namemax == 255
            assert os.getxattr(place.path / "m" / "deep", "user.shardfs.model") == b"m"
            (place.path / "m" / "empty").open("rb").close()
            assert waiting(place) >= MANY, "answered when reads had ended, not before"
        assert readers.found() == [1] * MANY


def test_all_of_them_fail_when_no_node_comes_back(place, cluster, model):
    place.mount("--no-cache", "--read-timeout", "2")
    path = place.path / "m" / "weights"
    with Readers(path, MANY) as readers, hung(cluster):
        readers.go()
        assert readers.found() == [-errno.EFAULT] * MANY
    until(lambda: reads(path) == (model / "weights").read_bytes(), what="the nodes")


def reads(path: Path) -> bytes | None:
    try:
        return path.read_bytes()
    except OSError:
        return None


# ------------------------------------------------------------------------------------------------ cut off from outside


def abort(place: Place) -> None:
    (connection_of(place.path) / "abort").write_text("1")


def lazily(place: Place) -> None:
    subprocess.run(["umount", "-l", place.path], check=True)


def forced(place: Place) -> None:
    subprocess.run(["umount", "-f", "-l", place.path], check=True)


def ended(place: Place) -> None:
    assert place.umount().returncode == 0


@pytest.mark.parametrize("end", [abort, lazily, forced, ended])
@pytest.mark.parametrize("waits", [False, True], ids=["idle", "waiting"])
def test_ended_from_outside_with_readers_under_way(place, cluster, end, waits):
    """Readers get an answer, the daemon ends with status 0, and nothing is left of it."""
    arguments = [sys.executable, "-m", "shardfs", "mount", place.path, "--foreground", "--no-cache"]
    daemon = subprocess.Popen(
        # Whoever was cut off waits for nothing more, so neither does the daemon.
        [*arguments, "--cluster", place.cluster_file, "--read-timeout", "3600" if end in (abort, forced) else "8"],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )
    place.pids.append(daemon.pid)
    assert daemon.stdout is not None
    assert daemon.stdout.readline().startswith("mounted at ")
    path = place.path / "m" / "weights"
    os.listdir(place.path / "m")
    connection = connection_of(place.path)
    with hung(cluster):
        process = reader(path) if waits else None
        if process is not None:
            until(lambda: waiting(place) > 0, what="the read")
        end(place)
        if process is not None:
            output_of(process)
        _, errors = daemon.communicate(timeout=60)
    assert daemon.returncode == 0, errors
    assert "Traceback" not in errors
    assert "never awaited" not in errors
    assert not runs(daemon.pid)
    assert not place.mounted()
    assert list(place.path.iterdir()) == []
    until(lambda: not connection.exists(), what="the end of the connection")


def test_busy_for_fusermount(place, cluster, model):
    """`fusermount3 -u` is refused while a read waits; the read is none the worse for it."""
    pid = place.mount("--no-cache", "--read-timeout", "30")["pid"]
    os.listdir(place.path / "m")
    with hung(cluster):
        process = reader(place.path / "m" / "weights")
        until(lambda: waiting(place) > 0, what="the read")
        done = subprocess.run(["fusermount3", "-u", place.path], capture_output=True, text=True, check=False)
        assert (done.returncode, "busy" in done.stderr) == (1, True)
    assert output_of(process) == "4096\n"
    until(lambda: subprocess.run(["fusermount3", "-u", place.path], check=False).returncode == 0, what="not busy")
    place.gone(pid)
