"""All nodes of a cluster, and the one task that finds out when a suspect is well again."""

import logging
from collections.abc import Sequence
from types import TracebackType
from typing import Self

import trio

from shardfs.errors import NotFound, ShardfsError, Unavailable
from shardfs.store.watched import WatchedStore

logger = logging.getLogger(__name__)

PROBE_TIMEOUT_SECONDS = 1.0
PROBE_TICK_SECONDS = 0.05
IDLE_TICK_SECONDS = 0.25


class Fleet:
    """The watched stores in the order of the cluster file. Owns them: `aclose` closes all."""

    def __init__(self, stores: Sequence[WatchedStore]) -> None:
        self.stores = tuple(stores)
        self._by_id = {store.node: store for store in self.stores}

    def __getitem__(self, node_id: str) -> WatchedStore:
        return self._by_id[node_id]

    def get(self, node_id: str) -> WatchedStore | None:
        """The node, or None when the cluster has none of that name."""
        return self._by_id.get(node_id)

    def hedge_latency(self, store: WatchedStore) -> float | None:
        """What the node may take for its first byte before its silence says something: its own 95th percentile.

        One that has never answered is taken for the slowest of those as near as it is. That goes by their medians: in
        the crowd of requests with which a read begins their percentiles are long. None while nobody knows.
        """
        own = store.health.latency_p95()
        if own is not None:
            return own
        peers = (other.health.latency_median() for other in self.stores if other.read_priority == store.read_priority)
        return max((latency for latency in peers if latency is not None), default=None)

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, value: BaseException | None, trace: TracebackType | None
    ) -> None:
        with trio.CancelScope(shield=True):
            await self.aclose()

    async def aclose(self) -> None:
        for store in self.stores:
            await store.aclose()

    async def run_probes(self, *, task_status: trio.TaskStatus[None] = trio.TASK_STATUS_IGNORED) -> None:
        """Ask each suspect when its time has come. Runs until cancelled; at most one probe a node."""
        probing: set[str] = set()
        async with trio.open_nursery() as nursery:
            task_status.started()
            while True:
                now = trio.current_time()
                for store in self.stores:
                    if store.health.suspect and now >= store.health.probe_at and store.node not in probing:
                        probing.add(store.node)
                        nursery.start_soon(_probe, store, probing)
                suspects = any(store.health.suspect for store in self.stores)
                await trio.sleep(PROBE_TICK_SECONDS if suspects else IDLE_TICK_SECONDS)


async def _probe(store: WatchedStore, probing: set[str]) -> None:
    try:
        with trio.move_on_after(PROBE_TIMEOUT_SECONDS) as scope:
            await store.stat()
        if scope.cancelled_caught:
            store.late("no answer to a probe")
    except (Unavailable, NotFound) as error:
        logger.debug("probe of %s: %s", store.node, error)  # and the store has noted what it means
    except ShardfsError as error:
        logger.debug("probe of %s: %s", store.node, error)
        store.late(str(error))
    except Exception as error:  # noqa: BLE001 - a bug in one engine must not end the probes of all
        store.late(store.bug(error))
    finally:
        probing.discard(store.node)
