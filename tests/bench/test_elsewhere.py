"""Which other filesystems are measured: those whose program is on the PATH, each by its recipe; the others are named.

The programs here are stubs that write down how they were called: that is all that can be tested of a recipe where the
real one cannot be had.
"""

from collections.abc import Callable, Iterator
from contextlib import ExitStack
from pathlib import Path

import pytest
from bench import elsewhere
from bench.context import Bench, Options
from bench.elsewhere import RECIPES, Endpoint, Recipe
from bench.engine import Engine
from bench.figures import Figures
from bench.groups.peers import present
from bench.measure import GIB, MIB
from bench.rivals import running
from bench.world import World

from shardfs.api.local import LocalCluster

SIZE = 16 * MIB
URL = "http://127.0.0.1:4321"
STUB = """\
#!/bin/sh
echo "${0##*/} $*" >> "%s"
"""


def quiet(_text: str) -> None:
    """Nobody listens."""


@pytest.fixture
def world(tmp_path: Path) -> Iterator[World]:
    made = World(tmp_path / "work", SIZE, quiet)
    made.work.mkdir()
    yield made
    made.close()


@pytest.fixture
def bench(world: World) -> Bench:
    return Bench(Options(size=SIZE, runs=1, quick=True, peers=True, out=world.work), world, Figures(), quiet)


@pytest.fixture
def endpoint(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Endpoint:
    """What a recipe is told of an S3 server; nothing listens there."""
    monkeypatch.setenv("AWS_ACCESS_KEY_ID", "who")
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", "secret")
    cluster = LocalCluster(tmp_path / "cluster", nodes=1, replicas=1)
    return Endpoint(Engine("s3", "s3://models/shardfs", tmp_path, cluster), URL, "models", "plain", "us-east-1")


@pytest.fixture
def on_path(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[[str], Path]:
    """Puts a stub on a PATH that has nothing else; the file in which the stubs write how they were called."""
    programs, calls = tmp_path / "programs", tmp_path / "calls"
    programs.mkdir()
    monkeypatch.setenv("PATH", str(programs))

    def put(name: str) -> Path:
        (programs / name).write_text(STUB % calls)
        (programs / name).chmod(0o755)
        return calls

    return put


def recipe(program: str) -> Recipe:
    (found,) = (one for one in RECIPES if one.program == program)
    return found


@pytest.mark.usefixtures("on_path")
def test_what_is_not_installed_is_left_out_and_named(bench: Bench):
    with elsewhere.rivals(bench) as there:
        assert there == []
    assert present(bench) == []
    for name in (
        "s3fs: left",
        "mountpoint-s3: left",
        "goofys: left",
        "JuiceFS: left",
        "SeaweedFS: left",
        "sshfs: left",
    ):
        assert [note for note in bench.figures.notes if note.startswith(name) and "not installed" in note], name


@pytest.mark.parametrize("program", ["s3fs", "mount-s3", "goofys", "juicefs", "weed"])
def test_a_program_on_the_path_has_its_recipe_chosen(bench: Bench, on_path: Callable[[str], Path], program: str):
    on_path(program)
    assert [one.program for one in elsewhere.chosen(bench)] == [program]
    assert not [note for note in bench.figures.notes if note.startswith(f"{recipe(program).name}:")]


@pytest.mark.parametrize(
    ("program", "words"),
    [
        ("s3fs", ["models:/plain", f"url={URL}"]),
        ("mount-s3", ["models", "--prefix plain/", f"--endpoint-url {URL}", "--force-path-style", "--read-only"]),
        ("goofys", [f"--endpoint {URL}", "models:plain"]),
    ],
)
def test_clients_of_the_endpoint_are_told_where_the_model_is(
    bench: Bench, endpoint: Endpoint, on_path: Callable[[str], Path], program: str, words: list[str]
):
    calls = on_path(program)
    with ExitStack() as stack:
        (rival,) = elsewhere.begun(bench, recipe(program), endpoint, stack)
        with pytest.raises(RuntimeError, match="no mount"), running(bench.world, rival, bench.world.place("cache")):
            pass
    (call,) = calls.read_text().splitlines()
    assert call.startswith(f"{program} ")
    assert [word for word in words if f" {word} " not in f"{call.replace(',', ' ')} "] == []
    assert f"{bench.world.work}/rival-" in call  # the mountpoint


def test_a_juicefs_volume_is_made_in_the_bucket_and_mounted(
    bench: Bench, endpoint: Endpoint, on_path: Callable[[str], Path]
):
    calls = on_path("juicefs")
    with ExitStack() as stack:
        assert elsewhere.begun(bench, recipe("juicefs"), endpoint, stack) == []  # the stub mounts nothing
    made, mounted = calls.read_text().splitlines()
    assert made.startswith(f"juicefs format --storage s3 --bucket {URL}/models --access-key who --secret-key secret ")
    names = made.split()[-2]
    assert names.startswith("sqlite3:///")
    assert mounted.startswith("juicefs mount ")
    assert f" {names} {bench.world.work}/rival-" in mounted
    (note,) = bench.figures.notes
    assert note == "JuiceFS: failed (RuntimeError: juicefs: no mount; its recipe was never tried)"


def test_a_seaweedfs_server_is_started_with_a_filer(bench: Bench, on_path: Callable[[str], Path]):
    calls = on_path("weed")
    with elsewhere.rivals(bench) as there:  # without any S3 endpoint
        assert there == []
    (call,) = calls.read_text().splitlines()
    assert call.startswith(f"weed server -dir={bench.world.work}/weed-")
    ports = [int(word.partition("=")[2]) for word in call.split() if ".port=" in word]
    assert len(set(ports)) == 3
    assert max(ports) + 10_000 < 65_536
    assert [note for note in bench.figures.notes if note.startswith("SeaweedFS: failed") and "never tried" in note]
    words = elsewhere.weed(f"127.0.0.1:{ports[0]}", Path("/there"), Path("/cache"))
    assert words[:4] == ["weed", "mount", f"-filer=127.0.0.1:{ports[0]}", "-dir=/there"]


def test_a_model_that_is_no_single_s3_object_is_not_compared(world: World, on_path: Callable[[str], Path]):
    on_path("s3fs")
    options = Options(size=8 * GIB, runs=1, quick=False, peers=True, out=world.work)
    bench = Bench(options, world, Figures(), quiet)
    assert elsewhere.chosen(bench) == []
    assert [note for note in bench.figures.notes if note.startswith("s3fs: left out, the model is larger")]


def test_a_server_that_cannot_be_had_leaves_the_others(
    bench: Bench, on_path: Callable[[str], Path], monkeypatch: pytest.MonkeyPatch, tmp_path: Path
):
    on_path("goofys")
    in_the_way = tmp_path / "file"
    in_the_way.touch()
    monkeypatch.setenv("SHARDFS_ENGINES_DOWNLOADS", str(in_the_way / "folder"))
    with elsewhere.rivals(bench) as there:
        assert there == []
    assert [note for note in bench.figures.notes if note.startswith("goofys: left out, no S3 endpoint (")]


def test_a_recipe_that_was_never_tried_says_so():
    text = (Path(elsewhere.__file__).parent / "README.md").read_text()
    for one in RECIPES:
        assert one.name in text
    assert [one.name for one in RECIPES if one.tried] == ["s3fs"]
