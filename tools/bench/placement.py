#!/usr/bin/env python3
"""How even placement is, how little it moves and how fast it is: measured, as one JSON document.

    python tools/bench/placement.py [CHUNKS]      # 1,000,000 names by default, about half a minute

What must hold (and is a test): over 10 equal nodes the fullest holds at most 2 % more than the mean; an eleventh node
receives at most 10 % of the chunks and nothing moves between the others; weights 1:2:4 are met within 2 %.
"""

import json
import sys
import time
from collections import Counter

from shardfs.core.cluster import Cluster, Node
from shardfs.core.digest import Digest, digest_of
from shardfs.core.placement import Placement

CHUNK_SIZE = 4 * 1024 * 1024


def placement(weights: list[float], replicas: int = 1) -> Placement:
    nodes = tuple(Node(f"node-{i}", f"file:///{i}", weight=weight) for i, weight in enumerate(weights))
    return Placement(Cluster(nodes, replicas, CHUNK_SIZE))


def first_owners(placed: Placement, names: list[Digest]) -> list[str]:
    return [placed.owners(name)[0].id for name in names]


def measure(count: int) -> dict[str, float]:
    """Place `count` names; shares in percent, time in microseconds."""
    names = [digest_of(f"chunk {i}".encode()) for i in range(count)]

    began = time.perf_counter()
    ten = first_owners(placement([1.0] * 10), names)
    seconds = time.perf_counter() - began
    shares = Counter(ten)
    mean = count / 10

    eleven = first_owners(placement([1.0] * 11), names)
    moved = [new for old, new in zip(ten, eleven, strict=True) if old != new]

    weighted = Counter(first_owners(placement([1.0, 2.0, 4.0]), names))
    wanted = {f"node-{i}": count * weight / 7 for i, weight in enumerate((1, 2, 4))}

    return {
        "chunks": count,
        "nodes": 10,
        "fullest_over_mean_percent": round(100 * (max(shares.values()) / mean - 1), 3),
        "emptiest_under_mean_percent": round(100 * (1 - min(shares.values()) / mean), 3),
        "eleventh_node_moved_percent": round(100 * len(moved) / count, 3),
        "eleventh_node_moved_elsewhere": sum(node != "node-10" for node in moved),
        "weights_1_2_4_worst_error_percent": round(
            100 * max(abs(weighted[node] / share - 1) for node, share in wanted.items()), 3
        ),
        "microseconds_per_ranking": round(1e6 * seconds / count, 2),
    }


def main() -> None:
    count = int(sys.argv[1]) if len(sys.argv) > 1 else 1_000_000
    print(json.dumps(measure(count), indent=2))


if __name__ == "__main__":
    main()
