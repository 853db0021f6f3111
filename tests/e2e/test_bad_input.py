"""What users give wrong: one line on stderr, exit status 1 or 2, no traceback, nothing published."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

from shardfs.cli import main
from tests.mount.kit import NOBODY, as_nobody, assert_refused, scratch

GOOD = """\
replicas = 1
chunk_size = "1MiB"

[[nodes]]
id = "a"
url = "{a}"

[[nodes]]
id = "b"
url = "{b}"
"""


@pytest.fixture
def folder(tmp_path) -> Path:
    """A cluster of two folders and a file to put."""
    (tmp_path / "cluster.toml").write_text(GOOD.format(a=f"file://{tmp_path}/a", b=f"file://{tmp_path}/b"))
    (tmp_path / "source").write_bytes(b"weights")
    for node in "ab":
        (tmp_path / node).mkdir()
    return tmp_path


@pytest.fixture
def here(folder, capsys):
    """Runs a command on the cluster within this process, which takes no time: the same words, status and output."""

    def run(*arguments: str | Path, cluster: str = "cluster.toml") -> subprocess.CompletedProcess[str]:
        with pytest.raises(SystemExit) as ended:
            main([*map(str, arguments), "--cluster", str(folder / cluster)])
        output, errors = capsys.readouterr()
        return subprocess.CompletedProcess(arguments, ended.value.code, output, errors)

    return run


def published(folder: Path) -> list[Path]:
    return [path for path in folder.glob("*/refs/**/*") if path.is_file()]


def test_the_cluster_of_these_tests_is_good(here, folder):
    done = here("put", folder / "source", "m")
    assert done.returncode == 0, done.stderr
    assert published(folder)


@pytest.mark.parametrize(
    ("old", "new", "words"),
    [
        ("replicas = 1", "replicas = 3", ["cluster.toml:1", "replicas", "1 to 2"]),
        ("replicas = 1", "replicas = 0", ["cluster.toml:1", "replicas"]),
        ("replicas = 1", "replicas = -1", ["cluster.toml:1", "replicas"]),
        ("replicas = 1", 'replicas = "two"', ["cluster.toml:1", "replicas"]),
        ("replicas = 1", "replicas = 1\nspeed = 3", ["cluster.toml:2", "unknown key 'speed'"]),
        ("replicas = 1", "replicas =", ["cluster.toml:1"]),
        ("replicas = 1", "\x00", ["cluster.toml:1"]),
        ('id = "a"', 'id = "a"\ncolour = "red"', ["cluster.toml:6", "unknown key 'colour'"]),
        ('id = "a"', 'id = "b"', ["used twice"]),
        ('id = "a"', 'id = "../a"', ["cluster.toml:5", "node id"]),
        ('id = "a"', "", ["missing 'id'"]),
        ('id = "a"', 'id = "a"\nweight = 0', ["cluster.toml:6", "weight"]),
        ('id = "a"', 'id = "a"\nweight = nan', ["cluster.toml:6", "weight"]),
        ('id = "a"', 'id = "a"\nstate = "asleep"', ["cluster.toml:6", "state"]),
        ('url = "file', 'url = "ftp', ["cluster.toml:6", "url"]),
        ('url = "file://', 'url = "http://user:secret@host', ["cluster.toml:6", "password"]),
        ('url = "file:///', 'url = "http://host:99999/', ["cluster.toml:6", "url"]),
        ('url = "file:///', 'url = "file://relative/', ["cluster.toml:6", "file:///"]),
        ('"1MiB"', '"big"', ["cluster.toml:2", "chunk_size"]),
        ('"1MiB"', '"1KiB"', ["cluster.toml:2", "chunk_size"]),
        ('"1MiB"', '"1GiB"', ["cluster.toml:2", "chunk_size"]),
        ("[[nodes]]", "[[node]]", ["cluster.toml", "node"]),
    ],
)
def test_cluster_files(here, folder, old, new, words):
    text = (folder / "cluster.toml").read_text()
    assert old in text
    (folder / "cluster.toml").write_text(text.replace(old, new, 1 if "[[" not in old else 2))
    done = here("put", folder / "source", "m")
    assert_refused(done, 2, *words)
    assert "secret" not in done.stderr
    assert not published(folder)


@pytest.mark.parametrize("content", [b"\xff\xfe", b"x" * 2_000_000, b""], ids=["not UTF-8", "too large", "empty"])
def test_cluster_files_that_are_none(here, folder, content):
    (folder / "cluster.toml").write_bytes(content)
    assert_refused(here("put", folder / "source", "m"), 2, "cluster.toml")


def test_a_cluster_file_that_cannot_be_had(here, folder):
    assert_refused(
        here("put", folder / "source", "m", cluster="nothing.toml"), 2, "nothing.toml", "no such cluster file"
    )
    assert_refused(here("put", folder / "source", "m", cluster="a"), 2, str(folder / "a"))


NAMES = {
    "dots": "../m",
    "dots inside": "a/../m",
    "a dot": "a/./m",
    "only dots": "..",
    "absolute": "/etc/passwd",
    "empty": "",
    "empty part": "a//m",
    "trailing slash": "a/",
    "backslash": "a\\m",
    "newline": "a\nm",
    "escape": "a\x1b[31mm",
    "too long": "x" * 256,
    "too long when escaped": "é" * 100,
    "part too long": "a/" + "x" * 256,
    "too deep": "/".join("x" * 70),
    "generation": "m@3",
    "NUL": "a\0m",
    "not UTF-8": os.fsdecode(b"m\xff"),
}


@pytest.mark.parametrize("name", NAMES)
def test_names_to_put(here, folder, name):
    done = here("put", folder / "source", NAMES[name])
    assert_refused(done, 2, "name")
    assert "\x1b" not in done.stderr
    assert not published(folder)


def test_a_name_that_is_not_utf8_on_the_command_line(folder):
    """As bytes, through a real process."""
    done = subprocess.run(
        [sys.executable, "-m", "shardfs", "put", folder / "source", b"m\xff", "--cluster", folder / "cluster.toml"],
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    assert_refused(done, 2, "name", "UTF-8")
    assert not published(folder)


@pytest.mark.parametrize("command", ["info", "plan", "versions", "rm", "get"])
@pytest.mark.parametrize("name", ["dots", "empty part", "backslash", "not UTF-8", "too long", "escape"])
def test_names_to_look_for(here, folder, command, name):
    arguments = [NAMES[name], *([folder / "copy"] if command == "get" else [])]
    done = here(command, *arguments)
    assert (done.returncode, done.stdout) == (2, "")
    assert "Traceback" not in done.stderr
    assert "\x1b" not in done.stderr
    assert "name" in done.stderr.splitlines()[-1]


@pytest.mark.parametrize("command", ["info", "plan", "versions", "rm", "get"])
def test_models_that_are_not_there(here, folder, command):
    arguments = ["nothing", *([folder / "copy"] if command == "get" else [])]
    assert_refused(here(command, *arguments), 1, "nothing", "no such model")


def test_sources_that_cannot_be_put(here, folder):
    assert_refused(here("put", folder / "nothing", "m"), 1, "nothing")
    os.mkfifo(folder / "pipe")
    assert_refused(here("put", folder / "pipe", "m"), 1, "pipe")
    (folder / "loop").symlink_to("loop")
    assert_refused(here("put", folder / "loop", "m"), 1, "loop")
    (folder / "tree").mkdir()
    (folder / "tree" / "away").symlink_to("/etc/passwd")
    assert_refused(here("put", folder / "tree", "m"), 1, "away")
    assert not published(folder)


def test_files_whose_names_are_not_utf8(here, folder):
    (folder / "tree").mkdir()
    (Path(os.fsdecode(os.fsencode(folder / "tree") + b"/bad\xff"))).write_bytes(b"x")
    assert_refused(here("put", folder / "tree", "m"), 1, "UTF-8")
    assert not published(folder)


@pytest.mark.skipif(os.geteuid() != 0, reason="left out: becoming another user takes root")
def test_a_source_that_may_not_be_read():
    """Run as a user who may search folders but not read other people's files."""
    with scratch() as folder:
        (folder / "cluster.toml").write_text(GOOD.format(a=f"file://{folder}/a", b=f"file://{folder}/b"))
        (folder / "tree").mkdir()
        (folder / "tree" / "mine").write_bytes(b"x")
        (folder / "tree" / "mine").chmod(0)
        for node in "ab":
            (folder / node).mkdir()
            os.chown(folder / node, NOBODY, NOBODY)
        # The right to read everything serves to start the interpreter and is given up before the command begins.
        code = (
            "import shardfs.cli.put, shardfs.api.put, shardfs.cli, ctypes\n"
            "version_3, nothing = (ctypes.c_uint32 * 2)(0x20080522), (ctypes.c_uint32 * 6)()\n"
            "assert ctypes.CDLL(None).capset(version_3, nothing) == 0\n"
            "shardfs.cli.main()\n"
        )
        arguments = ["put", folder / "tree", "m", "--cluster", folder / "cluster.toml"]
        done = subprocess.run(
            [*as_nobody(), sys.executable, "-c", code, *arguments],
            capture_output=True,
            text=True,
            timeout=60,
            check=False,
            env={**os.environ, "HOME": str(folder)},
        )
        assert_refused(done, 1, "mine", "ermission")


def test_get_does_not_destroy(here, folder):
    """A destination with other content is left alone, and a file in the way of a folder is named."""
    assert here("put", folder / "source", "m").returncode == 0
    (folder / "precious").write_text("thesis")
    done = here("get", "m", folder / "precious")
    assert_refused(done, 1, "precious", "exists with other content")
    assert (folder / "precious").read_text() == "thesis"
    done = here("get", "m", folder / "precious" / "below")
    assert_refused(done, 1, "precious")
    done = here("get", "m", "/proc/nothing")
    assert_refused(done, 1, "/proc")
