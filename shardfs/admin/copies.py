"""Brings each chunk to R nodes: skips those that have it, replaces those that do not answer.

Candidates are the active nodes of the chunk's ranking, owners first; draining nodes get nothing new. R copies are made
at the same time, and each that fails takes the next candidate. What one node may cost is in `shardfs.admin.target`.
Only when nobody is left to take its place is a resting node asked again, for as long as the patience lasts. Refused
credentials end everything at once: no other node can cure that.
"""

import random
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field

import trio

from shardfs.admin.cutting import Piece
from shardfs.admin.standing import Standing, Unusable
from shardfs.admin.target import CopyOptions, Target
from shardfs.core.backoff import backoff
from shardfs.core.cluster import Cluster
from shardfs.core.digest import Bytes
from shardfs.core.keys import ObjectKey, chunk_key
from shardfs.core.placement import Placement
from shardfs.errors import Denied, NoSpace, NotEnoughNodes, StoreError
from shardfs.store.fleet import Fleet

_NAMED_MAX = 8


@dataclass(frozen=True, slots=True)
class Replaced:
    """Chunks of which a node is an owner and that went to others instead; the first reason."""

    chunks: int
    reason: str


@dataclass(slots=True, eq=False)
class _Job:
    """One chunk on its way: `sent` says which nodes have it, and whether they had to be sent it.

    Reasons are kept and not errors: a traceback would hold on to views of the buffer.
    """

    key: ObjectKey
    parts: tuple[Bytes, Bytes]
    ask: bool
    sent: dict[str, bool] = field(default_factory=dict)
    failed: dict[str, str] = field(default_factory=dict)
    hopeless: set[str] = field(default_factory=set)

    def hopeful(self, ranking: Sequence[str]) -> list[str]:
        """The nodes that may still take a copy."""
        return [node for node in ranking if node not in self.sent and node not in self.hopeless]


class Copies:
    """Given: fleet, placement, options, chance. Changing: what is known of each node, what was replaced."""

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
        standing = Standing(fleet, question=options.question)
        self._targets = {store.node: Target(store, standing, options=options, chance=chance) for store in fleet.stores}
        self._replaced: dict[str, Replaced] = {}

    @property
    def cluster(self) -> Cluster:
        return self._placement.cluster

    @property
    def replaced(self) -> dict[str, Replaced]:
        """The owners that did not get all their chunks, sorted by node id."""
        return dict(sorted(self._replaced.items()))

    async def check(self) -> None:
        """Ask every node whether it is there.

        Raises Denied, or NotEnoughNodes with the silent nodes and their reasons when a publish cannot succeed.
        """
        failed: dict[str, str] = {}
        denied: list[Denied] = []

        async def ask(target: Target) -> None:
            try:
                await target.check()
            except Denied as error:
                denied.append(error)
                nursery.cancel_scope.cancel()
            except StoreError as error:
                failed[target.node] = error.reason

        async with trio.open_nursery() as nursery:
            for target in self._targets.values():
                nursery.start_soon(ask, target)
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
        job = _Job(chunk_key(piece.digest), piece.parts, ask=not piece.pointer)
        ranking = [node.id for node in self._placement.ranking(piece.digest) if node.state == "active"]
        replicas = self._placement.replicas
        give_up_at = trio.current_time() + self._options.patience
        streak = 0
        while (missing := replicas - len(job.sent)) > 0:
            candidates = job.hopeful(ranking)
            if streak:
                if len(candidates) < missing or trio.current_time() >= give_up_at:
                    raise NotEnoughNodes(
                        f"chunk {piece.digest}: {len(job.sent)} of {replicas} copies stored{_why(job.failed)}"
                    )
                await trio.sleep(self._pause(streak))
            await self._round(job, candidates, missing, urgent=streak > 0)
            streak += 1
        for owner in ranking[:replicas]:
            if owner not in job.sent:
                known = self._replaced.get(owner, Replaced(0, job.failed[owner]))
                self._replaced[owner] = Replaced(known.chunks + 1, known.reason)
        return any(job.sent.values())

    async def _round(self, job: _Job, candidates: list[str], copies: int, *, urgent: bool) -> None:
        """Try to make `copies` copies, each candidate once at most."""
        remaining = iter(candidates)
        denied: list[Denied] = []

        async def make_one() -> None:
            for node in remaining:
                try:
                    target = self._targets[node]
                    job.sent[node] = await target.copy(job.key, job.parts, ask=job.ask, urgent=urgent)
                except Denied as error:
                    denied.append(error)
                    nursery.cancel_scope.cancel()
                except StoreError as error:
                    job.failed[node] = error.reason
                    if isinstance(error, (NoSpace, Unusable)):
                        job.hopeless.add(node)
                else:
                    return

        async with trio.open_nursery() as nursery:
            for _ in range(copies):
                nursery.start_soon(make_one)
        if denied:
            raise denied[0]

    def _pause(self, streak: int) -> float:
        return backoff(streak, self._options.pause_first, self._options.pause_max, self._chance())


def _why(failed: dict[str, str]) -> str:
    """` (b: refused; c: no space)`, the first eight."""
    listed = [f"{node}: {reason}" for node, reason in sorted(failed.items())[:_NAMED_MAX]]
    if len(failed) > _NAMED_MAX:
        listed.append(f"and {len(failed) - _NAMED_MAX} more")
    return f" ({'; '.join(listed)})" if listed else ""
