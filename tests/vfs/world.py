"""A cluster in memory and the real filesystem over it: all of the read path but FUSE and sockets.

Chunks are small (four blocks of 4 KiB), so that a file of many chunks costs nothing.
"""

from collections.abc import AsyncIterator, Callable, Mapping
from contextlib import asynccontextmanager
from pathlib import Path

import trio

from shardfs.cache import DiskCache
from shardfs.cache.memory import SlotPool
from shardfs.catalog import Catalog
from shardfs.core.chunk import header_size, make_header
from shardfs.core.cluster import Cluster, Node
from shardfs.core.digest import ZERO_DIGEST, digest_of
from shardfs.core.keys import RefName, chunk_key, manifest_key
from shardfs.core.manifest import make_manifest
from shardfs.core.placement import Placement
from shardfs.core.ref import encode_ref
from shardfs.fetch import Engine, EngineOptions
from shardfs.obs.reading import ReadMetrics
from shardfs.store.fleet import Fleet
from shardfs.store.watched import WatchedStore
from shardfs.testing.memory_store import MemoryStore
from shardfs.vfs import FileSystem
from shardfs.vfs.filesystem import FileSystemOptions
from shardfs.vfs.namespace import Namespace, NamespaceOptions

BLOCK = 4096
CHUNK = 4 * BLOCK
ROOT = 1
STARTED = 1_700_000_000


class World:
    """Nodes a, b, c. `publish` plants a generation on them; `filesystem` is another mount's view of it all."""

    def __init__(self, replicas: int = 2) -> None:
        self.stores = [MemoryStore(name) for name in "abc"]
        self.cluster = Cluster(tuple(Node(s.node, f"file:///{s.node}") for s in self.stores), replicas, CHUNK)
        self.placement = Placement(self.cluster)

    def publish(
        self,
        model: str,
        files: Mapping[str, bytes] | bytes,
        *,
        generation: int = 1,
        executable: str = "",
        folders: tuple[str, ...] = (),
        chunk_size: int = CHUNK,
        block_size: int = BLOCK,
    ) -> RefName:
        """One file (bytes) or a folder. A chunk of zeros becomes a hole."""
        single = isinstance(files, bytes)
        listed = {"": files} if isinstance(files, bytes) else files
        ordered = sorted(listed.items(), key=lambda item: item[0].encode())
        digests = b""
        for _, content in ordered:
            for at in range(0, len(content), chunk_size):
                digests += self._store(content[at : at + chunk_size], block_size)
        manifest = make_manifest(
            [(path, len(content), path == executable and not single) for path, content in ordered],
            digests,
            created=STARTED + generation,
            single=single,
            folders=folders,
            chunk_size=chunk_size,
            block_size=block_size,
        )
        data = manifest.encode()
        ref = RefName(model, generation, digest_of(data))
        for store in self.stores:
            store.objects[manifest_key(ref.manifest)] = data
            store.objects[ref.key] = encode_ref(ref)
        return ref

    def delete(self, model: str, generation: int) -> None:
        ref = RefName(model, generation, ZERO_DIGEST)
        for store in self.stores:
            store.objects[ref.key] = encode_ref(ref)

    def chunks(self) -> list[str]:
        return sorted({key for store in self.stores for key in store.objects if key.startswith("chunks/")})

    @asynccontextmanager
    async def filesystem(
        self,
        *,
        cache: Path | None = None,
        slots: int = 16,
        slot_bytes: int = CHUNK,
        job_seconds: float = 9.0,
        fresh: bool = True,
        options: FileSystemOptions = FileSystemOptions(),
    ) -> AsyncIterator[FileSystem]:
        """With `fresh`, names are asked for at every look."""
        header = header_size(slot_bytes, BLOCK)
        room = -(-header // 4096) * 4096 + -(-slot_bytes // 4096) * 4096
        disk = None if cache is None else DiskCache.open(cache, limit_bytes=1 << 30)
        async with Fleet([WatchedStore(store) for store in self.stores]) as fleet, trio.open_nursery() as nursery:
            catalog = Catalog(fleet, self.cluster, manifests=None if disk is None else disk.manifests)
            engine = Engine(
                fleet,
                self.placement,
                SlotPool(slots * room, plain_bytes=slot_bytes, header_bytes=header),
                metrics=ReadMetrics(),
                options=EngineOptions(job_timeout_seconds=job_seconds),
                chance=lambda: 0.5,
            )
            await nursery.start(fleet.run_probes)
            await nursery.start(engine.run)
            namespace = Namespace(catalog, NamespaceOptions(refresh_seconds=0.0 if fresh else 0.5))
            await nursery.start(namespace.run)
            yield FileSystem(namespace, engine, disk=disk, started=STARTED, options=options)
            nursery.cancel_scope.cancel()
        for store in self.stores:
            store.closed = False
        if disk is not None:
            disk.close()

    def _store(self, plain: bytes, block_size: int) -> bytes:
        if plain.count(0) == len(plain):
            return bytes(ZERO_DIGEST)
        digest, header = make_header(plain, block_size)
        for node in self.placement.ranking(digest)[: self.placement.replicas]:
            store = next(s for s in self.stores if s.node == node.id)
            store.objects[chunk_key(digest)] = header.encode() + plain
        return bytes(digest)


async def walk(fs: FileSystem, path: str) -> int:
    """The inode of `path`, looked up part by part. Each part counts as a reference, as for the kernel."""
    inode = ROOT
    for part in path.split("/"):
        inode = (await fs.lookup(inode, part.encode())).inode
    return inode


async def listing(fs: FileSystem, inode: int) -> list[str]:
    handle = await fs.opendir(inode)
    names = [name for name, _ in fs.entries(handle, 0)]
    fs.releasedir(handle)
    return names


async def content(fs: FileSystem, inode: int, *, step: int = CHUNK) -> bytes:
    """The whole file through reads of `step` bytes."""
    handle = await fs.open(inode)
    try:
        size, found = fs.getattr(inode).size, b""
        for at in range(0, size, step):
            found += bytes(await fs.read(handle, at, step))
        return found
    finally:
        fs.release(handle)


async def until(condition: Callable[[], bool], seconds: float = 60.0) -> None:
    """Wait for something that other tasks or threads bring about."""
    with trio.fail_after(seconds):
        while not condition():  # noqa: ASYNC110 - the condition is a look from outside
            await trio.sleep(0.005)
