"""The command: what it installs, what it says of itself, how long it will take."""

import os
import selectors
import shutil
import signal
import subprocess
import sys
import time
from contextlib import suppress
from pathlib import Path
from typing import IO

import pytest
from bench import cli, duration
from bench.context import Options
from bench.groups import GROUPS
from bench.measure import GIB, MIB, file_system
from bench.targets import TARGETS

from shardfs.core.units import format_size

BENCH = Path(__file__).resolve().parents[2] / "tools" / "bench"
MOST = "mount demo hdfs bench"


def options(size: int = GIB, runs: int = 3, *, peers: bool = False) -> Options:
    return Options(size=size, runs=runs, quick=False, peers=peers, out=Path("out"))


@pytest.mark.parametrize(
    ("words", "extras"),
    [
        ([], f"{MOST} frameworks"),
        (["--size", "1GiB", "--peers"], f"{MOST} frameworks"),
        (["--only", "cold,loaders,put"], f"{MOST} frameworks"),
        (["--only=loaders"], f"{MOST} frameworks"),
        (["--only", "cold,put"], MOST),
        (["--size", "1GiB", "--only=cold"], MOST),
        (["--help"], MOST),
    ],
)
def test_what_the_groups_asked_for_need_is_installed(tmp_path: Path, words: list[str], extras: str):
    for folder in ("tools/bench", ".venv/bin"):
        (tmp_path / folder).mkdir(parents=True)
    shutil.copy(BENCH / "run", tmp_path / "tools/bench/run")
    for program in ("tools/setup", ".venv/bin/python"):
        (tmp_path / program).write_text('#!/bin/sh\necho "$*"\n')
        (tmp_path / program).chmod(0o755)
    ran = subprocess.run([tmp_path / "tools/bench/run", *words], capture_output=True, text=True, check=True, timeout=60)
    assert ran.stdout.splitlines() == [extras, " ".join(["tools/bench", *words])]


def test_the_help_and_the_readme_say_what_is_needed(capsys: pytest.CaptureFixture[str]):
    with pytest.raises(SystemExit):
        cli.main(["--help"])
    said = " ".join(capsys.readouterr().out.split())
    readme = (BENCH / "README.md").read_text()
    for text in (said, readme):
        assert "/dev/fuse" in text
        plain = text.replace("`--size`", "--size")
        assert f"{cli.SPACE_FACTOR} times --size and {cli.SPACE_EXTRA // GIB} GiB" in plain
        assert f"{cli.SPACE_FACTOR_PEERS} times" in plain
    for group in GROUPS.values():
        (row,) = (line for line in readme.splitlines() if line.startswith(f"| `{group.name}` |"))
        if group.name == "user":
            for program in ("setpriv", "fusermount3", "unshare", "nsenter"):  # what groups/user.py looks for
                assert program in row
                assert program in group.needs


def test_too_little_space_is_said_before_anything_is_written(tmp_path: Path):
    if not os.access("/dev/fuse", os.R_OK | os.W_OK):
        pytest.skip("left out: /dev/fuse cannot be opened, so nothing can be mounted here")
    if file_system(tmp_path) == "tmpfs":
        pytest.skip("left out: the temporary folder is in memory, the benchmark measures a disk")
    for peers, factor in ((False, cli.SPACE_FACTOR), (True, cli.SPACE_FACTOR_PEERS)):
        said = cli.lacks(tmp_path, options(1024 * GIB, peers=peers))
        assert said is not None
        assert format_size(factor * 1024 * GIB + cli.SPACE_EXTRA) in said
    assert list(tmp_path.iterdir()) == []


@pytest.mark.fuse
def test_a_signal_ends_the_run_and_nothing_stays(tmp_path: Path):
    pytest.importorskip("pyfuse3", reason="left out: pyfuse3 is not installed (shardfs[mount] brings it)")
    if not os.access("/dev/fuse", os.R_OK | os.W_OK):
        pytest.skip("left out: /dev/fuse cannot be opened, so nothing can be mounted here")
    if file_system(tmp_path) == "tmpfs":
        pytest.skip("left out: the temporary folder is in memory, the benchmark measures a disk")
    words = ["--size", "16MiB", "--runs", "1000", "--only", "readers", "--out", tmp_path / "out", "--work", tmp_path]
    with subprocess.Popen([sys.executable, BENCH, *words], stdout=subprocess.PIPE, bufsize=0) as run:
        try:
            assert run.stdout is not None
            read_as_far_as(run.stdout, b"\n  round 1/")  # then nodes and a mount are there
            run.send_signal(signal.SIGTERM)
            run.communicate(timeout=120)
        except BaseException:  # or it would be waited for
            run.terminate()  # it stops its nodes
            with suppress(subprocess.TimeoutExpired):
                run.communicate(timeout=60)
            run.kill()
            raise
    assert [path.name for path in tmp_path.iterdir()] == ["out"]
    assert "stopped by Ctrl-C or a signal" in (tmp_path / "out" / "results.md").read_text()
    assert str(tmp_path) not in Path("/proc/self/mountinfo").read_text()


def read_as_far_as(stream: IO[bytes], end: bytes, *, seconds: float = 300) -> None:
    """Fails when it does not come in that time: a run that hangs says nothing."""
    said = b""
    last = time.monotonic() + seconds
    with selectors.DefaultSelector() as ready:
        ready.register(stream, selectors.EVENT_READ)
        while end not in said:
            assert ready.select(max(0.0, last - time.monotonic())), f"no {end!r} in {seconds} s: {said!r}"
            piece = stream.read(65536)
            assert piece, f"it has ended: {said!r}"
            said += piece


def test_what_is_left_shrinks_and_follows_the_pace_of_this_machine():
    names = list(GROUPS)
    whole = duration.left(options(), names, {})
    assert 10 * 60 < whole < 90 * 60
    assert duration.left(options(runs=5), names, {}) > whole > duration.left(options(64 * MIB), names, {})
    first = names[0]
    half_as_fast = {first: 2 * duration.expected(options(), first)}
    rest = whole - duration.expected(options(), first)
    assert duration.left(options(), names, half_as_fast) == pytest.approx(2 * rest)
    assert duration.left(options(), [first], half_as_fast) == 0


def test_both_loaders_and_both_crowds_are_judged():
    assert {("loaders.numpy", 1.3), ("loaders.torch_safetensors", 1.3)} <= {(t.figure, t.bound) for t in TARGETS}
    beyond = {t.figure: (t.sense, t.bound, t.unit) for t in TARGETS if t.figure.startswith("daemon.beyond")}
    assert beyond == dict.fromkeys(("daemon.beyond_together", "daemon.beyond_apart"), ("at most", 120, "MiB"))
