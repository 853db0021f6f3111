"""Every node killed, nothing cached: the seconds until a read fails with EIO, and those from the moment the first node
answers again until a read succeeds (it tries one chunk after the other; that node has two thirds of them). The file is
open all the time; nothing is mounted anew.
"""

import errno
from collections.abc import Iterator
from contextlib import contextmanager

from bench import cases
from bench.child import Child, program
from bench.context import Bench
from bench.measure import MIB, Case
from bench.world import World


def run(bench: Bench) -> None:
    done = bench.measure([outage(bench.world)])
    figures = bench.figures
    figures.seconds("outage.error", "all nodes dead: seconds to EIO", done.series("outage", "error"))
    figures.latency("outage.again", "a second read while they are dead", done.series("outage", "again"))
    figures.seconds("outage.back", "first node back: seconds to the next good read", done.series("outage", "back"))


def outage(world: World) -> Case:
    world.stored  # noqa: B018

    @contextmanager
    def scene() -> Iterator[cases.Timed]:
        with world.mount(*cases.NO_CACHE) as mount:
            try:
                with program("onefile", mount.model) as child:
                    child.ready()
                    yield lambda: _outage(world, child)
            finally:
                world.heal()

    return Case("outage", scene, memory_bytes=64 * MIB)


def _outage(world: World, child: Child) -> dict[str, float]:
    cluster = world.cluster
    for node in cluster.node_ids:
        cluster.kill(node)
    first, again = (child.ask("read") for _ in range(2))
    for answer in (first, again):
        if answer.get("errno") != errno.EIO:
            raise RuntimeError(f"a read with all nodes dead gave {answer} instead of EIO")
    cluster.start(cluster.node_ids[0])
    back = child.ask("until-good")
    if back["errno"]:
        raise RuntimeError(f"no good read within {back['seconds']:.0f} s of the node's return")
    return {"error": first["seconds"], "again": again["seconds"], "back": back["seconds"]}
