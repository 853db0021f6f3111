"""Uploading with two copies, as the user sees it: the whole command, MiB/s of source. The source is in memory.

Limits: writing and syncing R copies on the same disk, and the wire's speed / R. Each run is a new cluster, since what
is there already is not sent again.
"""

import os
import shutil
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from bench import cases
from bench.context import Bench
from bench.measure import MIB, Case, fill
from bench.world import MODEL, NODES, REPLICAS, World
from shardfs.api.local import LocalCluster


def run(bench: Bench) -> None:
    world, figures, size = bench.world, bench.figures, bench.options.size
    done = bench.measure([cases.wire(world), write_copies(world), put(world)])
    figures.rate("put.wire", f"raw sockets / {REPLICAS} copies", [s * REPLICAS for s in done.series("wire")], size)
    figures.rate("put.disk", f"write and sync {REPLICAS} copies", done.series("write and sync"), size)
    pairs = zip(done.series("wire"), done.series("write and sync"), strict=False)
    figures.rate("put.limit", "the lower of these", [max(REPLICAS * a, b) for a, b in pairs], size)
    figures.rate("put.put", "shardfs put, 2 copies", done.series("put"), size, limit="put.limit")
    figures.rate("put.inner", "the same without starting Python", done.series("put", "inner"), size, limit="put.limit")


def write_copies(world: World) -> Case:
    """R copies of the model, written by one program and synced."""

    @contextmanager
    def scene() -> Iterator[cases.Timed]:
        fill([world.source])
        places = [world.place("copy") for _ in range(REPLICAS)]
        yield lambda: _copy(world.source, places)
        for place in places:
            place.unlink(missing_ok=True)

    return Case("write and sync", scene, memory_bytes=REPLICAS * world.size)


def _copy(source: Path, places: list[Path]) -> float:
    buffer = memoryview(bytearray(4 * MIB))
    started = time.monotonic()
    for place in places:
        with source.open("rb", buffering=0) as file, place.open("wb", buffering=0) as copy:
            while count := file.readinto(buffer):
                copy.write(buffer[:count])
            os.fsync(copy.fileno())
    return time.monotonic() - started


def put(world: World) -> Case:
    """`shardfs put` into an empty cluster."""

    @contextmanager
    def scene() -> Iterator[cases.Timed]:
        root = world.place("put")
        try:
            with LocalCluster(root, nodes=NODES, replicas=REPLICAS) as cluster:
                fill([world.source])
                yield lambda: _put(cluster, world)
        finally:
            shutil.rmtree(root, ignore_errors=True)

    return Case("put", scene, memory_bytes=REPLICAS * world.size + 256 * MIB)


def _put(cluster: LocalCluster, world: World) -> dict[str, float]:
    started = time.monotonic()
    report = cluster.put(world.source, MODEL)
    seconds = time.monotonic() - started
    if report["bytes_sent"] != world.size:
        raise RuntimeError(f"put sent {report['bytes_sent']} of {world.size} bytes")
    return {"seconds": seconds, "inner": float(report["seconds"])}
