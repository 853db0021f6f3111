"""Seconds to the first byte from a far store, beside raw requests by the same path: `far.py PLAN`.

The plan: {"url": the store's, "samples": [{"unseen", "seen", "aged": files on the mount, "block": [key, end],
"refs": prefix}, ...]}.

    unseen     open and first byte of a model that this mount was never asked for
    seen       the same right after a stat of it
    aged       the same when the stat was longer ago than the kernel believes a name
    trip       one byte by a raw request over an open connection: one round trip
    list       the list of a model's generations, which a look at its name costs, in the same way
    pair       a byte and such a list at once, over two open connections, to the end of the later one
    block      the stored object's first `end` bytes, its header and first block, in the same way

After each a pause, so that what is fetched behind the first byte is not in the way of the next.
"""

import json
import os
import sys
import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

from bench.programs.wire import HEAD_BYTES
from bench.signed import Bucket

PAUSE_SECONDS = 0.3
AGED_SECONDS = 1.5
KINDS = ("unseen", "seen", "aged", "trip", "list", "pair", "block")


def first_byte(path: str) -> None:
    with open(path, "rb", buffering=0) as file:
        if len(file.read(1)) != 1:
            raise RuntimeError("no byte")


def main() -> None:
    plan: dict[str, Any] = json.loads(Path(sys.argv[1]).read_text())
    samples = plan["samples"]
    bucket = Bucket.of(plan["url"])
    buffer = memoryview(bytearray(max(sample["block"][1] for sample in samples) + HEAD_BYTES))
    sock = bucket.connect()
    times: dict[str, list[float]] = {name: [] for name in KINDS}

    def request(sample: dict[str, Any], end: int) -> None:
        bucket.fetch(sock, sample["block"][0], 0, end, buffer)

    def take(name: str, work: Callable[..., object], *arguments: object) -> None:
        started = time.monotonic()
        work(*arguments)
        times[name].append(time.monotonic() - started)
        time.sleep(PAUSE_SECONDS)

    def pair(sample: dict[str, Any]) -> None:
        other = threading.Thread(target=bucket.keys, args=(lists, sample["refs"]))
        other.start()
        request(sample, 1)
        other.join()

    print("ready", flush=True)
    sys.stdin.readline()
    request(samples[0], 1)  # the handshakes
    lists = bucket.connection()
    bucket.keys(lists, samples[0]["refs"])
    for sample in samples:
        os.stat(sample["aged"])
    for sample in samples:
        take("trip", request, sample, 1)
        take("unseen", first_byte, sample["unseen"])
        take("list", bucket.keys, lists, sample["refs"])
        take("pair", pair, sample)
        take("block", request, sample, sample["block"][1])
        os.stat(sample["seen"])
        take("seen", first_byte, sample["seen"])
    time.sleep(AGED_SECONDS)
    for sample in samples:
        take("aged", first_byte, sample["aged"])
    print(json.dumps(times), flush=True)


if __name__ == "__main__":
    main()
