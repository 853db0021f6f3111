"""One shardfs node, one HDFS, one S3 bucket, two copies: each dies and comes back under one mount that is being read.

A program reads the whole model over and over. Nothing of it is on a disk of this machine, the kernel gives no byte from
its memory, and the daemon has memory for a sixth of it: so every pass fetches what the dead node owns from another one.
"""

import hashlib
import json
import os
import re
import select
import subprocess
import sys
import time
import urllib.request
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
import trio

from shardfs.config import load_cluster
from shardfs.core.cluster import Cluster
from shardfs.core.digest import Digest
from shardfs.core.keys import chunk_key
from shardfs.core.names import ModelName
from shardfs.core.placement import Placement
from shardfs.errors import StoreError
from shardfs.wiring.client import client
from shardfs.wiring.engines import open_store
from tests.engines.kit import Engine, Mixed
from tests.engines.test_clusters import weights

pytestmark = [
    pytest.mark.engines,
    pytest.mark.fuse,
    pytest.mark.skipif(not os.access("/dev/fuse", os.R_OK | os.W_OK), reason="left out: /dev/fuse cannot be opened"),
    pytest.mark.timeout(900),  # everything of an HDFS dies and is started again
]

MIB = 1024 * 1024
CHUNKS = 96
MODEL_BYTES = CHUNKS * MIB
SLOTS_MAX = 16
"""Chunks for which the daemon of `Mixed.mount` has memory: 64 MiB in slots of 4 MiB and a bit."""
PASSES = 2
"""Whole ones while a node is away, and after it has come back."""
PATIENCE_SECONDS = 60.0


class Passes:
    """`passes.py` at work. `seen` are the passes so far; all of them had the right bytes, or `next` has failed."""

    def __init__(self, path: Path, sha256: str) -> None:
        command = [sys.executable, str(Path(__file__).with_name("passes.py")), str(path)]
        self._process = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE)
        self._sha256 = sha256
        self._rest = b""
        self.when = "before anything was killed"

    def end(self) -> None:
        self._process.kill()
        self._process.communicate(timeout=PATIENCE_SECONDS)

    def _line(self) -> dict[str, Any]:
        assert self._process.stdout is not None
        end = time.monotonic() + PATIENCE_SECONDS
        while b"\n" not in self._rest:
            ready, _, _ = select.select([self._process.stdout], [], [], max(0.0, end - time.monotonic()))
            data = os.read(self._process.stdout.fileno(), 65536) if ready else b""
            assert data, f"{self.when}: the reader {'has ended' if ready else 'hangs'}"
            self._rest += data
        line, _, self._rest = self._rest.partition(b"\n")
        document = json.loads(line)
        if "half" not in document:
            right = (document["error"], document["size"], document["sha256"]) == (None, MODEL_BYTES, self._sha256)
            assert right, f"{self.when}: {document}"
        return document

    def pause_half_way(self) -> None:
        """Return when the reader stands in the middle of the file."""
        self._say()
        while "half" not in self._line():
            pass

    def go_on(self) -> None:
        self._say()

    def _say(self) -> None:
        assert self._process.stdin is not None
        self._process.stdin.write(b"\n")
        self._process.stdin.flush()

    def whole_ones(self, count: int) -> None:
        """Return when so many passes that began after this call have ended."""
        began = time.monotonic()
        while count:
            count -= self._line()["began"] > began


class World:
    """The cluster with the model on it. `owners` of each chunk, as the ids of two nodes."""

    def __init__(self, cluster: Mixed, engines: dict[str, Engine]) -> None:
        self.cluster = cluster
        self.engines = engines
        self.owners = trio.run(_owners, self._file())
        assert len(self.owners) == CHUNKS

    def _file(self) -> Cluster:
        return load_cluster(self.cluster.root / "cluster.toml")

    def owned_by(self, *nodes: str) -> int:
        """Chunks that all of these own."""
        return sum(set(nodes) <= owners for owners in self.owners.values())

    def answers(self, node: str) -> bool:
        """Whether a new client gets a chunk from the node that owns it."""
        chunk = next(chunk for chunk, owners in self.owners.items() if node in owners)

        async def ask() -> bool:
            store = open_store(self._file().node(node))
            try:
                with trio.fail_after(PATIENCE_SECONDS):
                    return await store.get(chunk_key(chunk), memoryview(bytearray(2 * MIB))) > MIB
            except StoreError:
                return False
            finally:
                await store.aclose()

        return trio.run(ask)

    def sent_by_near(self) -> int:
        """Bytes that the shardfs node has sent since it was started."""
        with urllib.request.urlopen(f"{self._file().node('near').url}/-/metrics", timeout=PATIENCE_SECONDS) as page:
            found = re.search(r"^shardfs_node_sent_bytes_total (\S+)$", page.read().decode(), re.MULTILINE)
        assert found is not None
        return int(float(found[1]))

    def kill(self, node: str, processes: tuple[str, ...]) -> None:
        """And see that they are dead."""
        if node == "near":
            self.cluster.kill_node()
            return
        for process in processes:
            self.engines[node].kill(process)
        alive = self.engines[node].running()
        assert not alive & set(processes)

    def bring_back(self, node: str) -> None:
        """And see that it delivers."""
        if node == "near":
            self.cluster.start_node()
        else:
            assert self.engines[node].start() == ""
        end = time.monotonic() + PATIENCE_SECONDS
        while not self.answers(node):
            assert time.monotonic() < end, f"{node} does not come back"
            time.sleep(0.2)


async def _owners(cluster: Cluster) -> dict[Digest, set[str]]:
    async with client(cluster) as (_, catalog):
        manifest = await catalog.manifest((await catalog.resolve(ModelName("big"))).manifest)
    placement = Placement(cluster)
    return {chunk: {node.id for node in placement.owners(chunk)} for chunk in manifest.chunk_lengths()}


@dataclass(frozen=True, slots=True)
class Fault:
    """Of `node` the `processes` die; then it `serves` on by itself or not. `last`: it is brought back afterwards."""

    what: str
    node: str
    processes: tuple[str, ...] = ()
    serves: bool = False
    last: bool = True


FAULTS = (
    Fault("the shardfs node", "near"),
    Fault("one DataNode", "hdfs", ("datanode1",), serves=True, last=False),
    Fault("all of HDFS", "hdfs", ("namenode", "datanode2")),
    Fault("the S3 object server", "s3", ("object",), last=False),
    Fault("all of S3", "s3", ("proxy",)),
    # With near away S3 has to deliver again: so each of the three is seen to be of use after it came back.
    Fault("the shardfs node again", "near"),
)


@pytest.fixture
def world(s3: Engine, hdfs: Engine, fresh: str, tmp_path: Path) -> Iterator[World]:
    with Mixed(tmp_path, {"hdfs": hdfs.at(fresh), "s3": s3.at(fresh)}) as cluster:
        (tmp_path / "model.bin").write_bytes(weights(MODEL_BYTES))
        put = cluster.run("put", tmp_path / "model.bin", "big")
        assert put["replaced_nodes"] == {}
        yield World(cluster, {"s3": s3, "hdfs": hdfs})
        assert s3.start() == hdfs.start() == ""


def test_bytes_stay_equal_while_each_dies_and_comes_back(world: World) -> None:
    for pair in (("near", "hdfs"), ("near", "s3"), ("hdfs", "s3")):
        assert world.owned_by(*pair) > SLOTS_MAX, "more than memory holds, so they have to come from the other one"
        assert all(map(world.answers, pair))
    mountpoint = world.cluster.mount()
    passes = Passes(mountpoint / "big", hashlib.sha256(weights(MODEL_BYTES)).hexdigest())
    try:
        passes.whole_ones(PASSES)
        for fault in FAULTS:
            strike(fault, world, passes)
            if fault.last:
                world.bring_back(fault.node)
                passes.when = f"after {fault.what} came back"
                passes.whole_ones(PASSES)
    finally:
        passes.end()
        world.cluster.umount(mountpoint)


def strike(fault: Fault, world: World, passes: Passes) -> None:
    """Kill in the middle of a pass, and have whole ones while the node is away, from before to after."""
    passes.when = f"when {fault.what} died"
    passes.pause_half_way()
    world.kill(fault.node, fault.processes)
    assert world.answers(fault.node) is fault.serves, "the fault hit"
    sent = 0 if fault.node == "near" else world.sent_by_near()
    passes.go_on()
    passes.whole_ones(PASSES)
    if fault.node != "near" and not fault.serves:
        alone = world.owned_by("near", fault.node) - SLOTS_MAX
        assert world.sent_by_near() - sent >= PASSES * alone * MIB, "what both own came from the other one"
    assert world.answers(fault.node) is fault.serves, "it was away all the time"
