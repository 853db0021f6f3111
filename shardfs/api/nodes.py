"""The nodes: who answers, how quickly, with how much space, and who lacks which refs."""

from collections.abc import Mapping
from dataclasses import dataclass

import trio

from shardfs.catalog.ask import ask_all, list_refs
from shardfs.catalog.options import CatalogOptions
from shardfs.core.cluster import Cluster, Node
from shardfs.core.keys import REFS, RefName
from shardfs.core.refs import live, newest
from shardfs.errors import Denied, ShardfsError, StoreError
from shardfs.store.base import Store, StoreStat
from shardfs.store.fleet import Fleet
from shardfs.store.watched import WatchedStore
from shardfs.wiring.client import open_fleet

TIMEOUT_SECONDS = 2.0

_UNKNOWN = StoreStat()


@dataclass(frozen=True, slots=True)
class NodeStatus:
    """One node. `health` is `ok`, `down` or `denied`, with its `reason`; `latency_ms` is the time of one question on an
    open connection. Space in bytes. `refs`: how many it holds; `behind`: of how many models it lacks the newest.
    """

    id: str
    url: str
    zone: str
    weight: float
    read_priority: int
    state: str
    health: str
    reason: str
    latency_ms: float | None
    version: str
    capacity_bytes: int | None
    free_bytes: int | None
    refs: int | None
    behind: int | None


@dataclass(frozen=True, slots=True)
class ClusterStatus:
    """All nodes. With fewer than `majority` answering nothing can be published, and something newer may be missed.

    `models`: how many exist; None when no node says which.
    """

    nodes: tuple[NodeStatus, ...]
    replicas: int
    chunk_size: int
    majority: int
    answering: int
    models: int | None
    disagreements: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class Probe:
    """What a node said when it was asked how it is."""

    health: str
    reason: str = ""
    latency_ms: float | None = None
    stat: StoreStat = _UNKNOWN


async def status(cluster: Cluster) -> ClusterStatus:
    """Ask every node and wait for each, at most a few seconds. Never fails because of a node."""
    async with open_fleet(cluster) as fleet:
        probes = await probe_all(fleet)
        refs = await _refs(fleet)
    truth = newest(ref for held in refs.values() for ref in held)
    lacking = {node: {model for model, ref in truth.items() if ref not in held} for node, held in refs.items()}
    return ClusterStatus(
        nodes=tuple(_node_status(node, probes[node.id], refs.get(node.id), lacking) for node in cluster.nodes),
        replicas=cluster.replicas,
        chunk_size=cluster.chunk_size,
        majority=cluster.majority,
        answering=sum(probe.health == "ok" for probe in probes.values()),
        models=len(live(truth)) if refs else None,
        disagreements=tuple(sorted(set[str]().union(*lacking.values()))),
    )


async def probe_all(fleet: Fleet) -> dict[str, Probe]:
    """Whether each node answers, all asked at once."""
    probes: dict[str, Probe] = {}

    async def one(store: WatchedStore) -> None:
        probes[store.node] = await _probe(store)

    async with trio.open_nursery() as nursery:
        for store in fleet.stores:
            nursery.start_soon(one, store)
    return probes


async def _probe(store: WatchedStore) -> Probe:
    try:
        with trio.fail_after(TIMEOUT_SECONDS):
            await store.stat()  # opens the connection
            started = trio.current_time()
            stat = await store.stat()
            return Probe("ok", "", (trio.current_time() - started) * 1000, stat)
    except Denied as error:
        return Probe("denied", error.reason)
    except ShardfsError as error:
        return Probe("down", error.reason if isinstance(error, StoreError) else str(error))
    except trio.TooSlowError:
        reason = f"no answer within {TIMEOUT_SECONDS:g} s"
        store.late(reason)
        return Probe("down", reason)


async def _refs(fleet: Fleet) -> Mapping[str, frozenset[RefName]]:
    options = CatalogOptions()

    async def question(store: Store) -> frozenset[RefName]:
        return await list_refs(store, f"{REFS}/", page_timeout=options.node_timeout, refs_max=options.refs_max)

    well = [store for store in fleet.stores if store.available]
    answers = await ask_all(well, question, enough=len(well), grace=0.0)
    return answers.answered


def _node_status(
    node: Node, probe: Probe, refs: frozenset[RefName] | None, lacking: Mapping[str, set[str]]
) -> NodeStatus:
    return NodeStatus(
        id=node.id,
        url=node.url,
        zone=node.zone,
        weight=node.weight,
        read_priority=node.read_priority,
        state=node.state,
        health=probe.health,
        reason=probe.reason,
        latency_ms=probe.latency_ms,
        version=probe.stat.version,
        capacity_bytes=probe.stat.capacity_bytes,
        free_bytes=probe.stat.free_bytes,
        refs=None if refs is None else len(refs),
        behind=None if refs is None else len(lacking[node.id]),
    )
