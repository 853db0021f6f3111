"""What cannot be mounted is said in one line on stderr with exit status 1 or 2, and nothing is left behind."""

import os
import subprocess
import sys

import pytest

from tests.mount.kit import NOBODY, as_nobody, assert_refused, private_dev, runs, shardfs

pytestmark = pytest.mark.fuse
ROOT_ONLY = pytest.mark.skipif(os.geteuid() != 0, reason="left out: takes root")


def nothing(place) -> None:
    pass


def a_file(place) -> None:
    place.path.rmdir()
    place.path.write_text("")


def missing(place) -> None:
    place.path.rmdir()


def not_empty(place) -> None:
    (place.path / "precious").write_text("x")


def foreign_cache(place) -> None:
    place.cache.mkdir()
    (place.cache / "thesis.doc").write_text("x")


def cache_is_a_file(place) -> None:
    place.cache.write_text("x")


def no_cluster(place) -> None:
    place.cluster_file = place.folder / "nothing.toml"


def bad_cluster(place) -> None:
    place.cluster_file = place.folder / "bad.toml"
    place.cluster_file.write_text('replicas = 1\nspeed = 9\n[[nodes]]\nid = "a"\nurl = "http://127.0.0.1:1"\n')


def no_node(place) -> None:
    place.cluster_file = place.folder / "dead.toml"
    place.cluster_file.write_text('replicas = 1\n[[nodes]]\nid = "a"\nurl = "http://127.0.0.1:1"\n')


@pytest.mark.parametrize(
    ("prepare", "options", "status", "words"),
    [
        (missing, [], 1, ["models", "no such folder", "mkdir -p"]),
        (a_file, [], 1, ["models", "not a folder"]),
        (not_empty, [], 1, ["models", "not empty"]),
        (foreign_cache, [], 1, ["cache folder"]),
        (cache_is_a_file, [], 1, ["cache folder"]),
        (no_cluster, [], 2, ["nothing.toml", "no such cluster file"]),
        (bad_cluster, [], 2, ["bad.toml:2", "unknown key 'speed'"]),
        (no_node, [], 1, ["no node answered", "a: "]),
        (nothing, ["--memory", "many"], 2, ["not a size", "many"]),
        (nothing, ["--memory", "1KiB"], 2, ["--memory"]),
        (nothing, ["--cache-size", "-1"], 2, ["-1"]),
        (nothing, ["--cache-size", "lots"], 2, ["not a size", "lots"]),
        (nothing, ["--read-timeout", "0"], 2, ["--read-timeout"]),
        (nothing, ["--read-timeout", "nan"], 2, ["--read-timeout"]),
        (nothing, ["--read-timeout", "1e9"], 2, ["--read-timeout"]),
        (nothing, ["--cache", "/proc/nothing", "--no-cache"], 2, ["--cache", "--no-cache"]),
        (nothing, ["--cache", "/proc/nothing"], 1, ["/proc/nothing"]),
    ],
    ids=lambda value: value.__name__ if callable(value) else None,
)
def test_what_cannot_be(place, prepare, options, status, words):
    prepare(place)
    before = {path: path.lstat().st_mode for path in place.folder.iterdir()}
    assert_refused(place.try_mount(*options), status, *words)
    assert not place.mounted()
    assert before.items() <= {path: path.lstat().st_mode for path in place.folder.iterdir()}.items()


@pytest.mark.parametrize("options", [["--speed", "9"], ["--read-timeout", "soon"], ["--memory"]])
def test_wrong_options(place, options):
    """click's own form: usage, hint, one line of error; exit status 2."""
    done = place.try_mount(*options)
    assert (done.returncode, done.stdout) == (2, "")
    assert done.stderr.splitlines()[-1].startswith("Error: ")
    assert "Traceback" not in done.stderr
    assert not place.mounted()


def test_a_log_that_cannot_be_written(place):
    (place.folder / "file").write_text("")
    place.log = place.folder / "file" / "log"
    assert_refused(place.try_mount("--no-cache"), 1, str(place.log), "--log-file")
    assert not place.mounted()


@pytest.mark.parametrize("options", [["--no-cache"], []], ids=["no cache", "the same cache"])
def test_already_mounted(place, options):
    place.mount()
    assert_refused(place.try_mount(*options), 1, "already mounted", "shardfs umount")
    assert os.listdir(place.path / "team") == ["single.bin"]


def test_a_cache_that_another_daemon_owns(place):
    pid = place.mount()["pid"]
    other = place.folder / "other"
    other.mkdir()
    done = place.try_mount("--cache", str(place.cache), path=other)
    assert_refused(done, 1, "cache folder", str(place.cache), str(pid))
    assert os.listdir(other) == []
    assert runs(pid)


@pytest.mark.parametrize("prepare", [nothing, missing, a_file])
def test_umount_of_what_is_not_mounted(place, prepare):
    prepare(place)
    assert_refused(place.umount(), 1, "nothing is mounted there")


def test_umount_of_another_filesystem():
    assert_refused(shardfs("umount", "/proc"), 1, "/proc", "proc filesystem, not shardfs")


@ROOT_ONLY
@pytest.mark.parametrize(
    ("device", "who", "words"),
    [
        ("missing", (), ["/dev/fuse is missing", "modprobe fuse"]),
        ("null", (), ["models"]),
        ("missing", as_nobody(), ["/dev/fuse is missing"]),
        ("600", as_nobody(), ["/dev/fuse", "no permission"]),
    ],
    ids=["missing", "covered", "missing for a user", "closed to a user"],
)
def test_without_a_usable_device(place, device, who, words):
    for folder in (place.folder, place.path):
        os.chown(folder, NOBODY, NOBODY)
    done = shardfs(
        "mount", place.path, "--cluster", place.cluster_file, "--no-cache",
        before=(*private_dev(device), *who), env={"HOME": str(place.folder)},
    )  # fmt: skip
    assert_refused(done, 1, *words)


@ROOT_ONLY
def test_without_fusermount3(place):
    for folder in (place.folder, place.path):
        os.chown(folder, NOBODY, NOBODY)
    code = (
        "import os, sys; os.environ['PATH'] = '/nothing'; sys.argv[0] = 'shardfs'; from shardfs.cli import main; main()"
    )
    arguments = ["mount", place.path, "--cluster", place.cluster_file, "--no-cache"]
    done = subprocess.run(
        [*private_dev("666"), *as_nobody(), sys.executable, "-c", code, *arguments],
        env={**os.environ, "HOME": str(place.folder)},
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    assert_refused(done, 1, "fusermount3 is missing", "apt-get install fuse3")


@ROOT_ONLY
@pytest.mark.parametrize("option", [[], ["--allow-other"]])
def test_a_folder_of_somebody_else(place, option):
    """A user may mount on their own folders only; and let others in only where the administrator allows it."""
    owner = NOBODY if option else 0
    for folder in (place.folder, place.path):
        os.chown(folder, owner, owner)
    (place.folder / "home").mkdir(mode=0o777)
    (place.folder / "home").chmod(0o777)
    done = shardfs(
        "mount", place.path, "--cluster", place.cluster_file, "--no-cache", *option,
        before=(*private_dev("666"), *as_nobody()), env={"HOME": str(place.folder / "home")},
    )  # fmt: skip
    assert_refused(done, 1, str(place.path), *(["user_allow_other", "/etc/fuse.conf"] if option else []))
