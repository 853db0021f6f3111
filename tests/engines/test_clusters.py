"""Clusters with real engines in them, through the commands and a mount, with servers dying in the middle of a read."""

import hashlib
import os
import random
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.engines.kit import Engine, Mixed

pytestmark = [
    pytest.mark.engines,
    pytest.mark.fuse,
    pytest.mark.skipif(not os.access("/dev/fuse", os.R_OK | os.W_OK), reason="left out: /dev/fuse cannot be opened"),
]

MIB = 1024 * 1024
MODEL_BYTES = 48 * MIB
KILL_AT_BYTES = 12 * MIB
"""Beyond the 8 MiB that the mount reads ahead with its memory of 64 MiB, and far before the end."""


def weights(size: int) -> bytes:
    return random.Random(size).randbytes(size)


@pytest.mark.parametrize("engine", ["s3", "hdfs", "webhdfs", "nginx"], indirect=True)
def test_an_engine_alone(engine: Engine, fresh: str, tmp_path: Path) -> None:
    """put, ls, info, get, versions, mount and rm, with nothing but the engine."""
    source = tmp_path / "llama"
    (source / "deep").mkdir(parents=True)
    (source / "weights.bin").write_bytes(weights(3 * MIB + 17))
    (source / "deep" / "config.json").write_text("{}")
    cluster = Mixed(tmp_path / "cluster", {})
    cluster.root.mkdir()
    (cluster.root / "cluster.toml").write_text(f'replicas = 1\n[[nodes]]\nid = "far"\nurl = "{engine.at(fresh)}"\n')
    put = cluster.run("put", source, "team/llama")
    assert put["generation"] == 1
    assert cluster.run("put", source, "team/llama")["bytes_sent"] == 0
    (source / "deep" / "config.json").write_text('{"more": 1}')
    assert cluster.run("put", source, "team/llama")["generation"] == 2
    cluster.run("get", "team/llama@1", tmp_path / "first")
    assert (tmp_path / "first" / "weights.bin").read_bytes() == weights(3 * MIB + 17)
    mountpoint = cluster.mount()
    try:
        shown = mountpoint / "team" / "llama"
        assert (shown / "weights.bin").read_bytes() == weights(3 * MIB + 17)
        assert (shown / "deep" / "config.json").read_text() == '{"more": 1}'
        assert (mountpoint / "team" / "llama@1" / "deep" / "config.json").read_text() == "{}"
    finally:
        cluster.umount(mountpoint)
    cluster.run("rm", "team/llama")
    assert cluster.run("ls")["models"] == []


@pytest.fixture(scope="module")
def mixed(s3: Engine, hdfs: Engine, nginx: Engine, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Mixed]:
    """One shardfs node, one HDFS, one S3 bucket and one nginx; two copies of each chunk."""
    name = f"mixed-{os.getpid()}"
    root = tmp_path_factory.mktemp("mixed")
    urls = {engine.name: engine.at(name) for engine in (hdfs, s3, nginx)}
    with pytest.MonkeyPatch.context() as patch:
        for key, value in s3.about["environment"].items():
            patch.setenv(key, value)
        with Mixed(root, urls) as cluster:
            (root / "model.bin").write_bytes(weights(MODEL_BYTES))
            cluster.run("put", root / "model.bin", "big")
            yield cluster


VICTIMS = {
    # the server that dies, and the node that is then without it; None: the node's other servers go on
    "shardfs node": (None, "", "near"),
    "NameNode": ("hdfs", "namenode", "hdfs"),
    "DataNode": ("hdfs", "datanode1", None),
    "S3 object server": ("s3", "object", None),
    "S3 proxy": ("s3", "proxy", "s3"),
    "nginx": ("nginx", "nginx", "nginx"),
}


@pytest.mark.parametrize("victim", VICTIMS)
def test_a_server_dies_in_the_middle_of_a_read(victim: str, mixed: Mixed, request: pytest.FixtureRequest) -> None:
    """Bytes equal, no error, whichever it is; and the one that came back is used again."""
    name, process, node = VICTIMS[victim]
    engine = request.getfixturevalue(name) if name else None
    mountpoint = mixed.mount(f"m-{victim.replace(' ', '-')}")
    try:
        got = hashlib.sha256()
        with (mountpoint / "big").open("rb", buffering=0) as file:
            while data := file.read(MIB):
                got.update(data)
                if file.tell() == KILL_AT_BYTES:
                    engine.kill(process) if engine else mixed.kill_node()
        assert got.hexdigest() == hashlib.sha256(weights(MODEL_BYTES)).hexdigest()
        if node:
            states = {row["id"]: row for row in mixed.run("status")["nodes"]}
            assert states[node]["health"] == "down", "the fault hit"
    finally:
        mixed.umount(mountpoint)
        if engine:
            assert engine.start() == ""
        else:
            mixed.start_node()
