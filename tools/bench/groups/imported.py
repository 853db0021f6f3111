"""Models that lie on an engine already: reading one that `shardfs import` has published, and the import itself.

Whole reads through a cold mount with memory only, of one object of somebody else's (the chunks are pointers into it),
beside a model of the same size that was put on the same engine. The import, by its own clock and into a place that is
new each time, is compared with reading the same spans of the same object by the same client, as many at once: what is
above that are one BLAKE3 of each byte, the storing of pointers, and what any publish takes on such an engine, on HDFS
a second, which counts for much with small models: run it with 1 GiB, the most it takes. The engines have everything in
memory.
"""

import itertools
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

from bench import cases
from bench.child import program, run_reader
from bench.context import Bench
from bench.engine import NODE, Engine, cluster_text, on_each
from bench.groups.engines import source, warmed
from bench.measure import GIB, MIB, Case
from bench.signed import Bucket
from bench.world import MODEL, World
from shardfs.admin.upload import UploadOptions
from shardfs.config import load_cluster
from shardfs.core.location import parse_hdfs, parse_s3
from shardfs.core.ranges import chunk_count
from shardfs.store.hdfs_clients import client as hdfs_client

FOREIGN = "plain/foreign.safetensors"
"""The object that is imported, from the root of the engine."""
IMPORTED = "imported.safetensors"
SIZE_MAX = GIB
PIECE_BYTES = 8 * MIB


def run(bench: Bench) -> None:
    size = min(bench.options.size, SIZE_MAX)
    foreign = bench.world.write_model(bench.world.work / "foreign.safetensors", size, seed=3)
    on_each(
        bench,
        {
            "s3": lambda there: measure(bench, there, size, lambda: write_s3(there, foreign)),
            "hdfs": lambda there: measure(bench, there, size, lambda: write_hdfs(there, foreign)),
        },
    )


def measure(bench: Bench, there: Engine, size: int, write: Callable[[], None]) -> None:
    world, figures, name, shown = bench.world, bench.figures, there.name, there.name.upper()
    bench.say(f"  {name}: put {size // MIB} MiB, and import as many")
    there.cluster.put(source(world, size), MODEL)
    write()
    import_all(there, there.cluster.cluster_file, size)
    reads = [read(world, there, "put", MODEL, size), read(world, there, "imported", IMPORTED, size)]
    done = bench.measure([*reads, plain(there, size), importing(world, there, size)])
    limit = f"imported.{name}_put"
    figures.rate(limit, f"{shown} through the mount, put there", done.series("put"), size)
    figures.rate(f"imported.{name}", f"{shown} through the mount, imported", done.series("imported"), size, limit=limit)
    per_gib = GIB / size
    limit = f"imported.{name}_plain"
    figures.seconds(limit, f"{shown}: reading 1 GiB of the object", [s * per_gib for s in done.series("plain")])
    times = [s * per_gib for s in done.series("import")]
    figures.seconds(f"imported.{name}_import", f"{shown}: importing 1 GiB", times, limit=limit)


# ---------------------------------------------------------------------------------------------------------- the object


def write_s3(there: Engine, file: Path) -> None:
    place = parse_s3(there.url)
    Bucket.of(there.url.replace(f"/{place.bucket}/{place.prefix.rstrip('/')}", f"/{place.bucket}")).put(FOREIGN, file)


def write_hdfs(there: Engine, file: Path) -> None:
    import hdfs_native  # noqa: PLC0415  # an extra

    client = hdfs_client(f"hdfs://{parse_hdfs(there.url).authority}", {})
    writer = client.create(f"/{FOREIGN}", hdfs_native.WriteOptions(overwrite=True, create_parent=True))
    with file.open("rb") as held:
        while data := held.read(PIECE_BYTES):
            writer.write(data)
    writer.close()


# --------------------------------------------------------------------------------------------------------------- cases


def read(world: World, there: Engine, name: str, model: str, size: int) -> Case:
    return warmed(there, cases.cold(world, name, *cases.NO_CACHE, cluster=there.cluster, size=size, model=model))


def plain(there: Engine, size: int) -> Case:
    """The object in the spans and with the tasks of an import."""

    @contextmanager
    def scene() -> Iterator[cases.Timed]:
        span = load_cluster(there.cluster.cluster_file).chunk_size
        workers = UploadOptions().workers(span, chunk_count(size, span))
        with program("spans", there.cluster.cluster_file, FOREIGN, span, workers) as child:
            child.ready()
            yield lambda: run_reader(child, size)

    return warmed(there, Case("plain", scene, memory_bytes=128 * MIB))


def importing(world: World, there: Engine, size: int) -> Case:
    """`shardfs import` into another folder of the same engine, so that no pointer is there."""
    numbers = itertools.count(1)

    @contextmanager
    def scene() -> Iterator[cases.Timed]:
        cluster_file = world.place("import").with_suffix(".toml")
        cluster_file.write_text(cluster_text(there.url.replace("/shardfs", f"/shardfs-{next(numbers)}")))
        yield lambda: import_all(there, cluster_file, size)

    return warmed(there, Case("import", scene, memory_bytes=128 * MIB))


def import_all(there: Engine, cluster_file: Path, size: int) -> float:
    """Seconds by the program's own clock. RuntimeError unless every byte became known by it."""
    report = there.cluster.report("import", NODE, FOREIGN, IMPORTED, "--cluster", cluster_file)
    if report["bytes_new"] != size:
        raise RuntimeError(f"import: {report['bytes_new']} of {size} bytes are new")
    return float(report["seconds"])
