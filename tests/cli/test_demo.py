"""`shardfs demo` as a user runs it, and what it says where it cannot run."""

import os
import pty
import signal
import subprocess
import sys
from contextlib import contextmanager
from pathlib import Path

import pytest

from shardfs.api.local import is_mounted
from shardfs.cli import demo
from shardfs.cli.sample_model import SHARDS, make_sample_model
from shardfs.cli.sample_reader import SampleReader
from shardfs.errors import MountError, ShardfsError


def run(*arguments, **environment):
    return subprocess.run(
        [sys.executable, "-m", "shardfs", "demo", *map(str, arguments)],
        capture_output=True,
        text=True,
        timeout=250,
        check=False,
        env=os.environ | environment,
    )


@pytest.mark.fuse
@pytest.mark.slow
def test_the_whole_demo_twice_in_the_same_folder(tmp_path):
    place = tmp_path / "my demo"
    for _ in range(2):
        done = run(place)
        assert (done.returncode, done.stderr) == (0, "")
        assert done.stdout.count("equal to the original") == 2
        assert "by kill -9" in done.stdout
        assert "demo/sample           1      4  64.0 MiB" in done.stdout
        assert f"export SHARDFS_CLUSTER='{place}/cluster.toml'" in done.stdout
        assert not is_mounted(place / "models")


@pytest.mark.fuse
@pytest.mark.slow
def test_a_demo_without_a_folder_leaves_nothing(tmp_path):
    done = run(TMPDIR=str(tmp_path))
    assert (done.returncode, done.stderr) == (0, "")
    assert str(tmp_path / "shardfs-demo-") in done.stdout
    assert list(tmp_path.iterdir()) == []


@pytest.mark.fuse
@pytest.mark.slow
@pytest.mark.parametrize(("end", "status"), [("enter", 0), (signal.SIGINT, 130), (signal.SIGTERM, 143)])
def test_on_a_terminal_it_stays_up_until_it_is_told_to_end(tmp_path, end, status):
    terminal, inside = pty.openpty()
    command = [sys.executable, "-m", "shardfs", "demo"]
    process = subprocess.Popen(
        command, stdin=inside, stdout=inside, stderr=inside, env=os.environ | {"TMPDIR": str(tmp_path)}
    )
    os.close(inside)
    with process, ended(process):
        text = read_until(terminal, "Press Enter")
        assert "In another terminal, try:" in text
        [root] = tmp_path.iterdir()
        assert is_mounted(root / "models")
        assert (root / "models" / "demo" / "sample" / "config.json").read_bytes()
        if end == "enter":
            os.write(terminal, b"\n")
        else:
            process.send_signal(end)
        rest = read_until(terminal, None)
    assert process.returncode == status
    assert "Traceback" not in rest
    assert list(tmp_path.iterdir()) == []
    os.close(terminal)


@contextmanager
def ended(process):
    """Killed when the test fails, or `process` would be waited for."""
    try:
        yield
    except BaseException:
        process.kill()
        raise


def read_until(terminal, mark):
    """What the terminal shows up to `mark`, or up to the end."""
    text = ""
    while mark is None or mark not in text:
        try:
            piece = os.read(terminal, 65536)
        except OSError:  # EIO: nobody has the other side open any more
            piece = b""
        if not piece:
            break
        text += piece.decode()
    assert mark is None or mark in text, text
    return text


def test_a_folder_with_other_things_in_it_is_not_touched(tmp_path):
    (tmp_path / "thesis.txt").write_text("years of work")
    done = run(tmp_path)
    assert done.returncode == 2
    assert done.stderr == f"shardfs: {tmp_path}: not empty and not of an earlier demo; name another folder\n"
    assert [path.name for path in tmp_path.iterdir()] == ["thesis.txt"]


@pytest.mark.parametrize("package", ["pyfuse3", "safetensors"])
def test_a_missing_package_is_named_before_anything_starts(monkeypatch, package):
    find = demo.importlib.util.find_spec
    monkeypatch.setattr(demo.importlib.util, "find_spec", lambda name: None if name == package else find(name))
    with pytest.raises(MountError, match=f"the package {package} is missing: tools/setup mount demo"):
        demo.check_requirements()


def test_a_missing_fusermount_is_named(monkeypatch):
    monkeypatch.setattr(demo.shutil, "which", lambda name: None)
    with pytest.raises(MountError, match="apt-get install fuse3"):
        demo.check_requirements()


@pytest.mark.parametrize(
    ("open_", "message"),
    [(None, "/dev/fuse is missing"), (PermissionError(1, "Operation not permitted"), "cannot be opened .*permitted")],
)
def test_a_missing_device_is_explained(monkeypatch, open_, message):
    def fail(*_):
        raise open_

    if open_ is None:
        monkeypatch.setattr(demo.Path, "exists", lambda self: False)
    else:
        monkeypatch.setattr(demo.os, "open", fail)
    with pytest.raises(MountError, match=message):
        demo.check_requirements()


def test_the_sample_is_the_same_everywhere_and_what_frameworks_expect(tmp_path):
    for name in ("first", "second"):
        make_sample_model(tmp_path / name)
    first, second = ({p.name: p.read_bytes() for p in (tmp_path / name).iterdir()} for name in ("first", "second"))
    assert first == second
    assert set(first) == {*SHARDS, "model.safetensors.index.json", "config.json"}
    assert 60 << 20 < sum(map(len, first.values())) < 70 << 20


def test_the_reader_compares_and_survives_what_kills_its_process(tmp_path):
    make_sample_model(tmp_path)
    one, other = (tmp_path / name for name in SHARDS)
    with SampleReader() as reader:
        assert reader.framework() in ("torch", "numpy")
        answer = reader.read(one, one)
        assert (answer["tensors"], answer["bytes"]) == (5, 32 << 20)
        with pytest.raises(ShardfsError, match=r"not what was uploaded: .*lm_head.weight"):
            reader.read(one, other)
        damaged = tmp_path / "damaged.safetensors"
        raw = bytearray(one.read_bytes())
        raw[-1] ^= 1
        damaged.write_bytes(raw)
        with pytest.raises(ShardfsError, match="not what was uploaded: "):
            reader.read(damaged, one)
        with pytest.raises(ShardfsError, match="ended"):
            reader.read(Path("/no/such/file"), one)
