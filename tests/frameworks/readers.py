"""Programs that read one file with four processes; run as `python readers.py fork|workers FILE`.

They are programs of their own because they fork, and a test process that has loaded a framework has
threads and must not. Each prints the SHA-256 of every part, in order, as one JSON list.
"""

import hashlib
import itertools
import json
import multiprocessing
import os
import sys

PROCESSES = 4
READ_BYTES = 1_000_003  # a prime: no read is aligned with a page, a block or a chunk


def _digest_of_span(descriptor: int, start: int, stop: int) -> str:
    digest = hashlib.sha256()
    while start < stop:
        piece = os.pread(descriptor, min(READ_BYTES, stop - start), start)
        if not piece:
            raise EOFError(f"file ends at {start}, before {stop}")
        digest.update(piece)
        start += len(piece)
    return digest.hexdigest()


def _digest_in_child(descriptor: int, start: int, stop: int) -> tuple[int, int]:
    """Forks a child that digests one span through the inherited descriptor; returns (pid, result pipe)."""
    source, sink = os.pipe()
    pid = os.fork()
    if pid:
        os.close(sink)
        return pid, source
    status = 1
    try:
        os.write(sink, _digest_of_span(descriptor, start, stop).encode())
        status = 0
    finally:
        os._exit(status)


def fork(path: str) -> list[str]:
    """Four forked children read disjoint parts through one descriptor that the parent opened."""
    descriptor = os.open(path, os.O_RDONLY)
    size = os.fstat(descriptor).st_size
    bounds = [size * part // PROCESSES for part in range(PROCESSES + 1)]
    children = [_digest_in_child(descriptor, start, stop) for start, stop in itertools.pairwise(bounds)]
    digests = []
    for pid, source in children:
        digests.append(os.read(source, 64).decode())
        if os.waitpid(pid, 0)[1] != 0:
            raise ChildProcessError(f"reader {pid} failed")
    return digests


def _digest_of_rows(part: tuple[str, int]) -> str:
    import numpy as np

    path, worker = part
    rows = np.load(path, mmap_mode="r")
    order = np.random.default_rng(worker).permutation(np.arange(worker, len(rows), PROCESSES))
    digest = hashlib.sha256()
    for batch in np.array_split(order, 64):
        digest.update(rows[batch].tobytes())
    return digest.hexdigest()


def workers(path: str) -> list[str]:
    """Four workers train on one memory-mapped array: every fourth row each, in shuffled batches."""
    with multiprocessing.get_context("fork").Pool(PROCESSES) as pool:
        return pool.map(_digest_of_rows, [(path, worker) for worker in range(PROCESSES)], chunksize=1)


if __name__ == "__main__":
    print(json.dumps({"fork": fork, "workers": workers}[sys.argv[1]](sys.argv[2])))
