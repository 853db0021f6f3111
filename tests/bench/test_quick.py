"""The benchmark runs and reports: a smoke test. No figure is judged here."""

import json
import math
import os
import re
import socket
import subprocess
import sys
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import pytest
from bench.measure import file_system

ROOT = Path(__file__).resolve().parents[2]
GROUPS = "cold,put,daemon,placement"
BELOW = ("daemon.beyond_together", "daemon.beyond_apart")  # at this size memory stays far below what is allowed

pytestmark = [pytest.mark.fuse, pytest.mark.slow]


@pytest.fixture(scope="module")
def out(tmp_path_factory: pytest.TempPathFactory) -> Path:
    pytest.importorskip("pyfuse3", reason="left out: pyfuse3 is not installed (shardfs[mount] brings it)")
    if not os.access("/dev/fuse", os.R_OK | os.W_OK):
        pytest.skip("left out: /dev/fuse cannot be opened, so nothing can be mounted here")
    folder = tmp_path_factory.mktemp("bench")
    if file_system(folder) == "tmpfs":
        pytest.skip("left out: the temporary folder is in memory, the benchmark measures a disk")
    words = ["--quick", "--only", GROUPS, "--size", "16MiB", "--out", folder / "results", "--work", folder]
    ended = subprocess.run(
        [sys.executable, ROOT / "tools" / "bench", *words],
        cwd=folder,
        capture_output=True,
        text=True,
        check=False,
        stdin=subprocess.DEVNULL,
        timeout=250,
    )
    assert ended.returncode == 0, ended.stdout + ended.stderr
    assert [path.name for path in folder.iterdir()] == ["results"]  # nothing stays in the work folder
    return folder / "results"


@pytest.fixture(scope="module")
def results(out: Path) -> dict[str, Any]:
    document = json.loads((out / "results.json").read_text())
    assert isinstance(document, dict)
    return document


def test_every_group_gave_figures_and_nothing_failed(results: dict[str, Any]):
    assert {name.partition(".")[0] for name in results["figures"]} == set(GROUPS.split(","))
    assert [note for note in results["notes"] if "failed" in note] == []


def test_figures_and_ratios_are_finite_and_positive(results: dict[str, Any]):
    for name, figure in results["figures"].items():
        for key in ("median", "min", "max"):
            assert math.isfinite(figure[key]), name
            assert (figure[key] > 0) == (name not in BELOW), name
        if figure["limit"] is not None:
            assert figure["limit"] in results["figures"]
            assert math.isfinite(figure["ratio"]["median"]), name


def test_the_ceiling_lies_below_both_its_stages(results: dict[str, Any]):
    wire, fuse, ceiling = (results["figures"][f"cold.{name}"]["median"] for name in ("wire", "fuse", "ceiling"))
    assert ceiling < min(wire, fuse)
    assert math.isclose(1 / ceiling, 1 / wire + 1 / fuse)


def test_targets_are_judged_where_they_were_measured(results: dict[str, Any]):
    verdicts = {(target["figure"], target["kind"]): target["verdict"] for target in results["targets"]}
    assert verdicts["cold.cache", "ratio"] in ("pass", "FAIL")
    assert verdicts["peers.shardfs_cold", "ratio"] == "not measured"


def test_the_page_has_every_figure_and_the_command_that_repeats_it(out: Path, results: dict[str, Any]):
    page = (out / "results.md").read_text()
    for figure in results["figures"].values():
        assert f"| {figure['what']} |" in page
        assert figure["command"] in page
    plots = re.findall(r"!\[\w+\]\((\w+\.png)\)", page)
    assert bool(plots) == (find_spec("matplotlib") is not None)
    for plot in plots:
        assert (out / plot).read_bytes().startswith(b"\x89PNG")


def test_the_report_does_not_say_where_it_was_made(out: Path):
    text = (out / "results.json").read_text() + (out / "results.md").read_text()
    assert socket.gethostname() not in text
    assert str(out.parent) not in text
    assert str(ROOT) not in text
