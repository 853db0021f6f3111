"""What the groups measure: one source file, one cluster of three nodes that holds it twice, and mounts of it.

Made when first needed, and healed before each group: a node that a group killed or stopped is back for the next one.
All of it lies in one work folder on a real disk, which is removed at the end.
"""

import itertools
import json
import os
import shutil
import struct
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

import numpy as np
import trio

from bench.measure import MIB, files_below, fill, resident
from bench.plan import Stored, stored_model
from shardfs.api.local import LocalCluster

TENSOR_BYTES = 32 * MIB
FILLED_SECONDS = 120.0
RESIDENT_ENOUGH = 0.99
NODES, REPLICAS = 3, 2
MODEL = "bench.safetensors"


@dataclass(frozen=True, slots=True)
class Mount:
    """A running mount of the cluster. `passthrough`: it says that it hands whole cached files to the kernel."""

    path: Path
    pid: int
    cache: Path | None
    log: Path
    passthrough: bool

    @property
    def model(self) -> Path:
        return self.path / MODEL


class World:
    """`size`: bytes of the model. Changing: what has been started; used by one thread."""

    def __init__(self, work: Path, size: int, say: Callable[[str], None]) -> None:
        self.work = work
        self.size = size
        self.say = say
        self._stack = ExitStack()
        self._numbers = itertools.count(1)

    def close(self) -> None:
        self._stack.close()

    def heal(self) -> None:
        """Have all nodes of the shared cluster running."""
        if "cluster" not in self.__dict__:
            return
        for node in self.cluster.node_ids:
            if self.cluster.running(node):
                self.cluster.resume(node)
            else:
                with suppress(KeyError):
                    self.cluster.stop(node)
                self.cluster.start(node)

    def place(self, name: str) -> Path:
        """A path in the work folder that nobody else has."""
        return self.work / f"{name}-{next(self._numbers)}"

    # ------------------------------------------------------------------------------------------------- the content

    @cached_property
    def source(self) -> Path:
        """The model as a file on the local disk."""
        return self.write_model(self.work / MODEL, self.size, seed=1)

    def write_model(self, path: Path, size: int, *, seed: int) -> Path:
        """A safetensors file of exactly `size` bytes of random content, in tensors of 32 MiB."""
        self.say(f"  writing {path.name}: {size // MIB} MiB")
        chance = np.random.default_rng(seed)
        with path.open("wb") as file:
            file.write(safetensors_head(size))
            while (left := size - file.tell()) > 0:
                file.write(chance.bytes(min(left, 8 * MIB)))
            file.flush()
            os.fsync(file.fileno())
        return path

    # ------------------------------------------------------------------------------------------------- the cluster

    @cached_property
    def cluster(self) -> LocalCluster:
        return self._stack.enter_context(LocalCluster(self.work / "cluster", nodes=NODES, replicas=REPLICAS))

    @cached_property
    def stored(self) -> Stored:
        """The model on the cluster: published, its chunks known."""
        return self.publish(self.cluster, self.source, MODEL)

    def publish(self, cluster: LocalCluster, source: Path, name: str) -> Stored:
        self.say(f"  put {source.name} on {len(cluster.node_ids)} nodes, {cluster.replicas} copies")
        cluster.put(source, name)
        return trio.run(stored_model, cluster.cluster_file, name)

    @contextmanager
    def mount(
        self, *options: str | Path, cluster: LocalCluster | None = None, cache: Path | None = None, keep: bool = False
    ) -> Iterator[Mount]:
        """A new mount: with its own new disk cache, unless `cache` names one or --no-cache is among the options.

        The cache is removed afterwards unless it was named or `keep` says so.
        """
        cluster = cluster or self.cluster
        warm_nodes(cluster)
        place = self.place("mount")
        folder = None if "--no-cache" in options else cache or self.place("cache")
        extra = ["--cache", str(folder), "--cache-size", str(2 * self.size + 256 * MIB)] if folder else []
        report = cluster.mount(place, *map(str, options), *extra)
        try:
            yield Mount(place, int(report["pid"]), folder, cluster.log(place.name), bool(report["passthrough"]))
        finally:
            cluster.umount(place)
            with suppress(OSError):
                place.rmdir()
            if folder is not None and cache is None and not keep:
                shutil.rmtree(folder, ignore_errors=True)

    def plan_file(self, content: object) -> Path:
        """The JSON of a helper program's plan."""
        path = self.place("plan").with_suffix(".json")
        path.write_text(json.dumps(content))
        return path


def warm_nodes(cluster: LocalCluster) -> None:
    """Have all chunks of the cluster in the nodes' memory: their disk is this disk, and not what is measured."""
    for node in cluster.node_ids:
        fill([path for path in files_below(cluster.data(node) / "chunks") if resident(path) < RESIDENT_ENOUGH])


def wait_cached(path: Path, size: int) -> None:
    """Wait until the file at `path` on a mount is in its disk cache entirely. TimeoutError."""
    deadline = time.monotonic() + FILLED_SECONDS
    while int(os.getxattr(path, "user.shardfs.cached")) < size:
        if time.monotonic() > deadline:
            raise TimeoutError(f"{path.name}: not in the disk cache after {FILLED_SECONDS:.0f} s")
        time.sleep(0.05)


def safetensors_head(size: int) -> bytes:
    """Length and header of a safetensors file that has `size` bytes in all; tensors of bytes fill the rest."""
    length = 8192 + size // TENSOR_BYTES * 96
    left = size - 8 - length
    if left <= 0:
        raise ValueError(f"{size} bytes are too few for a model")
    tensors = {}
    for number, start in enumerate(range(0, left, TENSOR_BYTES)):
        end = min(left, start + TENSOR_BYTES)
        tensors[f"layer.{number:05d}"] = {"dtype": "U8", "shape": [end - start], "data_offsets": [start, end]}
    header = json.dumps(tensors).encode()
    return struct.pack("<Q", length) + header.ljust(length)
