"""One object of an engine by shardfs' own client, in spans, without a mount: `spans.py CLUSTER PATH SPAN AT_ONCE`.

`PATH` begins at the root of the engine that is the cluster's only node. Each task has one buffer, used again and again,
and nothing is done with the bytes: this is the reading that an import does, and no more.
"""

import json
import sys
import time
from pathlib import Path

import trio

from bench.programs.objects import Span, wait_for_go
from shardfs.config import load_cluster
from shardfs.core.cluster import Node
from shardfs.store.base import ExternalSource
from shardfs.wiring.engines import open_store


async def read(node: Node, path: str, span: int, at_once: int) -> tuple[Span, int]:
    """When it began and ended, and the bytes."""
    store = open_store(node)
    if not isinstance(store, ExternalSource):
        raise RuntimeError(f"{node.url} has no objects of others")
    size = (await store.external_stat(path)).size
    offsets = iter(range(0, size, span))

    async def work(buffer: memoryview) -> None:
        for offset in offsets:
            wanted = min(span, size - offset)
            count = await store.get_external(path, buffer[:wanted], offset=offset)
            if count != wanted:
                raise RuntimeError(f"{path}: {count} of {wanted} bytes at {offset}")

    buffers = [memoryview(bytearray(span)) for _ in range(at_once)]
    started = wait_for_go()
    async with trio.open_nursery() as nursery:
        for buffer in buffers:
            nursery.start_soon(work, buffer)
    ended = time.monotonic()
    await store.aclose()
    return (started, ended), size


def main() -> None:
    cluster_file, path, span, at_once = sys.argv[1:]
    (node,) = load_cluster(Path(cluster_file)).nodes
    (started, ended), size = trio.run(read, node, path, int(span), int(at_once))
    print(json.dumps({"started": started, "ended": ended, "bytes": size}), flush=True)


if __name__ == "__main__":
    main()
