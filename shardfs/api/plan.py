"""Who serves what when a whole model is loaded: metadata -> chunks per node -> assignment -> load.

A reader asks the node that placement gives it, and for an imported chunk that node has a pointer only: the bytes then
come from the engine of the node that the pointer names. Both are said. For the second, pointers have to be read, see
`shardfs.api.whereabouts`.
"""

from collections import Counter
from dataclasses import dataclass

from shardfs.api.catalogue import file_holes
from shardfs.api.nodes import Probe, probe_all
from shardfs.api.whereabouts import Delivery, delivery
from shardfs.core.cluster import Cluster, Node
from shardfs.core.digest import Digest
from shardfs.core.names import ModelName
from shardfs.core.placement import Assignment, Placement, choose, owner_counts, sum_up
from shardfs.wiring.client import client


@dataclass(frozen=True, slots=True)
class NodeShare:
    """What one node does. `owned` chunks should lie on it; for `chunks` of them it is asked, `pointers` of which lead
    to an engine. It delivers `served_chunks`. Both shares are parts of all bytes, 0 to 1.
    """

    node: str
    zone: str
    state: str
    weight: float
    read_priority: int
    answers: bool
    reason: str
    owned: int
    chunks: int
    bytes: int
    share: float
    pointers: int
    served_chunks: int
    served_bytes: int
    served_share: float


@dataclass(frozen=True, slots=True)
class Plan:
    """The assignment of a whole-model load over the nodes that answer now.

    `chunks` counts as the formula does, shard index = offset // chunk_size; `holes` of them are stored nowhere and
    equal ones only once: `stored_chunks`, each `replicas` times. `evenness` is the largest load over the mean load, by
    weight, among the active nodes that answer: 1 is ideal. `unserved`: chunks for which no node answers.

    `external_chunks` with `external_bytes` are parts of other people's files; `looked_chunks` were looked at to find
    that out. `undelivered`: chunks that nobody who answers delivers.
    """

    name: str
    generation: int
    digest: Digest
    size: int
    chunk_size: int
    chunks: int
    holes: int
    stored_chunks: int
    stored_bytes: int
    replicas: int
    stored_copies: int
    nodes: tuple[NodeShare, ...]
    evenness: float
    unserved: int
    external_chunks: int
    external_bytes: int
    looked_chunks: int
    undelivered: int


async def plan(cluster: Cluster, name: ModelName) -> Plan:
    """The plan for `name`. NotFound, NoCopy."""
    placement = Placement(cluster)
    async with client(cluster) as (fleet, catalog):
        ref = await catalog.resolve(name)
        manifest = await catalog.manifest(ref.manifest)
        probes = await probe_all(fleet)
        answering = {node for node, probe in probes.items() if probe.health == "ok"}
        lengths = manifest.chunk_lengths()
        asked = choose(placement, lengths, answering)
        delivered = await delivery(fleet, placement, manifest, asked=asked, answering=answering)
    loads = {load.node: load for load in sum_up(cluster, lengths, asked)}
    served = {load.node: load for load in sum_up(cluster, lengths, delivered.servers)}
    return Plan(
        name=ref.model,
        generation=ref.generation,
        digest=ref.manifest,
        size=manifest.size,
        chunk_size=manifest.chunk_size,
        chunks=manifest.chunks,
        holes=sum(file_holes(manifest, file) for file in manifest.files),
        stored_chunks=len(lengths),
        stored_bytes=sum(lengths.values()),
        replicas=cluster.replicas,
        stored_copies=len(lengths) * cluster.replicas,
        nodes=_shares(placement, lengths, probes, delivered, (loads, served)),
        evenness=evenness(cluster.nodes, loads, answering),
        unserved=loads[""].chunks if "" in loads else 0,
        external_chunks=len(delivered.pointers),
        external_bytes=sum(lengths[chunk] for chunk in delivered.pointers),
        looked_chunks=delivered.looked,
        undelivered=served[""].chunks if "" in served else 0,
    )


def _shares(
    placement: Placement,
    lengths: dict[Digest, int],
    probes: dict[str, Probe],
    delivered: Delivery,
    loads: tuple[dict[str, Assignment], dict[str, Assignment]],
) -> tuple[NodeShare, ...]:
    """`loads`: who is asked for how much, and who delivers how much."""
    total = sum(lengths.values()) or 1
    asked, served = loads
    pointers = Counter(delivered.pointers.values())
    nodes = placement.cluster.nodes
    return tuple(
        NodeShare(
            node=node.id,
            zone=node.zone,
            state=node.state,
            weight=node.weight,
            read_priority=node.read_priority,
            answers=probes[node.id].health == "ok",
            reason=probes[node.id].reason,
            owned=int(owned),
            chunks=asked[node.id].chunks,
            bytes=asked[node.id].bytes,
            share=asked[node.id].bytes / total,
            pointers=pointers[node.id],
            served_chunks=served[node.id].chunks,
            served_bytes=served[node.id].bytes,
            served_share=served[node.id].bytes / total,
        )
        for node, owned in zip(nodes, owner_counts(placement, lengths), strict=True)
    )


def evenness(nodes: tuple[Node, ...], loads: dict[str, Assignment], answering: set[str]) -> float:
    """Largest over mean load, bytes per weight, among the nearest active nodes that answer; 1 for no load."""
    serving = [node for node in nodes if node.state == "active" and node.id in answering]
    nearest = min((node.read_priority for node in serving), default=0)
    serving = [node for node in serving if node.read_priority == nearest]
    total = sum(loads[node.id].bytes for node in serving)
    if not total:
        return 1.0
    mean = total / sum(node.weight for node in serving)
    return max(loads[node.id].bytes / node.weight for node in serving) / mean
