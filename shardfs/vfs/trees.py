"""Trees of generations, with their manifests: those that are open, and within a limit of bytes the last used.

Besides, the last one that alone is larger than the limit: it takes long to make, and a file is looked up and then
opened, which needs its tree twice.

The one place where a mount keeps manifests in memory. A tree that somebody holds is found for as long as it is held,
whatever the limit says, so that one generation is never in memory twice.
"""

import logging
from weakref import WeakValueDictionary

import trio

from shardfs.catalog import Catalog
from shardfs.core.keys import RefName
from shardfs.core.manifest import Manifest
from shardfs.errors import InvalidFormat, NoCopy
from shardfs.obs.throttle import Throttle
from shardfs.vfs.tree import Tree

logger = logging.getLogger(__name__)


class Trees:
    """Given: catalogue, limit. Changing, by the event loop only: the trees kept, least recently used first."""

    def __init__(self, catalog: Catalog, *, bytes_max: int) -> None:
        self._catalog = catalog
        self._bytes_max = bytes_max
        self._kept: dict[str, tuple[Tree, int]] = {}
        self._kept_bytes = 0
        self._large: Tree | None = None
        self._held: WeakValueDictionary[str, Tree] = WeakValueDictionary()
        self._coming: dict[str, trio.Lock] = {}
        self._throttle = Throttle(burst=4, seconds=60.0)
        self._said = ""

    @property
    def kept_bytes(self) -> int:
        """By `Tree.memory_bytes`, without the one that is larger than the limit."""
        return self._kept_bytes

    def __contains__(self, ref: RefName) -> bool:
        return str(ref.key) in self._held

    async def get(self, ref: RefName) -> Tree:
        """The generation's tree. NoCopy when no node has the manifest, AllDenied when all refuse the credentials."""
        key = str(ref.key)
        tree = self._held.get(key)
        if tree is None:
            lock = self._coming.setdefault(key, trio.Lock())
            try:
                async with lock:  # whoever else wants it waits here and then finds it
                    tree = self._held.get(key)
                    if tree is None:
                        tree = Tree(ref, await self._manifest(ref))
                    self._keep(key, tree)
            finally:
                if not lock.locked():
                    self._coming.pop(key, None)
        else:
            self._keep(key, tree)
        return tree

    async def _manifest(self, ref: RefName) -> Manifest:
        """A program that needs it is only told an errno: why is said in the log, once while nothing changes."""
        try:
            manifest = await self._catalog.manifest(ref.manifest)
        except (NoCopy, InvalidFormat) as error:
            self._complain(f"{ref.model}@{ref.generation}: {error}")
            raise
        self._said = ""
        return manifest

    def _complain(self, text: str) -> None:
        if text == self._said:
            return
        said, left_out = self._throttle.admit(trio.current_time())
        if left_out:
            logger.warning("and %d more manifests that could not be had", left_out)
        if said:
            logger.warning("%s", text)
            self._said = text

    def _keep(self, key: str, tree: Tree) -> None:
        self._held[key] = tree
        if tree is self._large:
            return
        _, cost = self._kept.pop(key, (tree, 0))
        if not cost:
            cost = tree.memory_bytes
            if cost > self._bytes_max:
                self._large = tree
                return
            self._kept_bytes += cost
        self._kept[key] = tree, cost
        while self._kept_bytes > self._bytes_max:
            _, freed = self._kept.pop(next(iter(self._kept)))
            self._kept_bytes -= freed
