"""The wire's limit: the same objects from the same nodes over plain blocking sockets, and nothing done with them.

`wire.py PLAN THREADS`: the plan is a JSON list of [port, path, size]. Each thread has one buffer, one connection to
each node, and takes the next object when it has one: as many requests in flight as threads. No hash, no cache, no FUSE.
"""

import itertools
import json
import socket
import sys
import threading
import time
from pathlib import Path

HEAD_BYTES = 4096
HOST = "127.0.0.1"


def connect(port: int) -> socket.socket:
    sock = socket.create_connection((HOST, port))
    sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
    return sock


def fetch(sock: socket.socket, path: str, start: int, end: int, buffer: memoryview, headers: str = "") -> None:
    """Bytes [start, end) of the object at `path` into `buffer`; RuntimeError for any other answer.

    `headers` are further lines of the request, each with its end.
    """
    span = f"Range: bytes={start}-{end - 1}\r\n"
    sock.sendall(f"GET {path} HTTP/1.1\r\nHost: {HOST}\r\n{span}{headers}\r\n".encode())
    head = b""
    while (at := head.find(b"\r\n\r\n")) < 0:
        piece = sock.recv(HEAD_BYTES)
        if not piece:
            raise RuntimeError(f"{path}: connection closed")
        head += piece
    if not head.startswith((b"HTTP/1.1 206", b"HTTP/1.1 200")):
        raise RuntimeError(f"{path}: {head[:60]!r}")
    early = head[at + 4 :]
    size = end - start
    buffer[: len(early)] = early
    done = len(early)
    while done < size:
        count = sock.recv_into(buffer[done:size], size - done, socket.MSG_WAITALL)
        if not count:
            raise RuntimeError(f"{path}: closed after {done} of {size} bytes")
        done += count


def main() -> None:
    plan = json.loads(Path(sys.argv[1]).read_text())
    threads = int(sys.argv[2])
    largest = max(size for _, _, size in plan)
    buffers = [memoryview(bytearray(largest + HEAD_BYTES)) for _ in range(threads)]
    numbers = itertools.count()
    failed: list[str] = []

    def work(buffer: memoryview) -> None:
        sockets: dict[int, socket.socket] = {}
        try:
            while not failed and (number := next(numbers)) < len(plan):
                port, path, size = plan[number]
                if port not in sockets:
                    sockets[port] = connect(port)
                fetch(sockets[port], path, 0, size, buffer)
        except (OSError, RuntimeError) as error:
            failed.append(str(error))
        for sock in sockets.values():
            sock.close()

    print("ready", flush=True)
    sys.stdin.readline()
    started = time.monotonic()
    workers = [threading.Thread(target=work, args=(buffer,)) for buffer in buffers]
    for worker in workers:
        worker.start()
    for worker in workers:
        worker.join()
    answer: dict[str, object] = {"started": started, "ended": time.monotonic(), "bytes": sum(item[2] for item in plan)}
    if failed:
        answer["error"] = failed[0]
    print(json.dumps(answer), flush=True)


if __name__ == "__main__":
    main()
