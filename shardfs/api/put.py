"""Publishing from Python: `put("llama/", "llama-3-8b")` is what `shardfs put` does."""

import os
from collections.abc import Awaitable, Callable
from functools import partial

import trio

from shardfs.admin.copies import Copies
from shardfs.admin.origin import LocalOrigin
from shardfs.admin.publish import Put
from shardfs.admin.source import Source, default_name, scan
from shardfs.admin.upload import Tally
from shardfs.api.publishing import publish_watched
from shardfs.config import find_cluster, load_cluster
from shardfs.core.cluster import Cluster
from shardfs.core.names import check_model
from shardfs.store.fleet import Fleet

__all__ = ["Put", "Tally", "put", "put_async"]

Watch = Callable[[Source, Tally], Awaitable[None]]
"""Runs beside an upload, reads the tally, and is cancelled at the end."""


def put(src: str | os.PathLike[str], name: str | None = None, *, cluster: str | os.PathLike[str] | None = None) -> Put:
    """Upload the file or folder `src` as the newest generation of the model `name` (default: the last part of `src`).

    `cluster` is the path of the cluster file; without it the usual places are looked at. Blocks until the model is
    published. A `ShardfsError` says why it was not; then nothing is, and the next call goes on where this one ended.
    """
    found = load_cluster(find_cluster(None if cluster is None else os.fspath(cluster)))
    return trio.run(partial(put_async, os.fspath(src), name, cluster=found))


async def put_async(
    src: str,
    name: str | None = None,
    *,
    cluster: Cluster,
    tally: Tally | None = None,
    watch: Watch | None = None,
) -> Put:
    """As `put`, in a trio program. `tally` says how far it is; `watch` starts when it is known what will be sent.

    Cancelling stops it without publishing anything, until `tally.committing`; from then on it is not to be stopped.
    """
    model = check_model(default_name(src) if name is None else name)
    source = await trio.to_thread.run_sync(scan, src, abandon_on_cancel=True)

    async def find(_fleet: Fleet, _copies: Copies) -> LocalOrigin:
        return LocalOrigin(source)

    watching = None if watch is None else partial(watch, source)
    return await publish_watched(find, model, cluster=cluster, tally=tally or Tally(), watch=watching)
