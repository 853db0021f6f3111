"""Which nodes hold a chunk: weighted rendezvous hashing, spread over zones.

score(node) = -weight / ln(h), h = xxh3_64(chunk digest, seed = xxh3_64(node id)) scaled to (0, 1); the ranking is by
falling score. Source: Thaler and Ravishankar 1998 (rendezvous), Schindelhauer and Schomaker 2005 (weights).
Adding a node moves only the chunks that it wins; nothing is ever looked up in a table.

The owners are the first R *active* nodes of the ranking, taken so that their zones differ while there are zones
not yet used; nodes without a zone count as a zone each. The full ranking (owners, then all others) is where a
reader looks, which alone makes reads right while a cluster grows, shrinks or is being rebalanced.
"""

import math
from collections import Counter
from collections.abc import Iterable, Mapping
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
import xxhash

from shardfs.core.cluster import Cluster, Node
from shardfs.core.digest import Digest

_SCALE = 2.0**-64


class Placement:
    """The placement that a cluster file fixes. Immutable."""

    def __init__(self, cluster: Cluster) -> None:
        self.cluster = cluster
        self.replicas = cluster.replicas
        self._nodes = cluster.nodes
        self._seeds = [xxhash.xxh3_64_intdigest(node.id.encode()) for node in self._nodes]
        self._zones = [node.zone or f"\0{node.id}" for node in self._nodes]

    def scores(self, chunk: Digest) -> list[float]:
        """One score for each node, in the order of the cluster file."""
        return [
            # (h + 0.5) / 2^64 lies in (0, 1]; at exactly 1 (h above 2^53 rounds) the node simply wins.
            -node.weight / (math.log((xxhash.xxh3_64_intdigest(chunk, seed) + 0.5) * _SCALE) or -1e-300)
            for node, seed in zip(self._nodes, self._seeds, strict=True)
        ]

    def ranking(self, chunk: Digest) -> tuple[Node, ...]:
        """All nodes, the owners first, then the rest by falling score."""
        scores = self.scores(chunk)
        order = sorted(range(len(scores)), key=lambda i: (-scores[i], i))
        owners = self._owners(order)
        return tuple(self._nodes[i] for i in (*owners, *(i for i in order if i not in owners)))

    def owners(self, chunk: Digest) -> tuple[Node, ...]:
        """The R nodes that should hold the chunk."""
        return self.ranking(chunk)[: self.replicas]

    def _owners(self, order: list[int]) -> list[int]:
        active = [i for i in order if self._nodes[i].state == "active"]
        owners: list[int] = []
        used: set[str] = set()
        for i in active:
            if self._zones[i] not in used:
                owners.append(i)
                used.add(self._zones[i])
            if len(owners) == self.replicas:
                return owners
        # Fewer zones than copies: the best of the others, whatever their zone.
        return owners + [i for i in active if i not in owners][: self.replicas - len(owners)]


@dataclass(frozen=True, slots=True)
class Assignment:
    """Which node serves which chunk of a whole-model load: metadata -> chunks per node -> assignment."""

    node: str
    chunks: int
    bytes: int


def choose(placement: Placement, lengths: Mapping[Digest, int], alive: set[str]) -> dict[Digest, str]:
    """Give each chunk of a plain size to that near owner in `alive` with the least bytes per weight so far.

    Greedy, largest first: the balance that a reader which always asks the least loaded owner comes to.
    Chunks without a living owner go to the first living node of their ranking, else to none (node "").
    """
    load: Counter[str] = Counter()
    weight = {node.id: node.weight for node in placement.cluster.nodes}
    chosen: dict[Digest, str] = {}
    for chunk, size in sorted(lengths.items(), key=lambda item: (-item[1], item[0])):
        ranking = placement.ranking(chunk)
        owners = [n for n in ranking[: placement.replicas] if n.id in alive]
        nearest = min((n.read_priority for n in owners), default=0)
        living = [n.id for n in owners if n.read_priority == nearest]
        living = living or [n.id for n in ranking if n.id in alive][:1] or [""]
        chosen[chunk] = min(living, key=lambda node: (load[node] + size) / weight.get(node, 1.0))
        load[chosen[chunk]] += size
    return chosen


def sum_up(cluster: Cluster, lengths: Mapping[Digest, int], chosen: Mapping[Digest, str]) -> list[Assignment]:
    """What `chosen` gives to each node of the cluster, in the order of its file; then node "" if it has any."""
    count = Counter(chosen.values())
    load: Counter[str] = Counter()
    for chunk, node in chosen.items():
        load[node] += lengths[chunk]
    nodes = [node.id for node in cluster.nodes] + [""] * ("" in count)
    return [Assignment(node, count[node], load[node]) for node in nodes]


def owner_counts(placement: Placement, chunks: Iterable[Digest]) -> npt.NDArray[np.int64]:
    """How many of `chunks` each node owns, in the order of the cluster file."""
    index = {node.id: i for i, node in enumerate(placement.cluster.nodes)}
    counts = np.zeros(len(index), dtype=np.int64)
    for chunk in chunks:
        for node in placement.owners(chunk):
            counts[index[node.id]] += 1
    return counts
