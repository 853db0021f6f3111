"""Engines that people already run as the cluster's only node, with one copy: S3 (Swift's) and HDFS, by `tools/engines`.

Whole reads through a cold mount with memory only, beside the same objects read without a mount by the same library with
as many requests at once, and beside s3fs on the same endpoint and bytes. The engines have everything in memory; they
share the cores with who reads, and are the slower half of it. The model has 256 MiB at most.

First byte of a store 50 ms away: a proxy in front of S3 makes every answer, and every new connection, 50 ms later; its
rate is not limited. The budget is two round trips and one block, measured by the same path over an open connection: a
raw request for one byte, then one for a chunk's header and first block. Values are the medians of one round.
"""

import shutil
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path

import trio

from bench import cases
from bench.child import program, reader, run_reader
from bench.context import Bench
from bench.elsewhere import Endpoint, s3fs_on
from bench.engine import Engine, cluster_text, on_each
from bench.measure import MIB, Case, middle
from bench.plan import StoredChunk, stored_model
from bench.rivals import Rival, find, running
from bench.signed import Bucket
from bench.world import MODEL, World
from shardfs.core.keys import ref_prefix

SIZE_MAX = 256 * MIB
LATENCY_SECONDS = 0.050
FAR_BYTES = 4 * MIB
SAMPLES, SAMPLES_QUICK = 5, 2
FAR = {
    "seen": "first byte, model just looked at",
    "aged": "first byte, model looked at seconds ago",
    "unseen": "first byte, model never looked at",
}


def run(bench: Bench) -> None:
    size = min(bench.options.size, SIZE_MAX)

    def put_and(measure: Callable[[Bench, Engine, int], None]) -> Callable[[Engine], None]:
        def both(there: Engine) -> None:
            bench.say(f"  {there.name}: put {size // MIB} MiB")
            there.cluster.put(source(bench.world, size), MODEL)
            measure(bench, there, size)

        return both

    on_each(bench, {"s3": put_and(s3), "hdfs": put_and(hdfs)})


def source(world: World, size: int) -> Path:
    """The model of this group; the world's own where that is no larger."""
    if size == world.size:
        return world.source
    path = world.work / f"engines-{size // MIB}.safetensors"
    return path if path.exists() else world.write_model(path, size, seed=2)


# ------------------------------------------------------------------------------------------------------ whole reads


def s3(bench: Bench, s3: Engine, size: int) -> None:
    world, figures = bench.world, bench.figures
    rounds = [direct(s3, "sockets"), direct(s3, "store"), mounted(world, s3, size)]
    if find("s3fs"):
        rounds.append(by_s3fs(world, s3, s3fs_on(Endpoint.holding(s3, source(world, size))), size))
    else:
        bench.note("s3fs: left out, not installed")
    done = bench.measure(rounds)
    figures.rate("engines.s3fs", "s3fs on the same endpoint", done.series("s3fs"), size)
    # How far any client can be ahead of s3fs here: the endpoint has the same cores, and may be what limits both.
    figures.rate("engines.s3_sockets", "S3, raw signed requests", done.series("sockets"), size, limit="engines.s3fs")
    figures.rate("engines.s3_library", "S3, the mount's client, no mount", done.series("store"), size)
    ours = done.series("mount")
    figures.rate("engines.s3", "S3 through the mount", ours, size, limit="engines.s3_library")
    figures.rate("engines.s3_beside", "S3 through the mount, beside s3fs", ours, size, limit="engines.s3fs")
    far(bench, s3)


def hdfs(bench: Bench, hdfs: Engine, size: int) -> None:
    figures = bench.figures
    done = bench.measure([direct(hdfs, "library"), direct(hdfs, "store"), mounted(bench.world, hdfs, size)])
    library = "engines.hdfs_library"
    figures.rate(library, "HDFS, hdfs-native in threads", done.series("library"), size)
    figures.rate("engines.hdfs_store", "HDFS, the mount's client, no mount", done.series("store"), size, limit=library)
    figures.rate("engines.hdfs", "HDFS through the mount", done.series("mount"), size, limit=library)


def warmed(engine: Engine, case: Case) -> Case:
    """The case, once the engine has in memory all that it stores."""

    @contextmanager
    def scene() -> Iterator[cases.Timed]:
        engine.warm()
        with case.scene() as timed:
            yield timed

    return replace(case, scene=scene)


def mounted(world: World, engine: Engine, size: int) -> Case:
    case = cases.cold(world, "mount", *cases.NO_CACHE, cluster=engine.cluster, size=size, model=MODEL)
    return warmed(engine, case)


def direct(engine: Engine, how: str) -> Case:
    """The model's objects by `bench.programs.objects`."""

    @contextmanager
    def scene() -> Iterator[cases.Timed]:
        with program("objects", how, engine.cluster.cluster_file, MODEL) as child:
            child.ready()
            yield lambda: run_reader(child)

    return warmed(engine, Case(how, scene, memory_bytes=128 * MIB))


def by_s3fs(world: World, s3: Engine, rival: Rival, size: int) -> Case:
    @contextmanager
    def scene() -> Iterator[cases.Timed]:
        cache = world.place("rival-cache")
        try:
            with running(world, rival, cache) as mount, reader("read", mount.path) as child:
                yield lambda: run_reader(child, size)
        finally:
            shutil.rmtree(cache, ignore_errors=True)

    return warmed(s3, Case(rival.name, scene, memory_bytes=2 * size + cases.MEMORY_BYTES))


# ------------------------------------------------------------------------------------------------------- first byte


def far(bench: Bench, s3: Engine) -> None:
    figures = bench.figures
    count = SAMPLES_QUICK if bench.options.quick else SAMPLES
    blocks = publish_models(bench, s3, count)
    done = bench.measure([warmed(s3, first_bytes(bench.world, s3, blocks, count))])
    trips, parts = done.series("far", "trip"), done.series("far", "block")
    figures.latency("engines.far_trip", "50 ms away: raw request for a byte", trips)
    figures.latency("engines.far_list", "50 ms away: raw request for a model's names", done.series("far", "list"))
    figures.latency("engines.far_pair", "50 ms away: both at once", done.series("far", "pair"))
    figures.latency("engines.far_block", "50 ms away: raw request for a block", parts)
    budget = "engines.far_budget"
    figures.latency(budget, "50 ms away: 2 round trips + one block", [a + b for a, b in zip(trips, parts, strict=True)])
    for name, what in FAR.items():
        figures.latency(f"engines.far_{name}", f"50 ms away: {what}", done.series("far", name), limit=budget)


def publish_models(bench: Bench, s3: Engine, count: int) -> list[StoredChunk]:
    """Models of one chunk each, `count` for each kind of first byte; their chunks, by number of the model."""
    world = bench.world
    bench.say(f"  put {count * len(FAR)} models of one chunk")
    found = []
    for number in range(count * len(FAR)):
        path = world.write_model(world.work / "one.safetensors", FAR_BYTES, seed=2000 + number)
        s3.cluster.put(path, far_model(number))
        (chunk,) = trio.run(stored_model, s3.cluster.cluster_file, far_model(number)).chunks
        found.append(chunk)
    return found


def far_model(number: int) -> str:
    return f"far-{number:03d}.safetensors"


def first_bytes(world: World, s3: Engine, chunks: list[StoredChunk], count: int) -> Case:
    port = Bucket.of(s3.url).port

    @contextmanager
    def scene() -> Iterator[cases.Timed]:
        with program("slowproxy", port, "inf", LATENCY_SECONDS, "far") as proxy:
            url = s3.url.replace(f":{port}", f":{int(proxy.line())}")
            cluster_file = world.place("cluster").with_suffix(".toml")
            cluster_file.write_text(cluster_text(url))
            with world.mount(*cases.NO_CACHE, "--cluster", cluster_file, cluster=s3.cluster) as mount:
                samples = []
                for number in range(count):
                    names = {name: str(mount.path / far_model(number + at * count)) for at, name in enumerate(FAR)}
                    chunk = chunks[number]
                    block = [chunk.target[1:], chunk.block(0, with_header=True)[1]]
                    samples.append({**names, "block": block, "refs": ref_prefix(far_model(number))})
                with program("far", world.plan_file({"url": url, "samples": samples})) as child:
                    child.ready()

                    def timed() -> dict[str, float]:
                        child.go()
                        return {name: middle(values) for name, values in child.answer().items()}

                    yield timed

    return Case("far", scene, memory_bytes=128 * MIB)
