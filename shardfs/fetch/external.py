"""What stands behind a pointer: which node has to deliver, and what it means when the right bytes do not come."""

from shardfs.core.pointer import Pointer
from shardfs.errors import Corrupt, InvalidFormat, NotFound, ShardfsError, Unavailable
from shardfs.store.fleet import Fleet
from shardfs.store.watched import WatchedStore


def external_server(fleet: Fleet, holder: str, pointer: Pointer) -> WatchedStore:
    """The node that the pointer of node `holder` names. NotFound when the cluster has no such node that could deliver.

    Unavailable when a whole deadline was spent on that node and it has not answered anybody since.
    """
    server = fleet.get(pointer.node)
    if server is None or not server.holds_external:
        what = "is not in the cluster file" if server is None else "holds no files of others"
        raise NotFound(f"node {holder}: the chunk is a part of {pointer.path} on node {pointer.node}, which {what}")
    if server.health.given_up:
        raise Unavailable(server.node, server.health.reason)
    return server


async def external_failure(server: WatchedStore, pointer: Pointer, error: InvalidFormat | NotFound) -> ShardfsError:
    """What it means that the object is gone, too short or has other bytes, said with the object's name.

    The object is looked at once more. When it is not the version that was imported, nobody is to blame; when it is, the
    node delivers wrong bytes.
    """
    if isinstance(error, NotFound):
        return NotFound(f"node {server.node}: {pointer.path} is gone since it was imported")
    try:
        now = await server.external_stat(pointer.path)
    except NotFound:
        return NotFound(f"node {server.node}: {pointer.path} is gone since it was imported")
    except ShardfsError as problem:
        return problem
    if (now.size, now.tag) != (pointer.size, pointer.tag):
        return Corrupt(server.node, f"{pointer.path} was changed since it was imported")
    server.corrupt(str(error))
    return Corrupt(server.node, f"{pointer.path} has other bytes than when it was imported ({error})")
