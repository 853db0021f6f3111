"""Downloading from Python: what `shardfs get` does."""

from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from pathlib import Path

import trio

from shardfs.admin.download import STALL_SECONDS, Download, DownloadOptions
from shardfs.admin.upload import Tally
from shardfs.core.cluster import Cluster
from shardfs.core.manifest import Manifest
from shardfs.core.names import ModelName
from shardfs.errors import UsageError
from shardfs.wiring.reader import ReaderOptions, reader

__all__ = ["STALL_SECONDS", "Got", "Tally", "get_async"]

_STALL_SECONDS_MIN = 0.1
_STALL_SECONDS_MAX = 86400.0

_JOB_SHARE = 0.8
"""Of the read timeout; the engine tries for 0.9 of it. What fails sooner did not fail for want of time."""


@dataclass(frozen=True, slots=True)
class Got:
    """What a download did. Sizes in bytes: fetched + present + zero = size."""

    name: str
    generation: int
    digest: str
    dest: str
    files: int
    size: int
    bytes_fetched: int
    bytes_present: int
    bytes_zero: int
    seconds: float


async def get_async(
    name: ModelName,
    dest: Path,
    *,
    cluster: Cluster,
    overwrite: bool = False,
    stall_seconds: float = STALL_SECONDS,
    tally: Tally,
    watch: Callable[[Tally], Awaitable[None]],
) -> Got:
    """Write generation `name` to `dest`; `watch(tally)` runs beside it. NotFound, NoCopy, SourceError.

    A single-file model goes into `dest` when that is a folder, under the last part of its name. DeadlineExceeded when
    no verified byte has come for `stall_seconds`; what is whole stays.
    """
    if not _STALL_SECONDS_MIN <= stall_seconds <= _STALL_SECONDS_MAX:
        raise UsageError(f"--timeout: {_STALL_SECONDS_MIN:g} to {_STALL_SECONDS_MAX:g} seconds")
    reading, options = patience(stall_seconds, overwrite=overwrite)
    async with reader(cluster, reading) as parts:
        ref = await parts.catalog.resolve(name)
        manifest = await parts.catalog.manifest(ref.manifest)
        place = _place(manifest, ref.model, dest)
        started = trio.current_time()
        async with trio.open_nursery() as nursery:
            nursery.start_soon(watch, tally)
            await Download(
                manifest,
                place,
                parts.engine,
                fleet=parts.fleet,
                metrics=parts.metrics,
                tally=tally,
                options=options,
            ).run()
            nursery.cancel_scope.cancel()
        return Got(
            name=ref.model,
            generation=ref.generation,
            digest=ref.manifest.hex(),
            dest=str(place),
            files=len(manifest.files),
            size=manifest.size,
            bytes_fetched=tally.sent,
            bytes_present=tally.present,
            bytes_zero=tally.zero,
            seconds=trio.current_time() - started,
        )


def patience(stall_seconds: float, *, overwrite: bool) -> tuple[ReaderOptions, DownloadOptions]:
    """How long the engine and the download try, which must fit together."""
    reading = ReaderOptions(read_timeout_seconds=min(ReaderOptions().read_timeout_seconds, stall_seconds))
    job_seconds = reading.read_timeout_seconds * _JOB_SHARE
    return reading, DownloadOptions(overwrite=overwrite, stall_seconds=stall_seconds, job_seconds=job_seconds)


def _place(manifest: Manifest, model: str, dest: Path) -> Path:
    return dest / model.rpartition("/")[2] if manifest.single and dest.is_dir() else dest
