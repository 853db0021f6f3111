"""Model names as folders, kept fresh without making anybody wait.

A lookup asks for that one model, which costs the same among ten models and ten thousand. Listings need all names: one
task asks for them, when somebody needs them and they are older than `refresh_seconds`. Whoever waits for an answer
does so for `wait_seconds` at most, and not at all while no node answers: what was known goes on being shown.

What a listing shows of a generation is remembered apart from its manifest, which is large and not needed for it.
"""

import logging
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import dataclass
from math import inf

import trio

from shardfs.catalog import Catalog
from shardfs.core.digest import Digest
from shardfs.core.keys import RefName
from shardfs.core.names import ModelName
from shardfs.errors import InvalidName, NotEnoughNodes, NotFound, ShardfsError
from shardfs.obs.throttle import Throttle
from shardfs.vfs.names import Names
from shardfs.vfs.tree import Generation, Tree
from shardfs.vfs.trees import Trees

logger = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class NamespaceOptions:
    """A new generation shows within `refresh_seconds` plus what the kernel keeps names for.

    A name that is not known is asked for again unless that was done `miss_seconds` ago: it may just have been put.
    `looked_max`: models of which is remembered when they were looked at. `expected_max`: manifests fetched in advance
    at the same time. `trees_bytes`: manifests and trees in memory that nobody has open; one alone may be larger.
    `generations_max`: generations known without their manifest, some hundred bytes each.
    """

    refresh_seconds: float = 0.5
    miss_seconds: float = 0.05
    wait_seconds: float = 1.0
    looked_max: int = 256
    expected_max: int = 32
    trees_bytes: int = 24 * 1024 * 1024
    generations_max: int = 16384


class Namespace:
    """Given: the catalogue. Changing: the names last seen, the generations known, and a few trees."""

    def __init__(
        self,
        catalog: Catalog,
        options: NamespaceOptions = NamespaceOptions(),
        *,
        models: Mapping[str, RefName] | None = None,
    ) -> None:
        self._catalog = catalog
        self._options = options
        self._names = Names(models or {})
        self._seen_at = -float("inf")
        self._listing_seconds = 0.0
        self._looked_at: dict[str, tuple[float, str]] = {}  # and why what was heard is in doubt
        self._failing = False
        self._doubt = ""  # why a name that was not listed may exist all the same
        self._throttle = Throttle(burst=3, seconds=60.0)
        self._wanted = trio.Event()
        self._asked = trio.Event()
        self._trees = Trees(catalog, bytes_max=options.trees_bytes)
        self._generations: dict[str, Generation] = {}
        self._nursery: trio.Nursery | None = None
        self._expected: set[Digest] = set()  # manifests being fetched in advance

    async def run(self, *, task_status: trio.TaskStatus[None] = trio.TASK_STATUS_IGNORED) -> None:
        """Keep the names fresh until cancelled."""
        async with trio.open_nursery() as nursery:
            self._nursery = nursery
            task_status.started()
            await self._keep_fresh()

    async def _keep_fresh(self) -> None:
        while True:
            await self._wanted.wait()
            started = trio.current_time()
            try:
                await self._refresh()
            except Exception:  # a bug must not end the mount
                logger.exception("names not refreshed")
                self._failing = True
            self._seen_at = started
            self._listing_seconds = trio.current_time() - started
            self._wanted = trio.Event()
            self._asked.set()
            self._asked = trio.Event()

    async def models(self) -> Mapping[str, RefName]:
        """The newest generation of each model, sorted by name."""
        return await self._not_older_than(self._options.refresh_seconds, until=self._patience())

    def _patience(self) -> float:
        """When somebody who begins to wait now has waited long enough."""
        return trio.current_time() + self._options.wait_seconds

    async def _not_older_than(self, seconds: float, *, until: float) -> Mapping[str, RefName]:
        if trio.current_time() - self._seen_at >= seconds:
            self._wanted.set()
            with trio.move_on_at(-inf if self._failing else until):
                await self._asked.wait()
        return self._names.models

    async def children(self, prefix: str) -> dict[str, RefName | None]:
        """Names directly below `prefix`: a model's ref, or None for a folder of further names."""
        await self.models()
        return self._names.below(prefix)

    async def find(self, path: str) -> RefName | None:
        """The ref of model `path` (`name` or `name@generation`), or None for a folder of names.

        NotFound when so many nodes say so that it cannot exist. Else NotEnoughNodes.
        """
        name = _parse(path)
        until = self._patience()
        doubt = ""  # why a model that was not found may exist all the same
        if name is not None:
            numbered = name.generation is not None
            ref, doubt = await (self._numbered(name) if numbered else self._current(path, until=until))
            if ref is not None:
                return ref
            if numbered:
                raise self._unknown(path, doubt)
        if not self._names.is_folder(path):
            # Perhaps a folder that is new. A long listing is not made again for every name that does not exist.
            await self._not_older_than(max(self._options.miss_seconds, self._listing_seconds), until=until)
        if path in self._names:
            return self._names.get(path)
        if self._names.is_folder(path):
            return None
        raise self._unknown(path, doubt)

    def _unknown(self, path: str, doubt: str) -> NotFound | NotEnoughNodes:
        if not doubt:
            return NotFound(path)
        error = NotEnoughNodes(f"{path}: not known here, but {doubt}")
        if self._throttle.admit(trio.current_time())[0]:
            logger.warning("%s", error)
        return error

    async def _numbered(self, name: ModelName) -> tuple[RefName | None, str]:
        """That generation of a model, or why it is in doubt. As long as no node is heard, by what is known."""
        try:
            view = await self._catalog.refs(name.model)
        except ShardfsError as error:
            return None, str(error)
        return view.find(name.generation), view.doubt

    async def _current(self, model: str, *, until: float) -> tuple[RefName | None, str]:
        """The newest generation of one model, or why it is in doubt.

        Asking for it alone is cheap, however many others there are.
        """
        now = trio.current_time()
        looked_at, doubt = self._looked_at.get(model, (-inf, ""))
        if self._seen_at > looked_at or self._failing:
            doubt = self._doubt
        known = model in self._names
        fresh = self._options.refresh_seconds if known else self._options.miss_seconds
        if now - max(self._seen_at, looked_at) < fresh:
            return self._names.get(model), doubt
        if self._failing:
            self._wanted.set()
            return self._names.get(model), doubt
        if known:
            self._expect(self._names.models[model])
        with trio.move_on_at(until) as scope:
            try:
                view = await self._catalog.refs(model)
            except ShardfsError as error:
                self._wanted.set()
                return self._names.get(model), str(error)
            self._names.take(model, view.models.get(model))
            doubt = view.doubt
        if scope.cancelled_caught:
            doubt = f"no answer within {self._options.wait_seconds:g} s"
        self._note_looked(model, now, doubt)
        return self._names.get(model), doubt

    def _expect(self, ref: RefName) -> None:
        """Most likely `ref` is still the newest: its manifest comes while that is asked, which saves a round trip."""

        async def fetch() -> None:
            try:
                with suppress(ShardfsError):  # whoever needs it will be told
                    await self.tree(ref)
            finally:
                self._expected.discard(ref.manifest)

        known = ref in self._trees or ref.manifest in self._expected
        if self._nursery is not None and not known and len(self._expected) < self._options.expected_max:
            self._expected.add(ref.manifest)
            self._nursery.start_soon(fetch)

    def _note_looked(self, model: str, now: float, doubt: str) -> None:
        self._looked_at.pop(model, None)
        self._looked_at[model] = now, doubt
        if len(self._looked_at) > self._options.looked_max:
            del self._looked_at[next(iter(self._looked_at))]

    async def tree(self, ref: RefName) -> Tree:
        """The generation's tree. NoCopy when no node has the manifest."""
        tree = await self._trees.get(ref)
        key = str(ref.key)
        self._generations.pop(key, None)
        self._generations[key] = tree.generation
        if len(self._generations) > self._options.generations_max:
            del self._generations[next(iter(self._generations))]
        return tree

    async def generation(self, ref: RefName) -> Generation:
        """What is shown of the generation; its manifest is needed only the first time. NoCopy as for `tree`."""
        found = self._generations.get(str(ref.key))
        return (await self.tree(ref)).generation if found is None else found

    async def _refresh(self) -> None:
        try:
            view = await self._catalog.refs()
        except ShardfsError as error:
            self._failing = True
            self._doubt = str(error)
            return
        self._failing = False
        self._doubt = view.doubt
        self._names.replace(view.models)


def _parse(path: str) -> ModelName | None:
    try:
        return ModelName.parse(path)
    except InvalidName:
        return None
