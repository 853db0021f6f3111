"""Model names as folders, kept fresh without making anybody wait.

One task asks for the names, when somebody needs them and they are older than `refresh_seconds`. Whoever needs them
waits for that answer no longer than `wait_seconds`, and not at all while no node answers: what was known goes on being
shown.
"""

import logging
from bisect import bisect_left
from collections.abc import Mapping
from dataclasses import dataclass

import trio

from shardfs.catalog import Catalog
from shardfs.core.keys import RefName
from shardfs.core.names import ModelName
from shardfs.errors import InvalidName, NotFound, ShardfsError
from shardfs.vfs.tree import Tree

logger = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class NamespaceOptions:
    """A new generation shows within `refresh_seconds` plus what the kernel keeps names for.

    A name that is not known is asked for again unless that was done `miss_seconds` ago: it may just have been put.
    """

    refresh_seconds: float = 0.5
    miss_seconds: float = 0.05
    wait_seconds: float = 1.0
    trees_max: int = 256


class Namespace:
    """Given: the catalogue. Changing: the names last seen, and a few trees, least recently used first."""

    def __init__(self, catalog: Catalog, options: NamespaceOptions = NamespaceOptions()) -> None:
        self._catalog = catalog
        self._options = options
        self._models: Mapping[str, RefName] = {}
        self._sorted: list[str] = []
        self._seen_at = -float("inf")
        self._failing = False
        self._wanted = trio.Event()
        self._asked = trio.Event()
        self._trees: dict[bytes, Tree] = {}

    async def run(self, *, task_status: trio.TaskStatus[None] = trio.TASK_STATUS_IGNORED) -> None:
        """Keep the names fresh until cancelled."""
        task_status.started()
        while True:
            await self._wanted.wait()
            started = trio.current_time()
            try:
                await self._refresh()
            except Exception:  # a bug must not end the mount
                logger.exception("names not refreshed")
                self._failing = True
            self._seen_at = started
            self._wanted = trio.Event()
            self._asked.set()
            self._asked = trio.Event()

    async def models(self) -> Mapping[str, RefName]:
        """The newest generation of each model, sorted by name."""
        return await self._not_older_than(self._options.refresh_seconds)

    async def _not_older_than(self, seconds: float) -> Mapping[str, RefName]:
        if trio.current_time() - self._seen_at >= seconds:
            self._wanted.set()
            with trio.move_on_after(0 if self._failing else self._options.wait_seconds):
                await self._asked.wait()
        return self._models

    async def children(self, prefix: str) -> dict[str, RefName | None]:
        """Names directly below `prefix`: a model's ref, or None for a folder of further names."""
        await self.models()
        found: dict[str, RefName | None] = {}
        for at in range(bisect_left(self._sorted, prefix), len(self._sorted)):
            model = self._sorted[at]
            if not model.startswith(prefix):
                break
            name, slash, _ = model[len(prefix) :].partition("/")
            if not slash:
                found[name] = self._models[model]
            else:
                found.setdefault(name, None)
        return found

    async def find(self, path: str) -> RefName | None:
        """The ref of model `path` (`name` or `name@generation`), or None for a folder of names. NotFound."""
        for age in (self._options.refresh_seconds, self._options.miss_seconds):
            models = await self._not_older_than(age)
            if path in models:
                return models[path]
            at = bisect_left(self._sorted, path + "/")
            if at < len(self._sorted) and self._sorted[at].startswith(path + "/"):
                return None
        try:
            name = ModelName.parse(path)
        except InvalidName:
            raise NotFound(path) from None
        if name.generation is None:
            raise NotFound(path)
        return await self._catalog.resolve(name)

    async def tree(self, ref: RefName) -> Tree:
        """The generation's tree. NoCopy when no node has the manifest."""
        key = f"{ref.key}".encode()
        tree = self._trees.pop(key, None)
        if tree is None:
            tree = Tree(ref, await self._catalog.manifest(ref.manifest))
        self._trees[key] = tree
        while len(self._trees) > self._options.trees_max:
            del self._trees[next(iter(self._trees))]
        return tree

    async def _refresh(self) -> None:
        try:
            models = await self._catalog.models()
        except ShardfsError as error:
            self._failing = True
            logger.debug("names not refreshed: %s", error)
            return
        self._failing = False
        if models != self._models:
            self._models, self._sorted = models, sorted(models)
