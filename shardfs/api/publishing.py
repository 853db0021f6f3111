"""What `put` and `import` have in common: an origin is found, and published while somebody watches how far it is."""

import time
from collections.abc import Awaitable, Callable

import trio

from shardfs.admin.copies import Copies
from shardfs.admin.origin import Origin
from shardfs.admin.publish import Put, publish
from shardfs.admin.upload import Tally
from shardfs.core.cluster import Cluster
from shardfs.core.placement import Placement
from shardfs.errors import ShardfsError
from shardfs.store.fleet import Fleet
from shardfs.wiring.client import client

Find = Callable[[Fleet, Copies], Awaitable[Origin]]
"""Lists what is to be published."""
Watch = Callable[[Tally], Awaitable[None]]
"""Runs beside a publish, reads the tally, and is cancelled at the end."""


async def publish_watched(find: Find, model: str, *, cluster: Cluster, tally: Tally, watch: Watch | None) -> Put:
    """Publish what `find` finds as the newest generation of `model`. `watch` starts when that has been found.

    Cancelling stops it without publishing anything, until `tally.committing`; from then on it is not to be stopped.
    Raises what `find` raises, and the errors of a publish.
    """
    failure: ShardfsError | None = None
    done: Put | None = None
    async with client(cluster) as (fleet, catalog), trio.open_nursery() as nursery:
        copies = Copies(fleet, Placement(cluster))
        try:
            origin = await find(fleet, copies)
            tally.total = origin.size
            if watch is not None:
                nursery.start_soon(watch, tally)
            done = await publish(origin, model, copies=copies, catalog=catalog, created=int(time.time()), tally=tally)
        except ShardfsError as error:  # raised below, outside of the nursery, which would wrap it in a group
            failure = error
        nursery.cancel_scope.cancel()
    if failure is not None:
        raise failure
    assert done is not None
    return done
