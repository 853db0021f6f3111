"""Brings one chunk to R nodes: skips those that have it, replaces those that do not answer.

Candidates are the active nodes of the chunk's ranking, owners first; draining nodes get nothing new. R copies are
made at the same time, and each that fails takes the next candidate. A failure that may pass is tried again a few times;
then the node rests, and nobody waits for it until its rest is over and one single try has succeeded. So a dead node
costs its time once, not once for each chunk. Only when nobody is left to take its place is it asked again, for as long
as the patience lasts. Refused credentials end everything at once: no other node can cure that.

A small answer has a fixed time, storing a time that grows with all the bytes that are on their way to the node, so that
a slow line is not taken for a dead node.
"""

import math
import random
from collections.abc import Awaitable, Callable
from dataclasses import dataclass, field
from functools import partial
from typing import TypeVar

import trio

from shardfs.admin.cutting import Piece
from shardfs.core.backoff import backoff
from shardfs.core.cluster import Cluster
from shardfs.core.keys import ObjectKey, chunk_key
from shardfs.core.placement import Placement
from shardfs.errors import Denied, NoSpace, NotEnoughNodes, StoreError, Unavailable
from shardfs.store.fleet import Fleet
from shardfs.store.watched import WatchedStore

T = TypeVar("T")


@dataclass(frozen=True, slots=True)
class CopyOptions:
    """Times in seconds. `question` bounds a small answer, `put` one chunk at `rate_min_bytes` per second and more."""

    question: float = 10.0
    put: float = 30.0
    rate_min_bytes: int = 1024 * 1024
    tries: int = 3
    pause_first: float = 0.1
    pause_max: float = 2.0
    rest_first: float = 15.0
    rest_max: float = 120.0
    patience: float = 30.0


@dataclass(frozen=True, slots=True)
class Replaced:
    """Chunks of which a node is an owner and that went to others instead; the first reason."""

    chunks: int
    reason: str


@dataclass(slots=True, eq=False)
class _Node:
    """What this upload knows of a node. Changed between awaits only."""

    store: WatchedStore
    sending: dict[trio.CancelScope, float] = field(default_factory=dict)
    bytes_coming: int = 0
    rests: int = 0
    rest_until: float = 0.0
    rest_reason: str = ""
    full_reason: str = ""
    replaced: Replaced | None = None


@dataclass(slots=True, eq=False)
class _Job:
    """One chunk on its way: `sent` says which nodes have it, and whether they had to be sent it.

    Reasons are kept and not errors: a traceback would hold on to views of the buffer.
    """

    key: ObjectKey
    parts: tuple[bytes, memoryview]
    sent: dict[str, bool] = field(default_factory=dict)
    failed: dict[str, str] = field(default_factory=dict)
    hopeless: set[str] = field(default_factory=set)

    @property
    def size(self) -> int:
        return len(self.parts[0]) + len(self.parts[1])

    def hopeful(self, name: str) -> bool:
        """Whether node `name` may still take a copy."""
        return name not in self.sent and name not in self.hopeless


class _Late(Unavailable):
    """No answer in time. Waiting as long again is not worth it."""


class _Unusable(StoreError):
    """The node has something else under this name. Only a repair can cure that."""


class Copies:
    """Given: fleet, placement, options, chance. Changing: what is known of each node."""

    def __init__(
        self,
        fleet: Fleet,
        placement: Placement,
        *,
        options: CopyOptions = CopyOptions(),
        chance: Callable[[], float] = random.random,
    ) -> None:
        self._placement = placement
        self._options = options
        self._chance = chance
        self._nodes = {store.node: _Node(store) for store in fleet.stores}

    @property
    def cluster(self) -> Cluster:
        return self._placement.cluster

    @property
    def replaced(self) -> dict[str, Replaced]:
        """The owners that did not get all their chunks, by node id."""
        return {name: node.replaced for name, node in self._nodes.items() if node.replaced}

    async def check(self) -> None:
        """Ask every node whether it is there.

        Raises Denied, or NotEnoughNodes with the silent nodes and their reasons when a publish cannot succeed.
        """
        failed: dict[str, str] = {}
        denied: list[Denied] = []

        async def ask(node: _Node) -> None:
            try:
                await self._tried(node, partial(self._answer, node, node.store.stat))
            except Denied as error:
                denied.append(error)
                nursery.cancel_scope.cancel()
            except StoreError as error:
                failed[error.node] = error.reason

        async with trio.open_nursery() as nursery:
            for node in self._nodes.values():
                nursery.start_soon(ask, node)
        if denied:
            raise denied[0]
        cluster = self.cluster
        active = sum(node.state == "active" and node.id not in failed for node in cluster.nodes)
        if active < cluster.replicas:
            raise NotEnoughNodes(
                f"{cluster.replicas} copies need {cluster.replicas} active nodes, {active} answer{_why(failed)}"
            )
        answering = len(cluster.nodes) - len(failed)
        if answering < cluster.majority:
            raise NotEnoughNodes(
                f"publishing needs {cluster.majority} of {len(cluster.nodes)} nodes, {answering} answer{_why(failed)}"
            )

    async def ensure(self, piece: Piece) -> bool:
        """R nodes have the chunk when this returns; True when anything was sent for it.

        Raises NotEnoughNodes, naming the nodes and their reasons, or Denied.
        """
        job = _Job(chunk_key(piece.digest), (piece.header.encode(), piece.plain))
        ranking = [node.id for node in self._placement.ranking(piece.digest) if node.state == "active"]
        replicas = self._placement.replicas
        give_up_at = trio.current_time() + self._options.patience
        streak = 0
        while True:
            candidates = [name for name in ranking if job.hopeful(name)]
            await self._round(job, candidates, replicas - len(job.sent), urgent=streak > 0)
            missing = replicas - len(job.sent)
            if missing <= 0:
                break
            hopeful = sum(job.hopeful(name) for name in ranking)
            if hopeful < missing or trio.current_time() >= give_up_at:
                raise NotEnoughNodes(
                    f"chunk {piece.digest}: {len(job.sent)} of {replicas} copies stored{_why(job.failed)}"
                )
            streak += 1
            await trio.sleep(self._pause(streak))
        for name in ranking[:replicas]:
            if name not in job.sent:
                known = self._nodes[name].replaced or Replaced(0, job.failed[name])
                self._nodes[name].replaced = Replaced(known.chunks + 1, known.reason)
        return any(job.sent.values())

    async def _round(self, job: _Job, candidates: list[str], copies: int, *, urgent: bool) -> None:
        """Try to make `copies` copies, each candidate once at most."""
        remaining = iter(candidates)
        denied: list[Denied] = []

        async def make_one() -> None:
            for name in remaining:
                node = self._nodes[name]
                try:
                    job.sent[name] = await self._tried(node, partial(self._copy, node, job), urgent=urgent)
                except Denied as error:
                    denied.append(error)
                    nursery.cancel_scope.cancel()
                except StoreError as error:
                    job.failed[name] = error.reason
                    if isinstance(error, (NoSpace, _Unusable)):
                        job.hopeless.add(name)
                else:
                    return

        async with trio.open_nursery() as nursery:
            for _ in range(copies):
                nursery.start_soon(make_one)
        if denied:
            raise denied[0]

    async def _copy(self, node: _Node, job: _Job) -> bool:
        """One attempt. True when the node had to be sent the chunk."""
        present = await self._answer(node, partial(node.store.size, job.key))
        if present == job.size:
            return False
        if present is not None:
            raise _Unusable(node.store.node, f"has {present} bytes instead of {job.size} as {job.key}")
        if node.full_reason:
            raise NoSpace(node.store.node, node.full_reason)
        started = trio.current_time()
        scope = trio.CancelScope()
        node.sending[scope] = started
        node.bytes_coming += job.size
        self._give_time(node)
        try:
            with scope:
                return await node.store.put(job.key, job.parts)
            seconds = trio.current_time() - started
            raise _Late(node.store.node, f"did not store a chunk within {seconds:.0f} s")
        finally:
            node.bytes_coming -= job.size
            del node.sending[scope]

    def _give_time(self, node: _Node) -> None:
        """All that is being sent to `node` shares its line; a deadline only moves as far as the buffers allow."""
        seconds = self._options.put + node.bytes_coming / self._options.rate_min_bytes
        for scope, started in node.sending.items():
            latest = started + seconds
            scope.deadline = latest if math.isinf(scope.deadline) else max(scope.deadline, latest)

    async def _answer(self, node: _Node, question: Callable[[], Awaitable[T]]) -> T:
        with trio.move_on_after(self._options.question):
            return await question()
        raise _Late(node.store.node, f"no answer within {self._options.question:.0f} s")

    async def _tried(self, node: _Node, attempt: Callable[[], Awaitable[T]], *, urgent: bool = False) -> T:
        """`attempt`, again after a failure that may pass; not at all while the node rests, unless `urgent`."""
        now = trio.current_time()
        if now < node.rest_until and not urgent:
            raise Unavailable(node.store.node, node.rest_reason)
        tries, rests = self._options.tries, node.rests
        if rests:  # its rest is over, or nobody else is left: one try, and the others go on without it
            tries = 1
            node.rest_until = max(node.rest_until, now + self._options.rest_first)
        for streak in range(1, tries + 1):
            try:
                result = await attempt()
            except (Denied, _Unusable):
                raise
            except NoSpace as error:
                node.full_reason = error.reason
                raise
            except StoreError as error:
                late = isinstance(error, _Late)
                if late:
                    node.store.late(error.reason)
                if late or streak == tries:
                    self._rest(node, error.reason, rests + 1)
                    raise
            else:
                node.rests, node.rest_until = 0, 0.0
                return result
            await trio.sleep(self._pause(streak))
            if trio.current_time() < node.rest_until and not urgent:  # found dead by somebody else meanwhile
                raise Unavailable(node.store.node, node.rest_reason)
        raise AssertionError("the last try returns or raises")

    def _rest(self, node: _Node, reason: str, rests: int) -> None:
        node.rests = max(node.rests, rests)  # several calls that find it dead together count once
        seconds = min(self._options.rest_max, self._options.rest_first * 2.0 ** min(node.rests - 1, 16))
        node.rest_until = trio.current_time() + seconds
        node.rest_reason = reason

    def _pause(self, streak: int) -> float:
        return backoff(streak, self._options.pause_first, self._options.pause_max, self._chance())


def _why(failed: dict[str, str]) -> str:
    """` (b: refused; c: no space)`, the first eight."""
    listed = [f"{name}: {reason}" for name, reason in sorted(failed.items())[:8]]
    if len(failed) > 8:
        listed.append(f"and {len(failed) - 8} more")
    return f" ({'; '.join(listed)})" if listed else ""
