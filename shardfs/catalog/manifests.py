"""Verified manifests: from memory, from a local folder, from whichever node delivers one that matches its digest.

Placement does not apply to manifests: any node may have one. Nodes that are well are asked first, beginning at a place
that the digest gives, so that many manifests spread over many nodes. The next node starts when one fails (at once) or
is late; the first verified answer wins and the others are cancelled.

The folder is a convenience (`shardfs.catalog.manifest_folder`): what it holds is verified like everything else, and
what does not verify is removed.
"""

import logging
from collections import OrderedDict
from pathlib import Path

import trio

from shardfs.catalog.ask import reasons
from shardfs.catalog.manifest_folder import ManifestFolder
from shardfs.catalog.options import CatalogOptions
from shardfs.core.digest import Digest
from shardfs.core.keys import manifest_key
from shardfs.core.manifest import MANIFEST_BYTES_MAX, Manifest, decode_manifest
from shardfs.errors import InvalidFormat, NoCopy, NotFound, StoreError
from shardfs.store.fleet import Fleet
from shardfs.store.watched import WatchedStore

logger = logging.getLogger(__name__)

_FILE_ENTRY_BYTES = 250  # what one decoded file entry occupies, about
_INLINE_BYTES = 256 * 1024  # above this, decoding goes to a thread: it takes milliseconds


class Manifests:
    """Given: fleet, options, folder. Changing, by the event loop only: memory, locks."""

    def __init__(self, fleet: Fleet, *, options: CatalogOptions, folder: Path | None) -> None:
        self._fleet = fleet
        self._options = options
        self._folder = None if folder is None else ManifestFolder(folder, options=options)
        self._memory: OrderedDict[Digest, tuple[Manifest, int]] = OrderedDict()
        self._memory_bytes = 0
        self._coming: dict[Digest, trio.Lock] = {}

    async def get(self, digest: Digest) -> Manifest:
        """The manifest named `digest`. NoCopy lists why each node could not deliver it."""
        if (found := self._remembered(digest)) is not None:
            return found
        lock = self._coming.setdefault(digest, trio.Lock())
        try:
            async with lock:  # whoever else wants it waits here and then finds it in memory
                if (found := self._remembered(digest)) is not None:
                    return found
                return await self._fetch(digest)
        finally:
            if not lock.locked():
                self._coming.pop(digest, None)

    async def keep(self, digest: Digest, manifest: Manifest, data: bytes) -> None:
        """Remember a manifest that is known to be right: `data` is its encoding, `digest` that encoding's digest."""
        self._remember(digest, manifest, len(data))
        if self._folder is not None:
            await self._folder.write(str(digest), data)

    async def _fetch(self, digest: Digest) -> Manifest:
        local = await self._from_folder(digest)
        if local is None:
            try:
                manifest, data = await self._from_nodes(digest)
            except NoCopy:
                local = await self._from_folder(digest, late=True)
                if local is None:
                    raise
            else:
                await self.keep(digest, manifest, data)
                return manifest
        manifest, size = local
        self._remember(digest, manifest, size)
        return manifest

    # ---------------------------------------------------------------------------------------------------- memory

    def _remembered(self, digest: Digest) -> Manifest | None:
        found = self._memory.get(digest)
        if found is None:
            return None
        self._memory.move_to_end(digest)
        return found[0]

    def _remember(self, digest: Digest, manifest: Manifest, size: int) -> None:
        cost = size + _FILE_ENTRY_BYTES * len(manifest.files)
        if cost > self._options.memory_bytes or digest in self._memory:
            return
        self._memory[digest] = (manifest, cost)
        self._memory_bytes += cost
        while self._memory_bytes > self._options.memory_bytes:
            _, (_, freed) = self._memory.popitem(last=False)
            self._memory_bytes -= freed

    # ----------------------------------------------------------------------------------------------------- nodes

    async def _from_nodes(self, digest: Digest) -> tuple[Manifest, bytes]:
        key = manifest_key(digest)
        stores = self._fleet.stores
        begin = digest[0] % max(1, len(stores))
        order = sorted(stores[begin:] + stores[:begin], key=lambda store: not store.available)
        failed: dict[str, str] = {}
        won: list[tuple[Manifest, bytes]] = []
        slots = trio.Semaphore(self._options.manifest_racers)

        async def attempt(store: WatchedStore, finished: trio.Event) -> None:
            try:
                with trio.fail_after(self._options.manifest_timeout):
                    data = await store.read(key, limit=MANIFEST_BYTES_MAX)
                won.append((await _decode(data, digest), data))
                nursery.cancel_scope.cancel()
            except InvalidFormat as error:
                failed[store.node] = "wrong bytes"
                store.corrupt(str(error))
                logger.warning("node %s delivered wrong bytes: %s", store.node, error)
            except trio.TooSlowError:
                failed[store.node] = "no answer in time"
                store.late("no answer in time")
            except NotFound:
                failed[store.node] = "not there"
            except StoreError as error:
                failed[store.node] = error.reason
            finally:
                finished.set()
                slots.release()

        async with trio.open_nursery() as nursery:
            for store in order:
                await slots.acquire()
                finished = trio.Event()
                nursery.start_soon(attempt, store, finished)
                with trio.move_on_after(self._options.manifest_hedge):
                    await finished.wait()
        if not won:
            raise NoCopy(f"manifest {digest}: no node could deliver it ({reasons(failed)})")
        return won[0]

    # ---------------------------------------------------------------------------------------------------- folder

    async def _from_folder(self, digest: Digest, *, late: bool = False) -> tuple[Manifest, int] | None:
        if self._folder is None:
            return None
        read = self._folder.read_late if late else self._folder.read
        data = await read(str(digest))
        if data is None:
            return None
        try:
            return await _decode(data, digest), len(data)
        except InvalidFormat as error:
            logger.warning("local copy removed: %s", error)
            await self._folder.remove(str(digest))
            return None


async def _decode(data: bytes, digest: Digest) -> Manifest:
    if len(data) <= _INLINE_BYTES:
        return decode_manifest(data, digest)
    return await trio.to_thread.run_sync(decode_manifest, data, digest, abandon_on_cancel=True)
