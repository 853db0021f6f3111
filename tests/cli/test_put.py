"""`shardfs put` as users run it: real processes, real nodes, real kills."""

import itertools
import json
import os
import pty
import re
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
import trio

from shardfs.admin.upload import Tally
from shardfs.api.put import put
from shardfs.cli.progress import Speed, clock, describe, percent, show_progress
from shardfs.config import load_cluster
from shardfs.core.chunk import BLOCK_SIZE, verify_chunk
from shardfs.core.keys import chunk_key
from shardfs.core.manifest import Manifest
from shardfs.core.names import ModelName
from shardfs.core.ranges import chunk_count
from shardfs.errors import Conflict, SourceError
from shardfs.wiring.client import client

SHARDFS = [sys.executable, "-m", "shardfs"]
KEYS = {
    "name", "generation", "digest", "files", "size", "chunks", "bytes_sent", "bytes_present", "bytes_zero", "seconds",
    "replaced_nodes", "unchanged", "raced",
}  # fmt: skip


class Nodes:
    """Chunk servers a, b, c, d over folders below `root`, and their cluster file with small chunks."""

    def __init__(self, root: Path, count: int) -> None:
        self.root = root
        self.names = "abcdefgh"[:count]
        self.file = root / "cluster.toml"
        self.processes: dict[str, subprocess.Popen[str]] = {}
        self.uploads: list[subprocess.Popen[str]] = []
        lines = ["replicas = 2", 'chunk_size = "256KiB"']
        for name in self.names:
            url = self.start(name)
            lines += ["[[nodes]]", f'id = "{name}"', f'url = "{url}"']
        self.file.write_text("\n".join(lines) + "\n")

    def start(self, name: str) -> str:
        command = [*SHARDFS, "node", "--id", name, "--data", str(self.root / name), "--listen", "127.0.0.1:0", "--json"]
        self.processes[name] = process = subprocess.Popen(command, stdout=subprocess.PIPE, text=True)
        assert process.stdout is not None
        line = process.stdout.readline()
        return str(json.loads(line)["url"])

    def kill(self, name: str) -> None:
        process = self.processes.pop(name)
        process.kill()
        process.wait()
        assert process.stdout is not None
        process.stdout.close()

    def chunks(self, name: str) -> int:
        return sum(1 for _ in (self.root / name / "chunks").glob("??/*"))

    def stop(self) -> None:
        """What a failed test has left as well."""
        for process in self.uploads:
            process.kill()
        for name in list(self.processes):
            self.kill(name)

    def put(self, *args: object, **extra: object) -> subprocess.CompletedProcess[str]:
        return subprocess.run(self.command(*args), capture_output=True, text=True, timeout=100, check=False, **extra)

    def put_json(self, *args: object) -> dict:
        done = self.put("--json", *args)
        assert done.returncode == 0, done.stderr
        return json.loads(done.stdout)

    def command(self, *args: object) -> list[str]:
        return [*SHARDFS, "put", "--cluster", str(self.file), *map(str, args)]

    def models(self) -> dict[str, int]:
        """Names and newest generations."""

        async def ask() -> dict[str, int]:
            async with client(load_cluster(self.file)) as (_, catalog):
                return {name: ref.generation for name, ref in (await catalog.models()).items()}

        return trio.run(ask)

    def content(self, name: str) -> dict[str, bytes]:
        """The model as any reader would see it: every chunk verified, on two nodes at least."""

        async def read() -> dict[str, bytes]:
            async with client(load_cluster(self.file)) as (_, catalog):
                manifest = await catalog.manifest((await catalog.resolve(ModelName.parse(name))).manifest)
            return {file.path: b"".join(self._plain(manifest, file)) for file in manifest.files}

        return trio.run(read)

    def _plain(self, manifest: Manifest, file) -> Iterator[bytes]:
        for chunk in range(chunk_count(file.size, manifest.chunk_size)):
            digest = manifest.digest(file, chunk)
            if digest is None:
                yield bytes(min(manifest.chunk_size, file.size - chunk * manifest.chunk_size))
                continue
            paths = [self.root / name / chunk_key(digest) for name in self.names]
            held = [path.read_bytes() for path in paths if path.exists()]
            assert len(held) >= 2
            headers = [verify_chunk(data, digest) for data in held]
            yield held[0][headers[0].size :]


@pytest.fixture
def nodes(tmp_path: Path, request: pytest.FixtureRequest) -> Iterator[Nodes]:
    started = Nodes(tmp_path, getattr(request, "param", 3))
    yield started
    started.stop()


@pytest.fixture
def model(tmp_path: Path) -> Path:
    root = tmp_path / "src" / "llama"
    (root / "tokenizer").mkdir(parents=True)
    (root / "void").mkdir()
    (root / "weights.bin").write_bytes(os.urandom(5 * BLOCK_SIZE + 3))
    (root / "tokenizer" / "vocab.json").write_text("{}")
    (root / "tokenizer" / "empty").touch()
    return root


@pytest.fixture
def big(tmp_path: Path) -> Path:
    """600 different chunks: enough that whatever happens happens in the middle."""
    path = tmp_path / "src" / "big.bin"
    path.parent.mkdir(exist_ok=True)
    path.write_bytes(os.urandom(600 * BLOCK_SIZE))
    return path


def files_below(root: Path) -> dict[str, bytes]:
    return {str(path.relative_to(root)): path.read_bytes() for path in root.rglob("*") if path.is_file()}


# -------------------------------------------------------------------------------------------------- what it does


def test_a_folder_goes_up_and_is_what_it_was(nodes: Nodes, model: Path) -> None:
    done = nodes.put(model)
    assert done.returncode == 0, done.stderr
    facts = dict(line.split("  ", 1) for line in done.stdout.splitlines())
    assert {key: value.strip() for key, value in facts.items()}.items() >= {
        "name": "llama",
        "generation": "1",
        "files": "3",
        "already there": "0 bytes",
    }.items()
    assert done.stderr.splitlines()[-1] == "100 %  1.25 MiB of 1.25 MiB"
    assert without_progress(done.stderr) == ""
    assert nodes.content("llama") == files_below(model)


def test_json_is_one_document_with_stable_keys(nodes: Nodes, model: Path) -> None:
    first = nodes.put_json(model, "team/llama")
    assert set(first) == KEYS
    size = 5 * BLOCK_SIZE + 5
    assert {key: first[key] for key in KEYS - {"digest", "seconds"}} == {
        "name": "team/llama", "generation": 1, "files": 3, "size": size, "chunks": 7, "bytes_sent": size,
        "bytes_present": 0, "bytes_zero": 0, "replaced_nodes": {}, "unchanged": False, "raced": False,
    }  # fmt: skip
    again = nodes.put_json(model, "team/llama")
    assert (again["generation"], again["digest"], again["unchanged"]) == (1, first["digest"], True)
    assert (again["bytes_sent"], again["bytes_present"]) == (0, size)
    (model / "new").write_text("x")
    third = nodes.put_json(model, "team/llama")
    assert (third["generation"], third["bytes_sent"], third["unchanged"]) == (2, 1, False)


def test_a_snapshot_of_the_hugging_face_cache(nodes: Nodes, tmp_path: Path) -> None:
    cache = tmp_path / "hub" / "models--org--name"
    snapshot = cache / "snapshots" / "abc"
    snapshot.mkdir(parents=True)
    (cache / "blobs").mkdir()
    (cache / "blobs" / "1234").write_text("weights")
    (snapshot / "model.safetensors").symlink_to("../../blobs/1234")
    assert nodes.put_json(snapshot)["name"] == "org/name"
    assert nodes.content("org/name") == {"model.safetensors": b"weights"}


def test_what_is_left_out_is_said(nodes: Nodes, model: Path) -> None:
    (model / ".cache" / "huggingface").mkdir(parents=True)
    done = nodes.put(model)
    assert done.returncode == 0
    assert f"shardfs: {model}/.cache/huggingface is left out" in done.stderr


def test_names_with_every_legal_oddity(nodes: Nodes, tmp_path: Path) -> None:
    root = tmp_path / "odd"
    root.mkdir()
    for name in (
        "with space",
        "ünï",
        "日本",
        "-dash",
        "'quote\"",
        "%41",
        "~41",
        "*?[",
        "a" * 255,
        ".hidden",
        "a:b",
        "#x",
    ):
        (root / name).write_text(name)
    assert nodes.put(root, "ünï/mod el").returncode == 0
    assert nodes.content("ünï/mod el") == files_below(root)


def test_the_script_in_the_checkout_is_the_same(nodes: Nodes, model: Path) -> None:
    script = Path(__file__).parents[2] / "tools" / "shardfs-put"
    ours = os.path.dirname(sys.executable)  # a checkout may have no environment of its own
    environment = {**os.environ, "SHARDFS_CLUSTER": str(nodes.file), "PATH": f"{ours}:{os.environ['PATH']}"}
    done = subprocess.run([script, model, "m"], env=environment, capture_output=True, check=False)
    assert done.returncode == 0, done.stderr
    assert nodes.models() == {"m": 1}


def put_and_measure(nodes: Nodes, source: Path, folder: Path) -> tuple[str, int]:
    """The report, and the most memory in KiB that the upload used by its own word.

    Not `ru_maxrss`: that of a child is never less than what its parent had when it was started.
    """
    status = folder / "status"
    program = (
        "import atexit, pathlib, sys;"
        f"atexit.register(lambda: pathlib.Path({str(status)!r}).write_bytes(open('/proc/self/status', 'rb').read()));"
        "from shardfs.cli import main; main(sys.argv[1:])"
    )
    arguments = nodes.command("--json", source)[len(SHARDFS) :]
    done = subprocess.run([sys.executable, "-c", program, *arguments], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    peak = next(line for line in status.read_text().splitlines() if line.startswith("VmHWM:"))
    return done.stdout, int(peak.split()[1])


def test_a_terabyte_of_holes_is_quick_and_small(nodes: Nodes, tmp_path: Path) -> None:
    nodes.file.write_text(nodes.file.read_text().replace("256KiB", "4MiB"))
    sparse = tmp_path / "sparse.bin"
    with sparse.open("wb") as file:
        file.seek(1 << 39)
        file.write(b"middle")
        file.truncate(1 << 40)
    report, peak_kib = put_and_measure(nodes, sparse, tmp_path)
    done = json.loads(report)
    assert (done["size"], done["chunks"], done["bytes_sent"]) == (1 << 40, 1 << 18, 4 << 20)
    assert done["bytes_zero"] == (1 << 40) - (4 << 20)
    assert sum(nodes.chunks(name) for name in nodes.names) == 2
    assert peak_kib < 256 * 1024


@pytest.mark.slow
def test_memory_does_not_depend_on_the_size(nodes: Nodes, tmp_path: Path) -> None:
    nodes.file.write_text(nodes.file.read_text().replace("256KiB", "4MiB"))
    path = tmp_path / "gigabytes"
    with path.open("wb") as file:
        for _ in range(48):
            file.write(os.urandom(64 << 20))
    _, peak_kib = put_and_measure(nodes, path, tmp_path)
    path.unlink()
    assert peak_kib < 256 * 1024


# --------------------------------------------------------------------------------------------- killed on the way


def start_and_hold(nodes: Nodes, src: Path, *, chunks: int) -> subprocess.Popen[str]:
    """An upload of `src`, stopped (SIGSTOP) when node a has some chunks and long before it can be done."""
    process = subprocess.Popen(nodes.command("--json", src), stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
    while nodes.chunks("a") < chunks:
        assert process.poll() is None, process.communicate()
    process.send_signal(signal.SIGSTOP)
    assert os.waitid(os.P_PID, process.pid, os.WSTOPPED | os.WEXITED | os.WNOWAIT).si_code == os.CLD_STOPPED
    nodes.uploads.append(process)
    return process


def go_on(process: subprocess.Popen[str]) -> tuple[str, str]:
    process.send_signal(signal.SIGCONT)
    return process.communicate(timeout=100)


def without_progress(stderr: str) -> str:
    """What it said, but for how far it was every five seconds: how many those are is the machine's business."""
    return re.sub(r"^\d+ %  .*\n", "", stderr, flags=re.MULTILINE)


def test_killed_and_run_again_it_goes_on(nodes: Nodes, big: Path) -> None:
    process = start_and_hold(nodes, big, chunks=30)
    process.kill()
    process.communicate()
    assert process.returncode == -signal.SIGKILL
    assert nodes.models() == {}
    done = nodes.put_json(big)
    assert done["bytes_present"] >= 20 * BLOCK_SIZE
    assert done["bytes_sent"] > 0
    assert done["bytes_sent"] + done["bytes_present"] == done["size"]
    assert nodes.content("big.bin") == {"": big.read_bytes()}


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_interrupted_it_says_so_and_publishes_nothing(nodes: Nodes, big: Path, number: int) -> None:
    process = start_and_hold(nodes, big, chunks=5)
    process.send_signal(number)
    stdout, stderr = go_on(process)
    assert process.returncode == 128 + number
    assert (stdout, without_progress(stderr)) == (
        "",
        "shardfs: stopped, nothing is published; the same command goes on from here\n",
    )
    assert nodes.models() == {}
    assert nodes.put_json(big)["bytes_present"] > 0


@pytest.mark.parametrize("nodes", [3, 4], indirect=True)
def test_a_node_killed_on_the_way_is_replaced_and_told(nodes: Nodes, big: Path) -> None:
    process = start_and_hold(nodes, big, chunks=10)
    nodes.kill("b")
    stdout, stderr = go_on(process)
    assert process.returncode == 0, stderr
    done = json.loads(stdout)
    assert set(done["replaced_nodes"]) == {"b"}
    assert done["replaced_nodes"]["b"]["chunks"] > 0
    assert "shardfs: node b: " in stderr
    assert "chunks went to other nodes instead" in stderr
    assert nodes.content("big.bin") == {"": big.read_bytes()}


def test_a_node_that_is_down_from_the_start(nodes: Nodes, model: Path) -> None:
    nodes.kill("c")
    done = nodes.put_json(model)
    assert set(done["replaced_nodes"]) <= {"c"}
    assert nodes.content("llama") == files_below(model)


def test_fewer_nodes_than_copies(nodes: Nodes, model: Path) -> None:
    nodes.kill("b")
    nodes.kill("c")
    done = nodes.put(model)
    assert done.returncode == 1
    assert done.stdout == ""
    (line,) = done.stderr.splitlines()
    assert line.startswith("shardfs: 2 copies need 2 active nodes, 1 answer (b: ")
    assert "; c: " in line
    assert nodes.chunks("a") == 0


def test_a_source_that_changes_on_the_way(nodes: Nodes, big: Path) -> None:
    process = start_and_hold(nodes, big, chunks=5)
    with big.open("r+b") as file:
        file.write(b"changed")
    stdout, stderr = go_on(process)
    assert process.returncode == 1
    assert (stdout, without_progress(stderr)) == ("", f"shardfs: {big} changed while it was being published\n")
    assert nodes.models() == {}


def test_from_python_it_is_a_call(nodes: Nodes, model: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    done = put(model, "m", cluster=nodes.file)
    assert (done.name, done.generation, done.files) == ("m", 1, 3)
    monkeypatch.setenv("SHARDFS_CLUSTER", str(nodes.file))
    assert put(str(model), "m").unchanged
    with pytest.raises(SourceError, match="nowhere: No such file"):  # as it is, not in a group
        put(model / "nowhere")
    with pytest.raises(Conflict, match="m/part: cannot exist beside the model m"):
        put(model, "m/part")


# -------------------------------------------------------------------------------------------------- bad questions


def fifo(path: Path) -> None:
    os.mkfifo(path / "pipe")


def outside(path: Path) -> None:
    (path / "leak").symlink_to("/etc/hostname")


def undecodable(path: Path) -> None:
    Path(os.fsdecode(os.fsencode(path) + b"/\xff")).touch()


@pytest.mark.parametrize(
    ("prepare", "args", "status", "message"),
    [
        (None, ["{src}/nowhere"], 1, "{src}/nowhere: No such file or directory"),
        (None, [""], 2, "not a path: ''"),
        (None, ["{src}", "a\\b"], 2, "model name 'a\\\\b' contains '\\\\', which is not allowed"),
        (None, ["{src}", "new\nline"], 2, "model name 'new\\nline' contains '\\n', which is not allowed"),
        (None, ["{src}", "m@3"], 2, "model name 'm@3' contains '@', which separates the generation"),
        (None, ["{src}", "x" * 256], 2, "has a part of more than 255 bytes"),
        (None, ["{src}", b"\xff"], 2, "model name '\\udcff' is not valid UTF-8"),
        (fifo, ["{src}"], 1, "{src}/pipe is a named pipe; only files and folders are published"),
        (outside, ["{src}"], 1, "{src}/leak -> /etc/hostname leads out of the source"),
        (undecodable, ["{src}"], 1, "file name '\\udcff' is not valid UTF-8"),
    ],
)
def test_each_bad_input_is_one_line_that_names_it(
    tmp_path: Path, prepare, args: list, status: int, message: str
) -> None:
    (tmp_path / "cluster.toml").write_text(
        "replicas = 1\n[[nodes]]\nid = 'a'\nurl = 'file://" + str(tmp_path / "node") + "'\n"
    )
    src = tmp_path / "src"
    src.mkdir()
    (src / "file").write_text("x")
    if prepare:
        prepare(src)
    filled = [arg if isinstance(arg, bytes) else arg.replace("{src}", str(src)) for arg in args]
    done = subprocess.run(
        [*SHARDFS, "put", "--cluster", tmp_path / "cluster.toml", "--", *filled],
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    assert (done.returncode, done.stdout) == (status, "")
    (line,) = done.stderr.splitlines()
    assert line.startswith("shardfs: ")
    assert message.replace("{src}", str(src)) in line
    assert not list((tmp_path / "node").glob("*/*"))


# ------------------------------------------------------------------------------------------------------- progress


def test_a_terminal_gets_a_bar(nodes: Nodes, big: Path) -> None:
    ours, theirs = pty.openpty()
    process = subprocess.Popen(
        nodes.command(big),
        stdout=subprocess.PIPE,
        stderr=theirs,
        text=True,
        env={**os.environ, "TERM": "xterm", "COLUMNS": "100"},
    )
    os.close(theirs)
    seen = b""
    try:
        while data := os.read(ours, 65536):
            seen += data
    except OSError:  # the other end is closed
        pass
    os.close(ours)
    stdout, _ = process.communicate(timeout=60)
    assert process.returncode == 0
    assert "━".encode() in seen
    assert b"0 %  0 B of 150 MiB" in seen
    assert b"100 %  150 MiB of 150 MiB" in seen
    assert stdout.startswith("name")


async def test_elsewhere_there_is_a_line_every_few_seconds(
    capsys: pytest.CaptureFixture[str], autojump_clock: trio.testing.MockClock
) -> None:
    tally = Tally(total=100 << 20)

    async def advance() -> None:
        for _ in range(10):
            await trio.sleep(1)
            tally.sent += 10 << 20
        tally.committing = True

    async with trio.open_nursery() as nursery:
        nursery.start_soon(show_progress, tally)
        await trio.sleep(0.5)
        await advance()
        await trio.sleep(2)
        nursery.cancel_scope.cancel()
    assert capsys.readouterr().err.splitlines() == [
        "40 %  40.0 MiB of 100 MiB  8.00 MiB/s  0:08 left",
        "90 %  90.0 MiB of 100 MiB  9.00 MiB/s  0:01 left",
        "100 %  100 MiB of 100 MiB",
    ]


async def test_a_failure_has_the_last_word(
    capsys: pytest.CaptureFixture[str], autojump_clock: trio.testing.MockClock
) -> None:
    with trio.move_on_after(1):
        await show_progress(Tally(total=1 << 20))
    assert capsys.readouterr().err == ""


def test_describe() -> None:
    tally = Tally(total=4 << 30, zero=1 << 30, sent=1 << 30, present=1 << 29)
    assert describe(tally, 1 << 27) == "50 %  1.50 GiB of 3.00 GiB  128 MiB/s  0:12 left"
    assert describe(tally, None) == "50 %  1.50 GiB of 3.00 GiB"
    tally.committing = True
    assert describe(tally, 1 << 27) == "50 %  1.50 GiB of 3.00 GiB  128 MiB/s  publishing"
    assert describe(Tally(), None) == "100 %  0 B of 0 B"


@pytest.mark.parametrize(
    ("seconds", "text"),
    [(0, "0:00"), (5.4, "0:05"), (59.6, "1:00"), (754, "12:34"), (3723, "1:02:03"), (1e6, "277:46:40")],
)
def test_clock(seconds: float, text: str) -> None:
    assert clock(seconds) == text


def test_a_hundred_percent_is_only_said_at_the_end() -> None:
    assert [percent(done, 1000) for done in (0, 9, 10, 999, 1000)] == [0, 0, 1, 99, 100]


def test_speed_is_that_of_the_last_seconds() -> None:
    speed = Speed()
    assert speed.sample(0.0, 0) is None
    for second in range(1, 100):
        now = speed.sample(float(second), second * 100)
    assert now == pytest.approx(100)
    for second in range(100, 200):
        now = speed.sample(float(second), 9900)
    assert now is None
    assert all(speed.sample(200.0 + n, 9900 + n * 7) for n in itertools.islice(itertools.count(1), 3))


def test_help_is_quick() -> None:
    """It must not import what only an upload needs."""
    script = "import sys, shardfs.cli.put; print([name for name in ('trio', 'rich', 'numpy') if name in sys.modules])"
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True, timeout=60)
    assert done.stdout == "[]\n"
