"""Models, their generations and their content, as records. Each call opens and closes its own connections."""

from collections.abc import Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass

import trio

from shardfs.api.whereabouts import whereabouts
from shardfs.catalog import Catalog, RefView
from shardfs.core.cluster import Cluster
from shardfs.core.digest import ZERO_DIGEST, Digest
from shardfs.core.keys import RefName
from shardfs.core.manifest import FileEntry, Manifest
from shardfs.core.names import ModelName
from shardfs.core.placement import Placement
from shardfs.core.ranges import chunk_count
from shardfs.errors import NoCopy
from shardfs.wiring.client import client

_MANIFESTS_AT_ONCE = 8


@dataclass(frozen=True, slots=True)
class Reach:
    """Who answered. Without a `majority`, something newer may exist on the nodes that did not."""

    answered: tuple[str, ...]
    failed: Mapping[str, str]
    majority: bool

    @classmethod
    def of(cls, view: RefView) -> "Reach":
        return cls(view.answered, view.failed, view.majority)


@dataclass(frozen=True, slots=True)
class Generation:
    """One generation. `nodes`: how many of those that answered hold its ref.

    `created` (seconds since 1970), `files` and `size` (bytes) are None where they were not asked for or no node
    delivers the manifest.
    """

    name: str
    generation: int
    digest: Digest
    deleted: bool
    nodes: int
    created: int | None = None
    files: int | None = None
    size: int | None = None


@dataclass(frozen=True, slots=True)
class Listing:
    """Generations with who said so."""

    generations: tuple[Generation, ...]
    reach: Reach


@dataclass(frozen=True, slots=True)
class FileInfo:
    """One file; `holes` of its `chunks` read as zeros and are stored nowhere."""

    path: str
    size: int
    executable: bool
    chunks: int
    holes: int


@dataclass(frozen=True, slots=True)
class ModelInfo:
    """A generation in full. `stored_chunks` are different from each other, with `stored_bytes` of plain content.

    `looked_chunks` of them were looked at; `external_nodes` says how many of those only point into which node's engine.
    """

    name: str
    generation: int
    newest: bool
    digest: Digest
    created: int
    size: int
    chunk_size: int
    block_size: int
    single: bool
    files: tuple[FileInfo, ...]
    folders: tuple[str, ...]
    chunks: int
    holes: int
    stored_chunks: int
    stored_bytes: int
    looked_chunks: int
    external_nodes: Mapping[str, int]
    replicas: int
    ref_nodes: tuple[str, ...]


async def models(cluster: Cluster, prefix: str = "", *, details: bool = False) -> Listing:
    """The newest generation of each model whose name begins with `prefix`; `details` fetches every manifest."""
    async with client(cluster) as (_, catalog):
        view = await catalog.refs()
        refs = [ref for model, ref in view.models.items() if model.startswith(prefix)]
        return Listing(await _generations(catalog, view, refs, details=details), Reach.of(view))


async def versions(cluster: Cluster, model: str) -> Listing:
    """Every stored generation of `model`, oldest first. NotFound when there is none."""
    async with client(cluster) as (_, catalog):
        refs = await catalog.versions(model)
        view = await catalog.refs(model)
        return Listing(await _generations(catalog, view, refs, details=True), Reach.of(view))


async def info(cluster: Cluster, name: ModelName) -> ModelInfo:
    """What the generation consists of. NotFound, or NoCopy when no node delivers its manifest."""
    async with client(cluster) as (fleet, catalog):
        ref = await catalog.resolve(name)
        view = await catalog.refs(ref.model)
        manifest = await catalog.manifest(ref.manifest)
        where = await whereabouts(fleet, Placement(cluster), manifest)
    files = tuple(_file_info(manifest, file) for file in manifest.files)
    stored = manifest.chunk_lengths()
    return ModelInfo(
        name=ref.model,
        generation=ref.generation,
        newest=view.newest.get(ref.model) == ref,
        digest=ref.manifest,
        created=manifest.created,
        size=manifest.size,
        chunk_size=manifest.chunk_size,
        block_size=manifest.block_size,
        single=manifest.single,
        files=files,
        folders=manifest.folders,
        chunks=manifest.chunks,
        holes=sum(file.holes for file in files),
        stored_chunks=len(stored),
        stored_bytes=sum(stored.values()),
        looked_chunks=where.looked,
        external_nodes=where.external,
        replicas=cluster.replicas,
        ref_nodes=tuple(node for node, held in view.by_node.items() if ref in held),
    )


async def remove(cluster: Cluster, model: str) -> RefName:
    """Delete the model by a tombstone on a majority, and return the tombstone. NotFound, NotEnoughNodes."""
    async with client(cluster) as (_, catalog):
        return await catalog.delete(model)


def _file_info(manifest: Manifest, file: FileEntry) -> FileInfo:
    chunks = chunk_count(file.size, manifest.chunk_size)
    return FileInfo(file.path, file.size, file.executable, chunks, file_holes(manifest, file))


def file_holes(manifest: Manifest, file: FileEntry) -> int:
    """Chunks of `file` that read as zeros and are stored nowhere."""
    return sum(manifest.digest(file, chunk) is None for chunk in range(chunk_count(file.size, manifest.chunk_size)))


async def _generations(
    catalog: Catalog, view: RefView, refs: Sequence[RefName], *, details: bool
) -> tuple[Generation, ...]:
    manifests: dict[Digest, Manifest] = {}
    slots = trio.Semaphore(_MANIFESTS_AT_ONCE)

    async def fetch(digest: Digest) -> None:
        async with slots:
            with suppress(NoCopy):  # shown as unknown
                manifests[digest] = await catalog.manifest(digest)

    if details:
        async with trio.open_nursery() as nursery:
            for digest in {ref.manifest for ref in refs} - {ZERO_DIGEST}:
                nursery.start_soon(fetch, digest)
    return tuple(_generation(ref, view, manifests.get(ref.manifest)) for ref in refs)


def _generation(ref: RefName, view: RefView, manifest: Manifest | None) -> Generation:
    return Generation(
        name=ref.model,
        generation=ref.generation,
        digest=ref.manifest,
        deleted=ref.deleted,
        nodes=sum(ref in held for held in view.by_node.values()),
        created=manifest.created if manifest else None,
        files=len(manifest.files) if manifest else None,
        size=manifest.size if manifest else None,
    )
