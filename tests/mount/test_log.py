"""The log of a mount in the background, by the real command: small, timed, whole after a crash, never in the way."""

import os
import signal

import pytest

from shardfs.cli.log_file import LOG_BYTES_MAX
from tests.mount.kit import runs, sha256, shardfs, until

pytestmark = pytest.mark.fuse


def older(place):
    return place.log.with_name("log.1")


def test_a_long_log_is_put_aside_and_a_crash_is_in_the_new_one(place):
    place.log.write_bytes(b"of yesterday\n" * (LOG_BYTES_MAX // 13 + 1))
    pid = place.mount("--no-cache")["pid"]
    assert older(place).read_bytes() == (b"of yesterday\n" * (LOG_BYTES_MAX // 13 + 1))[-LOG_BYTES_MAX:]
    assert os.readlink(f"/proc/{pid}/fd/1") == os.readlink(f"/proc/{pid}/fd/2") == str(place.log)
    os.kill(pid, signal.SIGSEGV)
    until(lambda: not runs(pid), what="its end")
    log = place.log.read_text()
    assert f"INFO {place.path}: mounting (shardfs " in log
    assert "Fatal Python error: Segmentation fault" in log
    assert "of yesterday" not in log


def test_logs_of_two_mounts_at_one_place_follow_each_other(place):
    pids = []
    for _ in range(2):
        pids.append(place.mount("--no-cache")["pid"])
        assert place.umount().returncode == 0
        place.gone(pids[-1])
    lines = place.log.read_text().splitlines()
    starts = [line for line in lines if ": mounting (" in line]
    assert [f"process {pid})" in line for pid, line in zip(pids, starts, strict=True)] == [True, True]
    assert sum(line.endswith(f" INFO {place.path}: unmounted") for line in lines) == 2
    assert not older(place).exists()


def test_a_log_that_was_removed_comes_back(place, model):
    pid = place.mount("--no-cache")["pid"]
    place.log.unlink()
    assert sha256(place.path / "m" / "weights") == sha256(model / "weights")
    assert place.umount().returncode == 0
    place.gone(pid)
    assert place.log.read_text().endswith("from the disk cache\n")


def test_a_log_on_a_full_disk_does_not_hurt(place, model):
    place.log.symlink_to("/dev/full")
    pid = place.mount("--no-cache")["pid"]
    assert sha256(place.path / "m" / "weights") == sha256(model / "weights")
    assert place.umount().returncode == 0
    place.gone(pid)


def test_everything_is_logged_when_asked_for(place):
    done = shardfs(
        "--debug", "mount", place.path, "--cluster", place.cluster_file, "--log-file", place.log, "--no-cache"
    )
    assert done.returncode == 0, done.stderr
    place.pids.append(int(os.getxattr(place.path, "user.shardfs.pid")))
    assert " INFO shardfs.cli.mount: " in place.log.read_text()  # with its origin
    place.umount()
    place.gone(place.pids[-1])


def test_the_default_place_is_told_and_relative_ones_are_made_absolute(place):
    state = {"XDG_STATE_HOME": str(place.folder / "state")}
    for options in ([], ["--log-file", "state/named.log"]):
        arguments = ["mount", place.path, "--cluster", place.cluster_file, "--no-cache", *options]
        done = shardfs(*arguments, env=state, before=("env", "-C", str(place.folder)))
        assert done.returncode == 0, done.stderr
        place.pids.append(int(os.getxattr(place.path, "user.shardfs.pid")))
        assert place.umount().returncode == 0
        place.gone(place.pids[-1])
    logs = {
        file.relative_to(place.folder / "state").as_posix(): file for file in (place.folder / "state").rglob("*.log")
    }
    default = next(name for name in logs if name != "named.log")
    assert default.startswith("shardfs/mount-models-")
    assert len(logs) == 2
    assert all(file.read_text().endswith("from the disk cache\n") for file in logs.values())
