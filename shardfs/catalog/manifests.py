"""Verified manifests: from memory, from a local folder, from whichever node delivers one that matches its digest.

Placement does not apply to manifests: any node may have one. Nodes that are well are asked first, beginning at a place
that the digest gives, so that many manifests spread over many nodes. The next node starts when one fails (at once) or
is late; the first verified answer wins and the others are cancelled.

Large ones take turns: their bytes are in memory several times while one is fetched and decoded. That one is large shows
when the first part of it has come, and then it is asked for anew.

The folder is a convenience (`shardfs.catalog.manifest_folder`): what it holds is verified like everything else, and
what does not verify is removed.
"""

import logging
from collections import OrderedDict
from pathlib import Path

import numpy as np
import trio

from shardfs.catalog.ask import reasons
from shardfs.catalog.manifest_folder import ManifestFolder
from shardfs.catalog.options import CatalogOptions
from shardfs.core.digest import Digest
from shardfs.core.keys import ObjectKey, manifest_key
from shardfs.core.manifest import MANIFEST_BYTES_MAX, Manifest, decode_manifest
from shardfs.errors import AllDenied, Denied, InvalidFormat, NoCopy, NotFound, StoreError
from shardfs.store.fleet import Fleet
from shardfs.store.watched import WatchedStore

logger = logging.getLogger(__name__)

_FILE_ENTRY_BYTES = 250  # what one decoded file entry occupies, about
LARGE_BYTES = 1024 * 1024
"""Manifests from this size on, those of models of 128 GiB in chunks of 4 MiB, are fetched one at a time."""
_THREAD_BYTES = 256 * 1024  # from here on decoding goes to a thread: it takes milliseconds


class _Large(Exception):
    """It has at least LARGE_BYTES."""


class Manifests:
    """Given: fleet, options, folder. Changing, by the event loop only: memory, locks."""

    def __init__(self, fleet: Fleet, *, options: CatalogOptions, folder: Path | None) -> None:
        self._fleet = fleet
        self._options = options
        self._folder = None if folder is None else ManifestFolder(folder, options=options)
        self._memory: OrderedDict[Digest, tuple[Manifest, int]] = OrderedDict()
        self._memory_bytes = 0
        self._coming: dict[Digest, trio.Lock] = {}
        self._large_turn = trio.Lock()
        self._thread = trio.CapacityLimiter(1)  # one decodes at a time: that takes several times the memory

    async def get(self, digest: Digest) -> Manifest:
        """The manifest named `digest`. NoCopy lists why each node could not; AllDenied when all refuse us."""
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

    async def tidy(self) -> None:
        """Bring the folder within its limit, which may be lower than that of who had it before."""
        if self._folder is not None:
            await self._folder.tidy()

    async def _fetch(self, digest: Digest) -> Manifest:
        try:
            return await self._fetch_up_to(LARGE_BYTES - 1, digest)
        except _Large:
            # Not for ever: the one before may wait for a node that hangs.
            with trio.move_on_after(self._options.large_turn) as patience:
                await self._large_turn.acquire()
            try:
                return await self._fetch_up_to(MANIFEST_BYTES_MAX, digest)
            finally:
                if not patience.cancelled_caught:
                    self._large_turn.release()

    async def _fetch_up_to(self, limit: int, digest: Digest) -> Manifest:
        local = await self._from_folder(digest, limit)
        if local is None:
            try:
                manifest, data = await self._from_nodes(digest, limit)
            except NoCopy:
                local = await self._from_folder(digest, limit, late=True)
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

    async def _from_nodes(self, digest: Digest, limit: int) -> tuple[Manifest, bytes]:
        key = manifest_key(digest)
        stores = self._fleet.stores
        begin = digest[0] % max(1, len(stores))
        order = sorted(stores[begin:] + stores[:begin], key=lambda store: not store.available)
        failed: dict[str, str] = {}
        denied: list[str] = []
        won: list[tuple[Manifest, bytes]] = []
        large: list[str] = []
        slots = trio.Semaphore(self._options.manifest_racers)

        async def attempt(store: WatchedStore, finished: trio.Event) -> None:
            try:
                with trio.fail_after(self._options.manifest_timeout):
                    data = await _read(store, key, limit)
                won.append((await self._decode(data, digest), data))
                nursery.cancel_scope.cancel()
            except _Large:
                large.append(store.node)
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
                if isinstance(error, Denied):
                    denied.append(store.node)
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
        if large and not won:
            raise _Large
        if not won:
            message = f"manifest {digest}: no node could deliver it ({reasons(failed)})"
            raise AllDenied(denied[0], message) if denied and len(denied) == len(failed) else NoCopy(message)
        return won[0]

    # ---------------------------------------------------------------------------------------------------- folder

    async def _from_folder(self, digest: Digest, limit: int, *, late: bool = False) -> tuple[Manifest, int] | None:
        if self._folder is None:
            return None
        read = self._folder.read_late if late else self._folder.read
        data = await read(str(digest), limit + 1)
        if data is None:
            return None
        if len(data) > limit and limit < MANIFEST_BYTES_MAX:
            raise _Large
        try:
            return await self._decode(data, digest), len(data)
        except InvalidFormat as error:
            logger.warning("local copy removed: %s", error)
            await self._folder.remove(str(digest))
            return None

    async def _decode(self, data: bytes, digest: Digest) -> Manifest:
        if len(data) < _THREAD_BYTES:
            return decode_manifest(data, digest)
        return await trio.to_thread.run_sync(
            decode_manifest, data, digest, abandon_on_cancel=True, limiter=self._thread
        )


async def _read(store: WatchedStore, key: ObjectKey, limit: int) -> bytes:
    """The manifest's bytes. _Large when there are more than `limit`."""
    if limit >= MANIFEST_BYTES_MAX:
        return await store.read(key, limit=MANIFEST_BYTES_MAX)
    data = np.empty(limit + 1, dtype=np.uint8).data  # not zeroed: nearly all manifests are far smaller
    count = await store.begin(key, data)
    if count > limit:
        raise _Large
    return bytes(data[:count])
