"""Verified manifests: from memory, from a local folder, from whichever node delivers one that matches its digest.

Placement does not apply to manifests: any node may have one. Nodes that are well are asked first, beginning at a place
that the digest gives, so that many manifests spread over many nodes. The next node starts when one fails (at once) or
is late; the first verified answer wins and the others are cancelled.

The folder is a convenience that may be lost at any time: what it holds is verified like everything else, what does not
verify is removed, and a folder that cannot be written is warned about once.
"""

import logging
import os
import tempfile
from collections import OrderedDict
from collections.abc import Callable
from math import inf
from pathlib import Path
from typing import TypeVar, TypeVarTuple

import trio

from shardfs.catalog.ask import reasons
from shardfs.catalog.options import CatalogOptions
from shardfs.core.digest import Digest
from shardfs.core.keys import manifest_key
from shardfs.core.manifest import MANIFEST_BYTES_MAX, Manifest, decode_manifest
from shardfs.errors import InvalidFormat, NoCopy, NotFound, StoreError
from shardfs.store.fleet import Fleet
from shardfs.store.watched import WatchedStore

logger = logging.getLogger(__name__)

T = TypeVar("T")
Ts = TypeVarTuple("Ts")

_FILE_ENTRY_BYTES = 250  # what one decoded file entry occupies, about
_SPARE_SHARE = 0.1  # of the folder's limit
_INLINE_BYTES = 256 * 1024  # above this, decoding goes to a thread: it takes milliseconds


class Manifests:
    """Given: fleet, options, folder. Changing, by the event loop only: memory, locks, whether the folder works."""

    def __init__(self, fleet: Fleet, *, options: CatalogOptions, folder: Path | None) -> None:
        self._fleet = fleet
        self._options = options
        self._folder = folder
        self._memory: OrderedDict[Digest, tuple[Manifest, int]] = OrderedDict()
        self._memory_bytes = 0
        self._coming: dict[Digest, trio.Lock] = {}
        self._warned = False
        self._folder_bytes = inf  # at most so much is in it; not known before the first look

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
        await self._to_folder(digest, data)
        self._remember(digest, manifest, len(data))

    async def _fetch(self, digest: Digest) -> Manifest:
        local = await self._from_folder(digest)
        if local is not None:
            manifest, size = local
            self._remember(digest, manifest, size)
            return manifest
        manifest, data = await self._from_nodes(digest)
        await self.keep(digest, manifest, data)
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

    async def _from_folder(self, digest: Digest) -> tuple[Manifest, int] | None:
        if self._folder is None:
            return None
        path = self._folder / str(digest)
        data = await _in_thread(_read_file, path)
        if data is None:
            return None
        try:
            return await _decode(data, digest), len(data)
        except InvalidFormat as error:
            logger.warning("local copy removed: %s", error)
            await _in_thread(_remove_file, path)
            return None

    async def _to_folder(self, digest: Digest, data: bytes) -> None:
        if self._folder is None:
            return
        try:
            await _in_thread(_write_file, self._folder, str(digest), data)
            self._folder_bytes += len(data)
            limit = self._options.folder_bytes
            if self._folder_bytes > limit:
                # To make room for several: looking through the folder for each of ten thousand manifests would take
                # longer than fetching them.
                spare = int(limit * _SPARE_SHARE)
                keep = limit if len(data) > spare else limit - spare
                self._folder_bytes = await _in_thread(_sweep, self._folder, keep)
        except OSError as error:
            if not self._warned:
                self._warned = True
                logger.warning("manifests are not kept in %s: %s", self._folder, error.strerror)


async def _decode(data: bytes, digest: Digest) -> Manifest:
    if len(data) <= _INLINE_BYTES:
        return decode_manifest(data, digest)
    return await _in_thread(decode_manifest, data, digest)


async def _in_thread(step: Callable[[*Ts], T], *args: *Ts) -> T:
    """Cancellable even while a disk hangs: nothing here leaves a half-made file when nobody waits for it."""
    return await trio.to_thread.run_sync(step, *args, abandon_on_cancel=True)


def _read_file(path: Path) -> bytes | None:
    """The whole file, marked as used; None when it cannot be read or is too large to be a manifest."""
    try:
        with path.open("rb") as file:
            data = file.read(MANIFEST_BYTES_MAX + 1)
            os.utime(file.fileno())
    except OSError:
        return None
    return data if len(data) <= MANIFEST_BYTES_MAX else None


def _remove_file(path: Path) -> None:
    path.unlink(missing_ok=True)


def _write_file(folder: Path, name: str, data: bytes) -> None:
    """Whole or absent, by rename."""
    folder.mkdir(parents=True, exist_ok=True)
    handle, temporary = tempfile.mkstemp(prefix=".", suffix=".new", dir=folder)
    try:
        with os.fdopen(handle, "wb") as file:
            file.write(data)
        os.replace(temporary, folder / name)
    except BaseException:
        Path(temporary).unlink(missing_ok=True)
        raise


def _sweep(folder: Path, bytes_max: int) -> int:
    """The longest unused go until what is left has at most `bytes_max`; return how much that is."""
    with os.scandir(folder) as entries:
        kept = sorted(((e.stat().st_mtime, e.stat().st_size, e.path) for e in entries), reverse=True)
    total = 0
    for _, size, path in kept:
        if total + size > bytes_max:
            Path(path).unlink(missing_ok=True)
        else:
            total += size
    return total
