"""What the benchmark takes for handed over is, and what a machine cannot do is said in the report, on real mounts."""

import json
import os
import shutil
from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path

import pytest
from bench import cases, passthrough
from bench.child import reader, run_reader
from bench.context import Bench, Options
from bench.figures import Figures
from bench.groups.warm import HANDED_OVER
from bench.measure import MIB, evict, file_system, resident
from bench.report import write_report
from bench.world import World

SIZE = 16 * MIB

pytestmark = [pytest.mark.fuse, pytest.mark.slow]


def quiet(_text: str) -> None:
    """Nobody listens."""


@pytest.fixture(scope="module")
def world(tmp_path_factory: pytest.TempPathFactory) -> Iterator[World]:
    pytest.importorskip("pyfuse3", reason="left out: pyfuse3 is not installed (shardfs[mount] brings it)")
    if not os.access("/dev/fuse", os.R_OK | os.W_OK):
        pytest.skip("left out: /dev/fuse cannot be opened, so nothing can be mounted here")
    folder = tmp_path_factory.mktemp("world")
    if file_system(folder) == "tmpfs":
        pytest.skip("left out: the temporary folder is in memory, the benchmark measures a disk")
    with ExitStack() as stack:
        made = World(folder, SIZE, quiet)
        stack.callback(shutil.rmtree, folder, ignore_errors=True)
        stack.callback(made.close)
        made.stored  # noqa: B018  # published
        yield made


@pytest.fixture(scope="module")
def cache(world: World) -> Path:
    return cases.filled_cache(world)


@pytest.fixture
def able(world: World, cache: Path) -> None:
    if why := passthrough.lacking(world, cache):
        pytest.skip(f"left out: nothing is handed over here ({why})")


@pytest.mark.usefixtures("able")
@pytest.mark.parametrize("in_memory", [False, True])
def test_a_model_that_is_handed_over_has_the_state_that_was_asked_for(world: World, cache: Path, in_memory: bool):
    with passthrough.handed_over(world, cache, in_memory=in_memory) as mount:
        shares = [resident(path) for path in passthrough.model_files(cache)]
        assert [round(share) for share in shares] == [in_memory]
        with reader("sha256", mount.model) as there, reader("sha256", world.source) as here:
            answers = []
            for child in (there, here):
                child.go()
                assert child.line() == "half"
                answers.append(child.answer()["sha256"])
        assert answers[0] == answers[1]
        assert resident(passthrough.model_files(cache)[0]) > 0.5  # the kernel read it there, and keeps it


@pytest.mark.usefixtures("able")
@pytest.mark.parametrize("make", [passthrough.warm, passthrough.hot])
@pytest.mark.parametrize("how", ["read", "mmap"])
def test_each_case_runs(world: World, cache: Path, make: object, how: str):
    assert callable(make)
    with make(world, "case", cache, how=how).scene() as timed:
        assert timed() > 0


def test_what_the_daemon_serves_is_not_taken_for_handed_over(world: World, cache: Path):
    with world.mount(cache=cache) as mount:
        assert not mount.passthrough
        with reader("read", mount.model) as child:
            run_reader(child, SIZE)
        evict(passthrough.model_files(cache))
        assert not passthrough.is_handed_over(mount.model)


def test_the_report_says_why_nothing_was_handed_over(world: World, tmp_path: Path):
    options = Options(size=SIZE, runs=1, quick=True, peers=False, out=tmp_path)
    bench = Bench(options, world, Figures(), quiet)
    why = f"the cache folder {world.work}/cache is stacked"
    bench.cannot("reads with --passthrough", [figure for figure, _ in HANDED_OVER.values()], why)
    write_report(options, {"date": "", "versions": {}, **dict.fromkeys(MACHINE, "")}, bench.figures, {})
    told = "the cache folder WORK/cache is stacked"
    rows = [line for line in (tmp_path / "results.md").read_text().splitlines() if f"not measured: {told} |" in line]
    assert [row.split(" | ")[0] for row in rows] == [
        "| warm read, --passthrough",
        "| hot read, --passthrough",
        "| hot mmap walk, --passthrough",
    ]
    targets = json.loads((tmp_path / "results.json").read_text())["targets"]
    assert sum(target["why"] == told for target in targets) == len(rows)


MACHINE = ("cores", "processor", "memory_gib", "kernel", "python", "root", "congestion_control")
