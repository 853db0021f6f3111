"""Small cold reads, each beside the same block by a raw request: `probes.py PLAN`.

The plan is a JSON list of {"path", "offset", "length", "open", "raw": [port, target, start, end]}. `open` says that the
time of opening the file counts; otherwise it is open already, as the connections of the raw requests are. The two take
turns in going first, so that neither profits from what the other has warmed on the node. Before each there is a short
rest: opening a file makes the mount fetch the rest of its chunk, and that must not be part of the next sample.
"""

import json
import os
import socket
import sys
import time
from pathlib import Path
from typing import Any

from bench.programs.wire import HEAD_BYTES, connect, fetch

REST_SECONDS = 0.03


class Mounted:
    """Reads through the mount; keeps the files open that are not to be opened each time."""

    def __init__(self) -> None:
        self._handles: dict[str, int] = {}

    def prepare(self, item: dict[str, Any]) -> None:
        if item["open"]:
            os.stat(os.path.dirname(item["path"]))  # that the model exists is known
        elif item["path"] not in self._handles:
            self._handles[item["path"]] = os.open(item["path"], os.O_RDONLY)

    def seconds(self, item: dict[str, Any]) -> tuple[float, float]:
        """With the opening, and without it."""
        path, length = item["path"], item["length"]
        started = time.monotonic()
        handle = os.open(path, os.O_RDONLY) if item["open"] else self._handles[path]
        opened = time.monotonic()
        data = os.pread(handle, length, item["offset"])
        ended = time.monotonic()
        if item["open"]:
            os.close(handle)
        if len(data) != length:
            raise RuntimeError(f"{len(data)} of {length} bytes")
        return ended - started, ended - opened


def main() -> None:
    plan = json.loads(Path(sys.argv[1]).read_text())
    largest = max(item["raw"][3] - item["raw"][2] for item in plan)
    buffer = memoryview(bytearray(largest + HEAD_BYTES))
    sockets: dict[int, socket.socket] = {item["raw"][0]: connect(item["raw"][0]) for item in plan}
    mounted: list[float] = []
    after: list[float] = []
    raw: list[float] = []

    files = Mounted()
    for item in plan:
        files.prepare(item)

    def by_mount(item: dict[str, Any]) -> None:
        time.sleep(REST_SECONDS)
        whole, read = files.seconds(item)
        mounted.append(whole)
        after.append(read)

    def by_request(port: int, target: str, start: int, end: int) -> None:
        time.sleep(REST_SECONDS)
        started = time.monotonic()
        fetch(sockets[port], target, start, end, buffer)
        raw.append(time.monotonic() - started)

    print("ready", flush=True)
    sys.stdin.readline()
    for number, item in enumerate(plan):
        if number % 2:
            by_mount(item)
            by_request(*item["raw"])
        else:
            by_request(*item["raw"])
            by_mount(item)
    print(json.dumps({"mount": mounted, "after": after, "raw": raw}), flush=True)


if __name__ == "__main__":
    main()
