"""Who serves what when a whole model is loaded: metadata -> chunks per node -> assignment -> load."""

from dataclasses import dataclass

from shardfs.api.catalogue import file_holes
from shardfs.api.nodes import probe_all
from shardfs.core.cluster import Cluster, Node
from shardfs.core.digest import Digest
from shardfs.core.names import ModelName
from shardfs.core.placement import Assignment, Placement, assign, owner_counts
from shardfs.wiring.client import client


@dataclass(frozen=True, slots=True)
class NodeShare:
    """What one node serves. `owned` chunks should lie on it; `share` is its part of all bytes, 0 to 1."""

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


@dataclass(frozen=True, slots=True)
class Plan:
    """The assignment of a whole-model load over the nodes that answer now.

    `chunks` counts as the formula does, shard index = offset // chunk_size; `holes` of them are stored nowhere and
    equal ones only once: `stored_chunks`, each `replicas` times. `evenness` is the largest load over the mean load, by
    weight, among the active nodes that answer: 1 is ideal. `unserved`: chunks for which no node answers.
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


async def plan(cluster: Cluster, name: ModelName) -> Plan:
    """The plan for `name`. NotFound, NoCopy."""
    async with client(cluster) as (fleet, catalog):
        ref = await catalog.resolve(name)
        manifest = await catalog.manifest(ref.manifest)
        probes = await probe_all(fleet)
    placement = Placement(cluster)
    lengths = manifest.chunk_lengths()
    answering = {node for node, probe in probes.items() if probe.health == "ok"}
    loads = {load.node: load for load in assign(placement, lengths.items(), answering)}
    total = sum(lengths.values())
    return Plan(
        name=ref.model,
        generation=ref.generation,
        digest=ref.manifest,
        size=manifest.size,
        chunk_size=manifest.chunk_size,
        chunks=manifest.chunks,
        holes=sum(file_holes(manifest, file) for file in manifest.files),
        stored_chunks=len(lengths),
        stored_bytes=total,
        replicas=cluster.replicas,
        stored_copies=len(lengths) * cluster.replicas,
        nodes=tuple(
            NodeShare(
                node=node.id,
                zone=node.zone,
                state=node.state,
                weight=node.weight,
                read_priority=node.read_priority,
                answers=node.id in answering,
                reason=probes[node.id].reason,
                owned=int(owned),
                chunks=loads[node.id].chunks,
                bytes=loads[node.id].bytes,
                share=loads[node.id].bytes / total if total else 0.0,
            )
            for node, owned in zip(cluster.nodes, owner_counts(placement, lengths), strict=True)
        ),
        evenness=evenness(cluster.nodes, loads, answering),
        unserved=loads[""].chunks if "" in loads else 0,
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
