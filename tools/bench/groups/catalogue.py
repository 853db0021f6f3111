"""Many models and a huge one: 10,000 models (`shardfs ls`, mounting, the first lookup, listing the mount), and the
first open of a model of 1 TiB, whose manifest names 262,144 chunks.

The many are written straight into the nodes' folders, as publishing would leave them; the huge one is all holes, so
that it is stored nowhere and reads as zeros. A mount ends a listing that takes too long, with what it has by then: on a
busy machine the mount is listed again until all is there, and the report says how often.

As root the nodes keep all of it in memory: to remove 60,000 small files from a disk takes longer than everything that
is measured.
"""

import os
import shutil
import subprocess
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import trio

from bench import cases
from bench.child import elapsed, reader, run_reader
from bench.context import Bench
from bench.groups.daemon import memory_mib
from bench.measure import MIB, Case
from bench.world import World
from shardfs.api.local import LocalCluster
from shardfs.config import load_cluster
from shardfs.core.chunk import CHUNK_SIZE
from shardfs.core.digest import DIGEST_BYTES, digest_of
from shardfs.core.keys import ObjectKey, RefName, manifest_key
from shardfs.core.manifest import Manifest, make_manifest
from shardfs.core.ref import encode_ref
from shardfs.wiring.client import client

MODELS, MODELS_QUICK = 10_000, 300
HUGE, HUGE_BYTES = "huge.bin", 2**40
NODES, REPLICAS = 3, 2
LISTINGS_MAX = 20


def run(bench: Bench) -> None:
    world, figures = bench.world, bench.figures
    count = MODELS_QUICK if bench.options.quick else MODELS
    with in_memory(world.place("catalogue")) as root:
        bench.say(f"  writing {count} models")
        for node in ("a", "b", "c")[:NODES]:
            write_models(root / node, count)
        with LocalCluster(root, nodes=NODES, replicas=REPLICAS) as cluster:
            trio.run(publish_huge, cluster.cluster_file)
            done = bench.measure([ls(cluster, count), browse(world, cluster, count), huge(world, cluster)])
    many = f"{count} models"
    figures.seconds("catalogue.ls", f"shardfs ls, {many}", done.series("ls"))
    figures.seconds("catalogue.mount", f"mounting, {many}", done.series("browse", "mount"))
    figures.latency("catalogue.lookup", f"first lookup of a model, {many}", done.series("browse", "lookup"))
    figures.seconds("catalogue.list", f"listing the mount, {many}", done.series("browse", "list"))
    listings = done.series("browse", "listings")
    figures.add("catalogue.listings", "listings until all were there", "", listings, better="lower")
    figures.latency("catalogue.huge", "first open and byte of a model of 1 TiB", done.series("huge", "first"))
    figures.latency("catalogue.huge_again", "the same again", done.series("huge", "again"))
    figures.add("catalogue.huge_memory", "daemon's peak memory then", "MiB", done.series("huge", "MiB"), better="lower")


@contextmanager
def in_memory(root: Path) -> Iterator[Path]:
    """An empty folder; of memory where we may mount one."""
    root.mkdir()
    mounted = os.geteuid() == 0
    if mounted:
        subprocess.run(["mount", "-t", "tmpfs", "-o", "mode=755,size=2g", "none", str(root)], check=True)
    try:
        yield root
    finally:
        if mounted:
            subprocess.run(["umount", "--lazy", str(root)], check=True)  # whoever looks at it just now may go on
        shutil.rmtree(root, ignore_errors=True)


def write_models(data: Path, count: int) -> None:
    """Manifests and refs of `count` models of one file each, all different."""
    for number in range(count):
        content = holes(4096 + number)
        encoded = content.encode()
        ref = RefName(f"model-{number:05d}", 1, digest_of(encoded))
        write_object(data, manifest_key(ref.manifest), encoded)
        write_object(data, ref.key, encode_ref(ref))


def write_object(data: Path, key: ObjectKey, content: bytes) -> None:
    path = data / key
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(content)


def holes(size: int) -> Manifest:
    """A model of one file that reads as zeros."""
    digests = bytes(DIGEST_BYTES * -(-size // CHUNK_SIZE))
    return make_manifest([("", size, False)], digests, created=1_700_000_000, single=True)


async def publish_huge(cluster_file: Path) -> None:
    async with client(load_cluster(cluster_file)) as (_, catalog):
        await catalog.publish(HUGE, holes(HUGE_BYTES))


def ls(cluster: LocalCluster, count: int) -> Case:
    """The whole command."""

    def timed() -> float:
        started = time.monotonic()
        done = cluster.run("ls", "model-", "--json")
        if done.returncode or done.stdout.count("model-") < count:
            raise RuntimeError(f"ls: {done.stderr.strip() or 'models are missing'}")
        return time.monotonic() - started

    @contextmanager
    def scene() -> Iterator[cases.Timed]:
        yield timed

    return Case("ls", scene, memory_bytes=64 * MIB)


def browse(world: World, cluster: LocalCluster, count: int) -> Case:
    """Mount, look one model up, list all."""

    @contextmanager
    def scene() -> Iterator[cases.Timed]:
        started = time.monotonic()
        with world.mount(*cases.NO_CACHE, cluster=cluster) as mount:
            seconds = time.monotonic() - started
            with reader("stat", mount.path / f"model-{count // 2:05d}") as lookup:
                yield lambda: {
                    "mount": seconds,
                    "lookup": run_reader(lookup, 4096 + count // 2),
                    **listed(mount.path, count + 1),
                }

    return Case("browse", scene, memory_bytes=128 * MIB)


def listed(place: Path, count: int) -> dict[str, float]:
    """Seconds until a listing has had all `count` models, and how many listings that took. RuntimeError."""
    seconds, last = 0.0, 0
    for number in range(1, LISTINGS_MAX + 1):
        with reader("list", place) as child:
            child.go()
            answer = child.answer()
        seconds += elapsed(answer)
        if (last := int(answer["bytes"])) == count:
            return {"list": seconds, "listings": number}
    raise RuntimeError(f"{LISTINGS_MAX} listings, and the last had {last} of {count} models")


def huge(world: World, cluster: LocalCluster) -> Case:
    @contextmanager
    def scene() -> Iterator[cases.Timed]:
        with world.mount(*cases.NO_CACHE, cluster=cluster) as mount:
            path = mount.path / HUGE
            with reader("first", path) as first, reader("first", path) as again:
                yield lambda: {
                    "first": run_reader(first, 1),
                    "again": run_reader(again, 1),
                    "MiB": memory_mib(mount.pid, "VmHWM"),
                }

    return Case("huge", scene, memory_bytes=128 * MIB)
