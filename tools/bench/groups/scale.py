"""Copies and nodes: cold reads with R = 1, 2, 3 on three nodes, and with 2 to 8 nodes that hold two copies.

All clusters run at once, so that their reads can take turns; idle nodes cost nothing. The model has half the size. On
one machine more nodes cannot be faster, since they share its cores: what shows is what they cost.
"""

import shutil
from contextlib import ExitStack

from bench import cases
from bench.context import Bench
from bench.measure import MIB
from bench.world import MODEL
from shardfs.api.local import LocalCluster

CLUSTERS = ((3, 1), (3, 2), (3, 3), (2, 2), (4, 2), (6, 2), (8, 2))
CLUSTERS_QUICK = ((3, 1), (3, 2), (4, 2))
BASE = (3, 2)


def run(bench: Bench) -> None:
    world, figures = bench.world, bench.figures
    shapes = CLUSTERS_QUICK if bench.options.quick else CLUSTERS
    size = max(16 * MIB, bench.options.size // 2)
    roots = {shape: world.place(f"scale-{shape[0]}-{shape[1]}") for shape in shapes}
    source = world.write_model(world.place("scale"), size, seed=3)
    try:
        with ExitStack() as stack:
            rounds = []
            for (nodes, replicas), root in roots.items():
                cluster = stack.enter_context(LocalCluster(root, nodes=nodes, replicas=replicas))
                world.publish(cluster, source, MODEL)
                rounds.append(cases.cold(world, name(nodes, replicas), *cases.NO_CACHE, cluster=cluster, size=size))
            done = bench.measure(rounds)
    finally:
        source.unlink()
        for root in roots.values():
            shutil.rmtree(root, ignore_errors=True)
    for nodes, replicas in (BASE, *(shape for shape in shapes if shape != BASE)):
        limit = None if (nodes, replicas) == BASE else "scale.n3r2"
        figures.rate(
            f"scale.n{nodes}r{replicas}", name(nodes, replicas), done.series(name(nodes, replicas)), size, limit=limit
        )


def name(nodes: int, replicas: int) -> str:
    return f"{nodes} nodes, R = {replicas}"
