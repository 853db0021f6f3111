"""A model's chunks straight from its engine, without a mount: `objects.py HOW CLUSTER MODEL`.

    store      shardfs' own client of the engine, in tasks
    library    hdfs-native's blocking interface, in threads, which the store stands on
    sockets    signed requests over blocking sockets, in threads

As many at once as a mount asks for, each into one buffer that is used again and again; nothing is done with the bytes.
"""

import itertools
import json
import sys
import threading
import time
from collections.abc import Callable
from pathlib import Path

import trio

from bench.plan import Stored, stored_model
from bench.signed import Bucket
from shardfs.config import load_cluster
from shardfs.core.cluster import Node
from shardfs.core.keys import parse_key
from shardfs.core.location import parse_hdfs
from shardfs.store.hdfs_clients import client as hdfs_client
from shardfs.wiring.engines import open_store

Fetch = Callable[[str, int, memoryview], None]
"""The object of this key and size into the beginning of the buffer."""

Span = tuple[float, float]
"""When the reading began and ended."""


def wait_for_go() -> float:
    """The time at which it came."""
    print("ready", flush=True)
    sys.stdin.readline()
    return time.monotonic()


async def by_store(node: Node, stored: Stored, buffers: list[memoryview]) -> Span:
    store = open_store(node)
    await store.stat()
    todo = iter(stored.chunks)

    async def work(buffer: memoryview) -> None:
        for chunk in todo:
            count = await store.get(parse_key(chunk.target[1:]), buffer[: chunk.object_bytes])
            if count != chunk.object_bytes:
                raise RuntimeError(f"{chunk.target}: {count} of {chunk.object_bytes} bytes")

    started = wait_for_go()
    async with trio.open_nursery() as nursery:
        for buffer in buffers:
            nursery.start_soon(work, buffer)
    ended = time.monotonic()
    await store.aclose()
    return started, ended


def in_threads(stored: Stored, buffers: list[memoryview], opened: Callable[[], Fetch]) -> Span:
    """`opened` is called once in each thread."""
    numbers = itertools.count()
    failed: list[BaseException] = []

    def work(buffer: memoryview) -> None:
        try:
            fetch = opened()
            while not failed and (number := next(numbers)) < len(stored.chunks):
                chunk = stored.chunks[number]
                fetch(chunk.target[1:], chunk.object_bytes, buffer)
        except (OSError, RuntimeError) as error:
            failed.append(error)

    started = wait_for_go()
    workers = [threading.Thread(target=work, args=(buffer,)) for buffer in buffers]
    for worker in workers:
        worker.start()
    for worker in workers:
        worker.join()
    ended = time.monotonic()
    if failed:
        raise failed[0]
    return started, ended


def by_library(node: Node, stored: Stored, buffers: list[memoryview]) -> Span:
    place = parse_hdfs(node.url)
    client = hdfs_client(f"hdfs://{place.authority}", {})
    client.get_file_info(place.path)

    def fetch(key: str, size: int, buffer: memoryview) -> None:
        done = 0
        for data in client.read(f"{place.path}/{key}").read_range_stream(0, size):
            buffer[done : done + len(data)] = data
            done += len(data)
        if done != size:
            raise RuntimeError(f"{key}: {done} of {size} bytes")

    return in_threads(stored, buffers, lambda: fetch)


def by_sockets(node: Node, stored: Stored, buffers: list[memoryview]) -> Span:
    bucket = Bucket.of(node.url)

    def opened() -> Fetch:
        sock = bucket.connect()
        return lambda key, size, buffer: bucket.fetch(sock, key, 0, size, buffer)

    return in_threads(stored, buffers, opened)


def main() -> None:
    how, cluster_file, model = sys.argv[1:]
    (node,) = load_cluster(Path(cluster_file)).nodes
    stored = trio.run(stored_model, Path(cluster_file), model)
    largest = max(chunk.object_bytes for chunk in stored.chunks)
    buffers = [memoryview(bytearray(largest)) for _ in range(stored.in_flight)]
    if how == "store":
        started, ended = trio.run(by_store, node, stored, buffers)
    else:
        started, ended = {"library": by_library, "sockets": by_sockets}[how](node, stored, buffers)
    count = sum(chunk.object_bytes for chunk in stored.chunks)
    print(json.dumps({"started": started, "ended": ended, "bytes": count}), flush=True)


if __name__ == "__main__":
    main()
