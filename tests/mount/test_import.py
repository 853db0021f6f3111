"""Imported models on a real mount: two folders that hold pointers, a third with the files, nodes dying in between."""

import mmap
import os
import random
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from shardfs.api.local import LocalCluster
from tests.mount.kit import MiB, Place, forget_pages, scratch, shardfs

pytestmark = pytest.mark.fuse
WEIGHTS = random.Random(9).randbytes(13 * MiB + 12345)


class Imported:
    """Nodes a, b, c that run, and `files`, a draining one, which owns nothing: a folder with other people's files."""

    def __init__(self, nodes: LocalCluster, folder: Path, top: Path) -> None:
        self.nodes = nodes
        self.file = folder / "llama" / "model.safetensors"
        self.file.parent.mkdir(parents=True)
        self.file.write_bytes(WEIGHTS)
        (self.file.parent / "config.json").write_text("{}\n")
        self.cluster_file = top / "with-files.toml"
        text = nodes.cluster_file.read_text()
        self.cluster_file.write_text(f'{text}\n[[nodes]]\nid = "files"\nurl = "file://{folder}"\nstate = "draining"\n')

    def run(self, *arguments: str | Path) -> Any:
        done = shardfs(*arguments, "--cluster", self.cluster_file)
        assert done.returncode == 0, done.stderr
        return done.stdout


@pytest.fixture
def imported(top: Path) -> Iterator[Imported]:
    with scratch() as folder, LocalCluster(folder / "cluster", nodes=3, replicas=2) as nodes:
        here = Imported(nodes, folder / "files", folder)
        here.run("import", "files", "llama")
        yield here


@pytest.fixture
def place(imported: Imported) -> Iterator[Place]:
    with scratch() as folder:
        here = Place(folder, imported.cluster_file)
        try:
            yield here
        finally:
            here.clean()


def test_read_map_and_lose_holders(imported: Imported, place: Place) -> None:
    place.mount("--no-cache", "--memory", "64MiB")
    file = place.path / "llama" / "model.safetensors"
    with file.open("rb", buffering=0) as opened:
        assert os.pread(opened.fileno(), 1000, 9 * MiB + 5) == WEIGHTS[9 * MiB + 5 : 9 * MiB + 1005]
        imported.nodes.kill("a")  # one of the pointers' copies
        assert opened.read() == WEIGHTS
        forget_pages(file)
        with mmap.mmap(opened.fileno(), 0, prot=mmap.PROT_READ) as mapped:
            for at in (len(WEIGHTS) - 1, 0, 5 * MiB, 4 * MiB - 1):
                assert mapped[at] == WEIGHTS[at]
    assert (place.path / "llama" / "config.json").read_text() == "{}\n"
    assert os.getxattr(file, "user.shardfs.generation") == b"1"


@pytest.mark.parametrize("change", ["other bytes", "shorter", "deleted"])
def test_a_changed_file_is_an_error_and_never_a_wrong_byte(imported: Imported, place: Place, change: str) -> None:
    place.mount("--no-cache", "--memory", "64MiB", "--read-timeout", "30")
    file = place.path / "llama" / "model.safetensors"
    match change:
        case "other bytes":
            imported.file.write_bytes(WEIGHTS[: 5 * MiB] + bytes(8 * MiB + 12345))
        case "shorter":
            os.truncate(imported.file, 5 * MiB)
        case "deleted":
            imported.file.unlink()
    said = "is gone since" if change == "deleted" else "was changed since"
    fd = os.open(file, os.O_RDONLY)
    try:
        if change != "deleted":
            assert os.pread(fd, 1000, 100) == WEIGHTS[100:1100], "what is still as it was can be read"
        with pytest.raises(OSError, match="Input/output error"):
            os.pread(fd, 1000, 9 * MiB)
    finally:
        os.close(fd)
    assert f"node files: llama/model.safetensors {said} it was imported" in place.log.read_text()


def test_after_an_upload_the_file_may_go(imported: Imported, place: Place) -> None:
    """Also under a mount that has followed the pointers before."""
    place.mount("--no-cache", "--memory", "64MiB")
    file = place.path / "llama" / "model.safetensors"
    fd = os.open(file, os.O_RDONLY)
    try:
        assert os.pread(fd, 10, 0) == WEIGHTS[:10]
        imported.run("put", imported.file.parent)
        imported.file.unlink()
        forget_pages(file)
        for at in range(0, len(WEIGHTS), MiB):
            assert os.pread(fd, MiB, at) == WEIGHTS[at : at + MiB]
    finally:
        os.close(fd)
