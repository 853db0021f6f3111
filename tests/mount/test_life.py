"""From mounting to unmounting: signals, open files, killed daemons, connections cut from outside."""

import errno
import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

import pytest

from shardfs.api.local import LocalCluster
from tests.mount.kit import (
    NOBODY,
    MiB,
    Place,
    as_nobody,
    assert_refused,
    connection_of,
    output_of,
    private_dev,
    runs,
    sha256,
    shardfs,
    until,
)  # fmt: skip

pytestmark = pytest.mark.fuse
ROOT_ONLY = pytest.mark.skipif(os.geteuid() != 0, reason="left out: takes root")

READ = """
import os, sys
fd = os.open(sys.argv[1], os.O_RDONLY)
print("open", flush=True)
try:
    print(len(os.pread(fd, 4096, int(sys.argv[2]))), flush=True)
except OSError as error:
    print(os.strerror(error.errno), flush=True)
"""


def reader(path: Path, offset: int = 5 * MiB) -> subprocess.Popen[str]:
    """A process that has opened the file and now reads one page of it, by the time this returns or a moment later."""
    process = subprocess.Popen([sys.executable, "-c", READ, path, str(offset)], stdout=subprocess.PIPE, text=True)
    assert process.stdout is not None
    assert process.stdout.readline() == "open\n"
    return process


@contextmanager
def hung(cluster: LocalCluster) -> Iterator[None]:
    """All nodes stopped: reads of what is not cached wait. Afterwards they go on."""
    try:
        for node in cluster.node_ids:
            cluster.pause(node)
        yield
    finally:
        for node in cluster.node_ids:
            cluster.resume(node)


def waiting(place: Place) -> bool:
    """Whether a call on the mount waits for its answer."""
    return (connection_of(place.path) / "waiting").read_text().strip() != "0"


# ---------------------------------------------------------------------------------------------------- the usual


def test_it_answers_when_the_command_returns(place, model):
    report = place.mount("--cache-size", "64MiB", "--memory", "128MiB")
    assert sha256(place.path / "m" / "weights") == sha256(model / "weights")
    assert report == {
        "mountpoint": str(place.path),
        "pid": report["pid"],
        "cache": str(place.cache),
        "cache_size": 64 * MiB,
        "memory": 128 * MiB,
        "tuned": os.geteuid() == 0,
        "passthrough": False,
        "log": str(place.log),
    }
    assert os.getxattr(place.path, "user.shardfs.pid") == str(report["pid"]).encode()
    done = place.umount()
    assert (done.returncode, done.stderr) == (0, "")
    assert not runs(report["pid"])
    place.gone(report["pid"])


@ROOT_ONLY
def test_the_usual_cache_size_counts_what_the_cache_holds_as_free(place):
    """On a disk of its own, so that nothing else changes what is free."""
    disk = place.folder / "disk"
    disk.mkdir()
    subprocess.run(["mount", "-t", "tmpfs", "-o", "size=64m", "none", disk], check=True)
    place.cache = disk / "cache"
    try:
        first = place.mount()["cache_size"]
        sha256(place.path / "m" / "weights")
        until(lambda: held(place.cache) >= 8 * MiB, what="the file in the cache")
        place.umount()
        assert 16 * MiB - 64 * 1024 < first <= 16 * MiB
        assert place.mount()["cache_size"] > first - 64 * 1024
        place.umount()
        with suppress(OSError), (disk / "full").open("wb", buffering=0) as file:
            while file.write(bytes(MiB)):
                pass
        assert place.mount()["cache_size"] >= 2 * MiB
    finally:
        place.clean()
        subprocess.run(["umount", "-l", disk], check=True)


def held(cache: Path) -> int:
    """Bytes of the files in the cache, as the disk counts them."""
    return sum(path.stat().st_blocks * 512 for path in (cache / "files").rglob("*.data"))


@ROOT_ONLY
def test_root_gets_large_requests(place):
    place.mount("--no-cache")
    device = os.stat(place.path).st_dev
    window = Path(f"/sys/class/bdi/{os.major(device)}:{os.minor(device)}/read_ahead_kb")
    assert window.read_text().strip() == "4096"
    assert (connection_of(place.path) / "max_background").read_text().strip() == "64"


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_a_signal_unmounts(place, number):
    pid = place.mount("--no-cache")["pid"]
    os.listdir(place.path / "m")
    os.kill(pid, number)
    place.gone(pid)


def test_the_daemon_holds_nothing_of_where_it_was_started(place):
    """Its working folder is the root, and no descriptor of the terminal is left."""
    pid = place.mount("--no-cache")["pid"]
    assert os.readlink(f"/proc/{pid}/cwd") == "/"
    assert os.readlink(f"/proc/{pid}/fd/0") == "/dev/null"
    assert os.readlink(f"/proc/{pid}/fd/1") == os.readlink(f"/proc/{pid}/fd/2") == str(place.log)
    assert os.getsid(pid) == pid


def test_in_the_foreground(place):
    arguments = [sys.executable, "-m", "shardfs", "mount", place.path, "--foreground", "--no-cache"]
    process = subprocess.Popen(
        [*arguments, "--cluster", place.cluster_file], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    )
    place.pids.append(process.pid)
    assert process.stdout is not None
    assert process.stdout.readline().startswith(f"mounted at {place.path} (process {process.pid}, no disk cache)")
    assert sorted(os.listdir(place.path)) == ["m", "team"]
    process.send_signal(signal.SIGINT)
    _, errors = process.communicate(timeout=60)
    assert process.returncode == 0, errors
    assert "Traceback" not in errors
    assert not place.mounted()


def test_odd_places(place, model):
    """A symbolic link, a space, letters that the kernel's tables escape: mounted, seen as mounted, unmounted."""
    odd = place.folder / "my modèls\\ \t"
    odd.mkdir()
    place.path = place.folder / "link"
    place.path.symlink_to(odd)
    report = place.mount("--no-cache")
    place.path = odd
    assert place.mounted()
    assert sha256(odd / "m" / "one") == sha256(model / "one")
    again = place.try_mount("--no-cache", path=place.folder / "link")
    assert_refused(again, 1, "already mounted")
    done = shardfs("umount", place.folder / "link")
    assert done.returncode == 0, done.stderr
    place.gone(report["pid"])


def test_two_mounts_beside_each_other(place, model):
    """One daemon for each mountpoint, each with its own cache; one ends without the other."""
    first = place.mount()["pid"]
    other = place.folder / "other"
    other.mkdir()
    done = place.try_mount("--cache", str(place.folder / "other cache"), path=other)
    assert done.returncode == 0, done.stderr
    assert sha256(other / "m" / "block") == sha256(model / "block")
    assert shardfs("umount", other).returncode == 0
    assert runs(first)
    assert sha256(place.path / "m" / "block") == sha256(model / "block")


# ------------------------------------------------------------------------------------------- with readers inside


@ROOT_ONLY
def test_a_signal_lets_a_read_finish(place, cluster):
    """SIGTERM while a read waits for hung nodes; they come back, the read gets its bytes, then the mount goes."""
    pid = place.mount("--no-cache", "--read-timeout", "30")["pid"]
    os.listdir(place.path / "m")
    with hung(cluster):
        process = reader(place.path / "m" / "weights")
        until(lambda: waiting(place), what="the waiting read")
        os.kill(pid, signal.SIGTERM)
        until(lambda: "finishing what is under way" in place.log.read_text(), what="the drain")
        assert process.poll() is None
        assert runs(pid)
    assert output_of(process) == "4096\n"
    place.gone(pid)


@ROOT_ONLY
def test_a_signal_does_not_wait_for_ever(place, cluster):
    """The nodes stay away: after five seconds of draining the read ends with an error, long before its own time."""
    pid = place.mount("--no-cache", "--read-timeout", "3600")["pid"]
    os.listdir(place.path / "m")
    with hung(cluster):
        process = reader(place.path / "m" / "weights")
        until(lambda: waiting(place), what="the waiting read")
        os.kill(pid, signal.SIGTERM)
        assert output_of(process).strip() in {os.strerror(n) for n in (errno.EIO, errno.ECONNABORTED, errno.ENOTCONN)}
        place.gone(pid)


def test_umount_waits_for_open_files_or_says_busy(place, model):
    """`fusermount3 -u` refuses while a file is open, and works afterwards; the daemon ends by itself."""
    pid = place.mount("--no-cache")["pid"]
    with (place.path / "m" / "weights").open("rb") as file:
        done = subprocess.run(["fusermount3", "-u", place.path], capture_output=True, text=True, check=False)
        assert done.returncode != 0
        assert "busy" in done.stderr
        assert file.read() == (model / "weights").read_bytes()
    subprocess.run(["fusermount3", "-u", place.path], check=True)
    place.gone(pid)


def test_a_lazy_umount_lets_open_files_be_read(place, model):
    pid = place.mount("--no-cache")["pid"]
    with (place.path / "m" / "weights").open("rb") as file:
        subprocess.run(["fusermount3", "-u", "-z", place.path], check=True)
        assert not place.mounted()
        assert list(place.path.iterdir()) == []
        assert file.read() == (model / "weights").read_bytes()
        assert runs(pid)
    place.gone(pid)


def test_shardfs_umount_ends_the_daemon_in_spite_of_open_files(place):
    pid = place.mount("--no-cache")["pid"]
    with (place.path / "m" / "weights").open("rb") as file:
        assert place.umount().returncode == 0
        place.gone(pid)
        with pytest.raises(OSError, match=r"\[Errno"):
            os.pread(file.fileno(), 4096, 5 * MiB)


@ROOT_ONLY
def test_an_aborted_connection_leaves_nothing(place):
    """fusectl cuts the mount off, as an administrator does when a reader hangs."""
    pid = place.mount("--no-cache")["pid"]
    os.listdir(place.path / "m")
    (connection_of(place.path) / "abort").write_text("1")
    place.gone(pid)


# ------------------------------------------------------------------------------------------------ killed daemons


def killed(place) -> int:
    pid = place.mount()["pid"]
    os.listdir(place.path / "m")
    os.kill(pid, signal.SIGKILL)
    until(lambda: not runs(pid), what="its end")
    with pytest.raises(OSError, match=f"Errno ({errno.ENOTCONN}|{errno.ECONNABORTED})"):
        os.statvfs(place.path)  # never from the kernel's caches
    return pid


def test_a_dead_mount_is_replaced(place, model):
    killed(place)
    report = place.mount()  # with the same cache folder, whose lock died with its owner
    assert sha256(place.path / "m" / "weights") == sha256(model / "weights")
    assert "replacing the dead mount" in place.log.read_text()
    assert place.umount().returncode == 0
    place.gone(report["pid"])


def test_a_dead_mount_with_open_files_is_replaced(place, model):
    pid = place.mount()["pid"]
    (place.path / "m" / "one").read_bytes()  # the first `close` asks the daemon, later ones do not
    with (place.path / "m" / "weights").open("rb") as file:
        os.kill(pid, signal.SIGKILL)
        until(lambda: not runs(pid), what="its end")
        place.mount()
        assert sha256(place.path / "m" / "weights") == sha256(model / "weights")
        with pytest.raises(OSError, match=r"\[Errno"):
            os.pread(file.fileno(), 4096, 5 * MiB)


def test_a_dead_mount_is_taken_away(place):
    killed(place)
    done = shardfs("umount", place.path, "--json")
    assert (done.returncode, done.stderr) == (0, "")
    assert '"was": "dead"' in done.stdout
    assert not place.mounted()
    assert list(place.path.iterdir()) == []


def test_a_hung_daemon_is_said_to_hang(place):
    pid = place.mount("--no-cache")["pid"]
    os.kill(pid, signal.SIGSTOP)
    try:
        time.sleep(1.1)  # until the kernel no longer believes the attributes of the root
        assert_refused(place.umount(), 1, "does not answer", "fusermount3 -u -z")
        assert_refused(place.try_mount("--no-cache"), 1, "does not answer", "fusermount3 -u -z")
    finally:
        os.kill(pid, signal.SIGCONT)
    assert place.umount().returncode == 0
    place.gone(pid)


# --------------------------------------------------------------------------------------------------- other users


@ROOT_ONLY
def test_without_root(place, model):
    """Another user mounts through fusermount3, reads, unmounts. Done in namespaces of their own."""
    for folder in (place.folder, place.path):
        os.chown(folder, NOBODY, NOBODY)
    script = Path(__file__).with_name("as_user.py")
    done = subprocess.run(
        [*private_dev("666"), *as_nobody(), sys.executable, script, place.path, place.cluster_file],
        env={**os.environ, "HOME": str(place.folder), "PYTHONPATH": str(Path(__file__).parents[2])},
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    log = place.folder / ".local" / "state" / "shardfs"
    assert done.returncode == 0, done.stderr + "".join(p.read_text() for p in log.glob("*"))
    assert done.stdout == sha256(model / "weights") + "\n"
    assert not place.mounted()
