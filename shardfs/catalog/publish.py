"""Claiming the next generation number of a model, without a coordinator and without losing anything.

1. Look: list the refs of a majority; the number after the newest is the one to claim.
2. Write the ref to every node that answers, at least a majority.
3. Look again, at a majority. Two majorities share a node, so of two uploaders with the same number the one whose
   write ended later sees the other's. Who sees a rival yields, because the rival may have been told already: it claims
   the next number, and when it has one takes its ref at the contested number back. Who was told a number first
   therefore keeps it; two that see each other both move on; nobody's content is lost.

So that they do not meet again, those at a contested number stand in line by digest: the first tries again at once, each
other gives those before it the time that its own claim took, and some more by chance.

A claim that fails after its ref was written somewhere takes that ref back as far as it can. If it cannot, the ref shows
up later as a generation like any other: its manifest is stored on a majority, so it is whole.
"""

import logging
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass

import trio

from shardfs.catalog.ask import Answers, ask_all
from shardfs.catalog.options import CatalogOptions
from shardfs.catalog.view import RefView
from shardfs.core.digest import Digest
from shardfs.core.keys import ObjectKey, RefName
from shardfs.core.ref import encode_ref
from shardfs.core.refs import folder_conflict, next_generation, rivals
from shardfs.errors import Conflict, NotEnoughNodes, ShardfsError
from shardfs.store.base import Store
from shardfs.store.fleet import Fleet

logger = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class Published:
    """What came of a publish.

    `raced`: somebody else claimed a number at the same time and this publish moved on to another one. `unchanged`: the
    newest generation had this content already. `nodes`: who holds the ref.
    """

    ref: RefName
    raced: bool
    unchanged: bool
    nodes: tuple[str, ...]


class Publisher:
    """Writes to a majority, or says why not. `look` is the catalogue's listing of a majority."""

    def __init__(
        self,
        fleet: Fleet,
        majority: int,
        look: Callable[[], Awaitable[RefView]],
        *,
        options: CatalogOptions,
        chance: Callable[[], float],
    ) -> None:
        self._fleet = fleet
        self._majority = majority
        self._look = look
        self._options = options
        self._chance = chance

    async def store(self, key: ObjectKey, data: bytes, *, what: str) -> tuple[str, ...]:
        """Have the object on every node that answers; the nodes that hold it now. NotEnoughNodes below a majority."""
        answers = await self._put(key, data)
        if len(answers.answered) < self._majority:
            raise NotEnoughNodes(
                f"{what} reached {len(answers.answered)} of the {self._majority} nodes it needs ({answers.reasons()})"
            )
        return tuple(answers.answered)

    async def claim(self, model: str, manifest: Digest, view: RefView) -> Published:
        """Make `manifest` the newest generation of `model`. `view` is a look at a majority just taken.

        Raises NotEnoughNodes, or Conflict when others are quicker each time or take the name as a folder.
        """
        written: list[RefName] = []
        try:
            for attempt in range(self._options.publish_tries):
                started = trio.current_time()
                own = RefName(model, next_generation(model, view.refs), manifest)
                written.append(own)
                nodes = await self.store(own.key, encode_ref(own), what=f"generation {own.generation} of {model}")
                view = await self._look()
                if not own.deleted and (other := folder_conflict(model, view.models)):
                    raise Conflict(
                        f"{model}: cannot exist beside the model {other}, one would be a folder of the other"
                    )
                others = rivals(own, view.everything)
                if not others:
                    await self._withdraw(written[:-1], level=logging.INFO)
                    return Published(own, raced=attempt > 0, unchanged=False, nodes=nodes)
                logger.info("generation %d of %s was claimed twice, trying the next", own.generation, model)
                if ahead := sum(other < own for other in others):
                    await self._pause(ahead, trio.current_time() - started)
                    view = await self._look()
        except ShardfsError:
            await self._withdraw(written, level=logging.WARNING)
            raise
        await self._withdraw(written, level=logging.WARNING)
        raise Conflict(f"{model}: others published it at the same time, {len(written)} times in a row; try again")

    async def _withdraw(self, refs: Sequence[RefName], *, level: int) -> None:
        """Take back own refs that nobody was told of, from whoever answers. `level`: how bad it is if one stays."""
        for ref in refs:
            key = ref.key

            async def delete(store: Store, key: ObjectKey = key) -> bool:
                with trio.fail_after(self._options.node_timeout):
                    return await store.delete(key)

            answers = await ask_all(
                self._fleet.stores,
                delete,
                enough=len(self._fleet.stores),
                grace=self._options.grace,
                at_once=self._options.asked_at_once,
            )
            if answers.failed:
                logger.log(level, "could not take back %s (%s)", key, answers.reasons())

    async def _pause(self, ahead: int, took: float) -> None:
        """Let `ahead` rivals go first. `took`: seconds of the last claim, the measure of what one needs."""
        head_start = min(max(took, self._options.publish_pause), self._options.publish_pause_max)
        await trio.sleep(ahead * head_start * (1.5 + self._chance()))

    async def _put(self, key: ObjectKey, data: bytes) -> Answers[bool]:
        async def put(store: Store) -> bool:
            with trio.fail_after(self._options.write_timeout):
                # Asking first spares the bytes where the object is there already.
                return await store.size(key) is None and await store.put(key, (data,))

        return await ask_all(
            self._fleet.stores,
            put,
            enough=self._majority,
            grace=self._options.write_grace,
            strict=True,
            at_once=self._options.asked_at_once,
        )
