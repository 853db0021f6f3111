"""A read engine over simulated nodes, in virtual time, with memory that is poisoned each time it changes hands."""

import random
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from contextlib import asynccontextmanager

import trio
import trio.testing

from shardfs.cache import CacheFile
from shardfs.cache.memory import Slot, SlotPool
from shardfs.core.chunk import header_size, make_header
from shardfs.core.cluster import Cluster, Node
from shardfs.core.digest import Digest
from shardfs.core.keys import ObjectKey, chunk_key
from shardfs.core.placement import Placement
from shardfs.core.pointer import make_pointer
from shardfs.fetch import ChunkPlace, Engine, EngineOptions
from shardfs.obs.reading import ReadMetrics
from shardfs.store.fleet import Fleet
from shardfs.store.watched import WatchedStore
from shardfs.testing.faults import Kind, Plan, well
from shardfs.testing.simulated_node import SimulatedNode

BLOCK = 4096
RUN_BLOCKS = 8
RUN = RUN_BLOCKS * BLOCK
POISON = 0xDD
HEADER = header_size(RUN, BLOCK)


class PoisonedPool(SlotPool):
    """Whoever trusts memory that is not his any more, or not yet, reads poison."""

    def try_acquire(self) -> Slot | None:
        slot = super().try_acquire()
        if slot is not None:
            slot.view[:] = bytes([POISON]) * len(slot.view)
        return slot

    async def acquire(self, **patience: object) -> Slot:
        slot = await super().acquire(**patience)
        slot.view[:] = bytes([POISON]) * len(slot.view)
        return slot


class World:
    """`chunks` are plain bytes; `put` copies each to its owners. One engine at a time.

    `spans` tells whether nodes answer with several spans of an object at once.
    """

    def __init__(
        self,
        *,
        seed: int = 0,
        nodes: int = 3,
        replicas: int = 2,
        sizes: Sequence[int] = (RUN,) * 4,
        slots: int = 8,
        plan: Plan = well,
        latency: float = 0.001,
        bandwidth: float = 1e9,
        job_timeout: float = 9.0,
        spans: bool = True,
    ) -> None:
        self.chance = random.Random(seed)
        self.names = [f"n{i}" for i in range(nodes)]
        self.cluster = Cluster(tuple(Node(name, f"file:///{name}") for name in self.names), replicas, RUN)
        self.placement = Placement(self.cluster)
        self.chunks: dict[Digest, bytes] = {}
        self.digests: list[Digest] = []
        self.holders: dict[ObjectKey, tuple[str, ...]] = {}
        self.nodes = {
            name: SimulatedNode(name, {}, chance=self.chance, latency=latency, bandwidth=bandwidth, plan=plan)
            for name in self.names
        }
        for node in self.nodes.values():
            node.spans = spans
        for size in sizes:
            self.put(self.chance.randbytes(size))
        self.fleet = Fleet([WatchedStore(node, chance=self.chance.random) for node in self.nodes.values()])
        self.metrics = ReadMetrics()
        room = HEADER
        slot_bytes = SlotPool(1 << 20, plain_bytes=RUN, header_bytes=room).slot_bytes
        self.pool = PoisonedPool(slots * slot_bytes, plain_bytes=RUN, header_bytes=room)
        self.engine = Engine(
            self.fleet,
            self.placement,
            self.pool,
            metrics=self.metrics,
            options=EngineOptions(job_timeout_seconds=job_timeout),
            chance=self.chance.random,
        )

    # ---------------------------------------------------------------------------------------------- the cluster

    def put(self, plain: bytes) -> Digest:
        digest, header = make_header(plain, BLOCK)
        self.chunks[digest] = plain
        self.digests.append(digest)
        owners = tuple(node.id for node in self.placement.owners(digest))
        self.holders[chunk_key(digest)] = owners
        for owner in owners:
            self.nodes[owner].objects[chunk_key(digest)] = header.encode() + plain
        return digest

    def point(self, chunk: int, holder: str, server: str, path: str, *, offset: int = 0, tag: str = "1") -> None:
        """`holder` has the chunk as a pointer to the object `path` of `server`, where its bytes are put at `offset`."""
        digest = self.digests[chunk]
        plain = self.chunks[digest]
        held = self.nodes[server].externals.get(path, b"").ljust(offset, b"\xee")
        data = held[:offset] + plain + held[offset + len(plain) :]
        self.nodes[server].externals[path] = data
        self.nodes[server].tags[path] = tag
        pointer = make_pointer(server, path, offset, size=len(data), tag=tag, length=len(plain))
        _, header = make_header(plain, BLOCK)
        self.nodes[holder].objects[chunk_key(digest)] = header.as_external().encode() + pointer.encode()

    def owners(self, chunk: int) -> list[str]:
        return [node.id for node in self.placement.owners(self.digests[chunk])]

    def set_plan(self, plan: Plan) -> None:
        for node in self.nodes.values():
            node.plan = plan

    def hits(self, kind: Kind) -> int:
        return sum(node.hits[kind] for node in self.nodes.values())

    def asked(self, chunk: int) -> int:
        return sum(node.asked[chunk_key(self.digests[chunk])] for node in self.nodes.values())

    # ------------------------------------------------------------------------------------------------- reading

    def place(self, chunk: int, run: int = 0, cache_file: CacheFile | None = None) -> ChunkPlace:
        """Run `run` of the chunk, as the filesystem would ask for it."""
        digest = self.digests[chunk]
        size = len(self.chunks[digest])
        blocks = -(-size // BLOCK)
        first = run * RUN_BLOCKS
        return ChunkPlace(digest, size, BLOCK, cache_file, first, first, min(first + RUN_BLOCKS, blocks))

    def runs(self, chunk: int) -> int:
        return -(-len(self.chunks[self.digests[chunk]]) // RUN)

    def expected(self, place: ChunkPlace, start: int, length: int) -> bytes:
        begin = place.first * BLOCK + start
        return self.chunks[place.digest][begin : begin + length]

    async def read(self, place: ChunkPlace, start: int = 0, length: int | None = None, *, whole: bool = True) -> float:
        """Read and compare; the virtual seconds that it took."""
        length = place.length - start if length is None else length
        began = trio.current_time()
        view = await self.engine.read(place, start, length, whole=whole)
        assert bytes(view) == self.expected(place, start, length), "WRONG BYTES DELIVERED"
        return trio.current_time() - began

    # --------------------------------------------------------------------------------------------- running it

    @asynccontextmanager
    async def running(self, *, probes: bool = True) -> AsyncIterator[Engine]:
        async with trio.open_nursery() as nursery:
            await nursery.start(self.engine.run)
            if probes:
                await nursery.start(self.fleet.run_probes)
            yield self.engine
            nursery.cancel_scope.cancel()
        self.check_quiet()

    async def settle(self) -> None:
        """Until no job and no write is under way; then everything must be accounted for."""
        with trio.fail_after(60):
            while any(fill.pins or fill.pending for fill in self.fills()):  # noqa: ASYNC110 - writes end silently
                await trio.sleep(0.001)
        self.check_quiet()

    def fills(self):
        return self.engine._fills.all()

    def check_quiet(self) -> None:
        """Nothing is leaked when nothing is under way."""
        fills = self.fills()
        assert [(fill.pins, fill.pending) for fill in fills if fill.pins or fill.pending] == []
        assert not self.pool._waiting
        free = (*self.pool._free, *self.pool._fresh)
        slots = [slot.index for fill in fills for slot in (fill.slot, *fill.left)] + [slot.index for slot in free]
        assert sorted(slots) == list(range(self.pool.slots)), "slots lost or given twice"
        assert [store.inflight_bytes for store in self.fleet.stores] == [0] * len(self.fleet.stores)
        assert [node.open_calls for node in self.nodes.values()] == [0] * len(self.nodes)
        for fill in fills:
            for block in range(fill.blocks):
                if fill.ready >> block & 1:
                    view = fill.block_view(block, block + 1)
                    assert bytes(view) == self.expected(fill.place, block * BLOCK, len(view)), "memory went bad"


def simulate(main: Callable[[], Awaitable[None]], seed: int) -> None:
    """Run in virtual time; the same seed gives the same run, scheduling included."""
    trio._core._run._ALLOW_DETERMINISTIC_SCHEDULING = True
    trio._core._run._r.seed(seed)
    trio.run(main, clock=trio.testing.MockClock(autojump_threshold=0))
