"""Publishes an origin as a new generation: look, send the chunks, look again, then manifest and ref.

Nothing is visible before the last step, and what is sent before a failure is found present by the next run: that is
all there is to resuming.
"""

from dataclasses import dataclass, field

import trio

from shardfs.admin.copies import Copies, Replaced
from shardfs.admin.origin import Origin
from shardfs.admin.source import of_the_source
from shardfs.admin.upload import Tally, UploadOptions, upload
from shardfs.catalog import Catalog
from shardfs.core.chunk import BLOCK_SIZE
from shardfs.core.cluster import Cluster
from shardfs.core.digest import DIGEST_BYTES
from shardfs.core.manifest import MANIFEST_BYTES_MAX, Manifest, make_manifest
from shardfs.core.names import check_model, check_new
from shardfs.core.refs import folder_conflict
from shardfs.core.units import format_size
from shardfs.errors import Conflict, UsageError

_SIZE_BYTES_MAX = 8  # what the size of a file takes in a manifest beyond that of an empty one


@dataclass(frozen=True, slots=True)
class Put:
    """What a publish did. `digest` is the manifest's; bytes are of the origin: sent + present + zero = size."""

    name: str
    generation: int
    digest: str
    files: int
    size: int
    chunks: int
    bytes_sent: int
    bytes_present: int
    bytes_zero: int
    seconds: float
    unchanged: bool
    raced: bool
    replaced_nodes: dict[str, Replaced] = field(default_factory=dict)


async def publish(
    origin: Origin,
    model: str,
    *,
    copies: Copies,
    catalog: Catalog,
    created: int,
    tally: Tally,
    options: UploadOptions = UploadOptions(),
) -> Put:
    """Publish `origin` as the newest generation of `model`. `created` is seconds since 1970.

    Raises SourceError, NotEnoughNodes, Denied, Conflict or a UsageError; then nothing is published.
    """
    check_new(check_model(model), "model name")
    with of_the_source():
        for path in (*(file.path for file in origin.files), *origin.folders):
            check_new(path, f"{origin.shown}: file name")
    started = trio.current_time()
    cluster = copies.cluster
    pieces = origin.pieces(chunk_size=cluster.chunk_size, block_size=BLOCK_SIZE, readers=options.readers)
    try:
        _check_fits(origin, pieces.chunks, cluster, created)
        await copies.check()
        if other := folder_conflict(model, await catalog.models()):
            raise Conflict(f"{model}: cannot exist beside the model {other}, one would be a folder of the other")
        await upload(pieces, copies, chunk_size=cluster.chunk_size, tally=tally, options=options)
    finally:
        pieces.close()
    await origin.check_unchanged()
    manifest = _manifest(origin, bytes(pieces.digests), cluster, created)
    del pieces  # for 8 TiB its digests are 64 MiB, which are in the manifest now
    tally.committing = True
    with trio.CancelScope(shield=True):  # bounded by the catalogue's deadlines; cut off here, nobody could say what is
        published = await catalog.publish(model, manifest)
    return Put(
        name=model,
        generation=published.ref.generation,
        digest=published.ref.manifest.hex(),
        files=len(manifest.files),
        size=manifest.size,
        chunks=manifest.chunks,
        bytes_sent=tally.sent,
        bytes_present=tally.present,
        bytes_zero=tally.zero,
        seconds=trio.current_time() - started,
        unchanged=published.unchanged,
        raced=published.raced,
        replaced_nodes=copies.replaced,
    )


def _manifest(origin: Origin, digests: bytes, cluster: Cluster, created: int, *, empty: bool = False) -> Manifest:
    return make_manifest(
        [(file.path, 0 if empty else file.size, file.executable) for file in origin.files],
        digests,
        created=created,
        single=origin.single,
        folders=origin.folders,
        chunk_size=cluster.chunk_size,
        block_size=BLOCK_SIZE,
    )


def _check_fits(origin: Origin, chunks: int, cluster: Cluster, created: int) -> None:
    """Every rule and limit of the manifest, before anything is sent: one of the same shape with empty files."""
    frame = len(_manifest(origin, b"", cluster, created, empty=True).encode())
    if frame + len(origin.files) * _SIZE_BYTES_MAX + chunks * DIGEST_BYTES > MANIFEST_BYTES_MAX:
        raise UsageError(
            f"{origin.shown} has too many files or chunks for one model; "
            f"raise chunk_size in the cluster file (now {format_size(cluster.chunk_size)})"
        )
