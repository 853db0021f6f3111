"""Cold reads while one of three nodes is sick, beside a healthy cluster: dead (SIGKILL), hung (SIGSTOP: it accepts and
never answers), ten times slower.

The node falls sick after the mount has known it as healthy and before the read begins. Slow: a proxy stands before the
node that gives all its connections together a tenth of what one of three nodes delivers in a healthy read, and answers
10 ms late; the proxy's own work is on the same cores and counts against the figure.
"""

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from bench import cases
from bench.child import program, reader, run_reader
from bench.context import Bench
from bench.measure import Case, interleave
from bench.world import NODES, World
from shardfs.config import load_cluster

VICTIM = "b"
SLOWER = 10
LATENCY_SECONDS = 0.010
SICK = {"dead": "one of three dead", "hung": "one of three hung", "slow": "one of three ten times slower"}


def run(bench: Bench) -> None:
    world, figures, size = bench.world, bench.figures, bench.options.size
    first = interleave([sick(world, "calibration")], 1, bench.say)
    rate = size / first.series("calibration")[0] / NODES / SLOWER
    done = bench.measure([sick(world, "healthy"), *(sick(world, name, rate=rate) for name in SICK)])
    figures.rate("faults.healthy", "all nodes healthy", done.series("healthy"), size)
    for name, what in SICK.items():
        figures.rate(f"faults.{name}", what, done.series(name), size, limit="faults.healthy")


def sick(world: World, name: str, *, rate: float = 0.0) -> Case:
    world.stored  # noqa: B018

    @contextmanager
    def scene() -> Iterator[cases.Timed]:
        with (
            slowed(world, rate if name == "slow" else None) as cluster_file,
            world.mount(*cases.NO_CACHE, "--cluster", cluster_file) as mount,
        ):
            mount.model.stat()
            try:
                with reader("read", mount.model) as child:
                    if name == "dead":
                        world.cluster.kill(VICTIM)
                    elif name == "hung":
                        world.cluster.pause(VICTIM)
                    yield lambda: run_reader(child, world.size)
            finally:
                world.heal()

    return Case(name, scene, memory_bytes=world.size + cases.MEMORY_BYTES)


@contextmanager
def slowed(world: World, rate: float | None) -> Iterator[Path]:
    """The cluster file; with a `rate` in bytes/s one in which the victim is reached through the proxy."""
    cluster_file = world.cluster.cluster_file
    if rate is None:
        yield cluster_file
        return
    url = load_cluster(cluster_file).node(VICTIM).url
    port = int(url.rpartition(":")[2])
    with program("slowproxy", port, rate, LATENCY_SECONDS) as proxy:
        changed = world.place("cluster").with_suffix(".toml")
        changed.write_text(cluster_file.read_text().replace(f":{port}", f":{int(proxy.line())}"))
        yield changed
        changed.unlink()
