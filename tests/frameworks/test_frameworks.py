"""Unmodified frameworks read real models from a real mount and get exactly what a local disk gives them.

`samples` says what is written, `checks` and `tools` what must hold. A case whose libraries are not
installed is skipped and says which one is missing; `pip install shardfs[frameworks]` brings them all.
"""

import json
import signal
import socket
import subprocess
import sys
import time
import tomllib
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from urllib.parse import urlsplit

import pytest

from shardfs.api.local import LocalCluster
from tests.frameworks import checks, samples, tools
from tests.frameworks.load_llama import fingerprint

pytestmark = [pytest.mark.frameworks, pytest.mark.fuse]

Mounted = Callable[[Path, str], Path]

LOAD_LLAMA = Path(__file__).with_name("load_llama.py")
LOAD_SECONDS_MAX = 100.0


@dataclass(frozen=True, slots=True)
class Case:
    """One kind of model: the name it is published under, how it is made, what must hold, what it needs."""

    name: str
    make: Callable[[Path], Path]
    check: Callable[[Path, Path], None]
    needs: tuple[str, ...]


CASES = (
    Case("bert", samples.make_bert, checks.check_bert, ("torch", "transformers")),
    Case("resnet", samples.make_resnet, checks.check_resnet, ("torch", "transformers")),
    Case("llama", samples.make_llama, checks.check_llama, ("torch", "transformers")),
    Case("team/weights.pt", samples.make_torch_file, checks.check_torch_file, ("torch",)),
    Case("pickled", samples.make_pickle, checks.check_pickle, ("numpy",)),
    Case("tensors", samples.make_safetensors, checks.check_safetensors, ("torch", "safetensors")),
    Case("arrays", samples.make_numpy, checks.check_numpy, ("numpy",)),
    Case("gguf", samples.make_gguf, checks.check_gguf, ("gguf",)),
    Case("onnx", samples.make_onnx, checks.check_onnx, ("onnx", "onnxruntime")),
    Case("data/train", samples.make_dataset, checks.check_dataset, ("numpy",)),
    Case("forked", samples.make_shared_file, checks.check_forked_readers, ("numpy",)),
)


def _need(*libraries: str) -> None:
    for library in libraries:
        pytest.importorskip(library, reason=f"left out: {library} is not installed (shardfs[frameworks] brings it)")


@pytest.mark.parametrize("case", CASES, ids=lambda case: case.name)
def test_reads_as_from_a_local_disk(case: Case, mounted: Mounted, tmp_path: Path) -> None:
    """The library loads the mounted model and everything it gives equals the local model's."""
    _need(*case.needs)
    local = case.make(tmp_path)
    case.check(local, mounted(local, case.name))


@pytest.fixture(scope="module")
def tree(mounted: Mounted, tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path]:
    """A folder with depth and odd names: the local original and the mounted copy."""
    local = samples.make_tree(tmp_path_factory.mktemp("tree"))
    return local, mounted(local, "tree")


def test_copies_are_whole(tree: tuple[Path, Path], tmp_path: Path) -> None:
    """Copying out with Python and with `cp` gives the published bytes and names."""
    tools.check_copies(*tree, tmp_path)


def test_commands_see_the_same_folder(tree: tuple[Path, Path]) -> None:
    """`find`, `sha256sum` and `grep` cannot tell the mount from the original."""
    tools.check_commands(*tree)


def test_tar_packs_the_same_files(tree: tuple[Path, Path]) -> None:
    """`tar` of the mounted folder holds the published files."""
    tools.check_tar(*tree)


def _answers(cluster: LocalCluster, node_id: str) -> bool:
    nodes = tomllib.loads(Path(cluster.cluster_file).read_text())["nodes"]
    address = urlsplit(next(node["url"] for node in nodes if node["id"] == node_id))
    assert address.hostname is not None
    with socket.socket() as probe:
        probe.settimeout(5.0)
        return probe.connect_ex((address.hostname, address.port)) == 0


def _wait_until_mapped(loader: "subprocess.Popen[str]", folder: Path) -> None:
    """Returns once the process has a shard of `folder` in its memory map: the load is under way."""
    while str(folder / "model-") not in Path(f"/proc/{loader.pid}/maps").read_text():
        assert loader.poll() is None, "the loader ended before it was seen to load"
        time.sleep(0.001)


def _load_while_killing(cluster: LocalCluster, victim: str, folder: Path) -> tuple[float, float, str]:
    """Kills a node under a load, restarts it after; returns (time of the kill, end of the load, digest)."""
    loader = subprocess.Popen([sys.executable, LOAD_LLAMA, folder], stdout=subprocess.PIPE, text=True)
    with loader:
        try:
            assert loader.stdout is not None
            assert loader.stdout.readline() == "loading\n"
            _wait_until_mapped(loader, folder)
            loader.send_signal(signal.SIGSTOP)  # a fast load must not be over before the node is dead
            cluster.kill(victim)
            killed = time.monotonic()
            assert not _answers(cluster, victim)
            loader.send_signal(signal.SIGCONT)
            printed, _ = loader.communicate(timeout=LOAD_SECONDS_MAX)
            assert loader.returncode == 0
            assert not _answers(cluster, victim), "the node must have been dead until the load had ended"
        finally:
            loader.kill()
            cluster.start(victim)
    assert _answers(cluster, victim)
    report = json.loads(printed)
    return killed, report["ended"], report["digest"]


def test_load_survives_the_death_of_a_node(cluster: LocalCluster, mounted: Mounted, tmp_path: Path) -> None:
    """A node killed in the middle of `from_pretrained` changes nothing, and serves again once restarted.

    The bytes are new, so no cache has them. The kill comes when the loader has mapped the first shard, and
    before it has read all weights. That the node was dead for the rest of the load is seen from outside: its
    port refuses connections right after the kill, and still does when the load has ended. Then the node is
    restarted and another one dies: of the chunks of the second model that only these two own, the restarted
    node has the last copy.
    """
    _need("torch", "transformers")
    from transformers import LlamaForCausalLM

    first, second, *_ = cluster.node_ids
    for seed, victim in ((101, first), (102, second)):
        folder = tmp_path / str(seed)
        folder.mkdir()
        local = samples.make_llama(folder, seed, layers=10)
        killed, ended, digest = _load_while_killing(cluster, victim, mounted(local, f"llama-{seed}"))
        assert killed < ended, "the load was over before the node was dead"
        assert digest == fingerprint(LlamaForCausalLM.from_pretrained(local).eval())
