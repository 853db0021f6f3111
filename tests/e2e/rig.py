"""What the fault tests work with: a reader in its own process, the copies of a model on the nodes, a lying node."""

import json
import os
import random
import re
import socket
import socketserver
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Self

from shardfs.api.local import LocalCluster
from shardfs.config import load_cluster
from shardfs.core.chunk import BLOCK_SIZE, header_size
from shardfs.core.digest import Digest
from shardfs.core.keys import chunk_key, manifest_key
from shardfs.core.manifest import decode_manifest

FINISH_SECONDS = 90.0


@dataclass(frozen=True, slots=True)
class Result:
    """What reader.py reports. `longest`: seconds of its slowest call."""

    sha256: str
    size: int
    error: str | None
    longest: float


class Reader:
    """A process that reads a file, never hurt by what hurts this one. A context manager that ends it."""

    def __init__(self, path: Path, way: str = "read", pause_every: int = 0) -> None:
        program = Path(__file__).with_name("reader.py")
        self._process = subprocess.Popen(
            [sys.executable, program, path, way, str(pause_every)],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
        )

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self._process.kill()
        for pipe in (self._process.stdin, self._process.stdout):
            assert pipe is not None
            with suppress(BrokenPipeError):
                pipe.close()
        self._process.wait(FINISH_SECONDS)

    def paused_at(self) -> int:
        """Wait for the next pause; the bytes read so far."""
        assert self._process.stdout is not None
        line = self._process.stdout.readline()
        assert line.startswith("at "), line
        return int(line.split()[1])

    def go_on(self) -> None:
        assert self._process.stdin is not None
        self._process.stdin.write("\n")
        self._process.stdin.flush()

    def result(self) -> Result:
        """Let it read to the end without further pauses; its report. An exit status other than 0 is a failure."""
        output, _ = self._process.communicate(timeout=FINISH_SECONDS)  # closes its stdin first
        assert self._process.returncode == 0, self._process.returncode
        return Result(**json.loads(output.splitlines()[-1]))


def read(path: Path, way: str = "read") -> Result:
    with Reader(path, way) as reader:
        return reader.result()


# ------------------------------------------------------------------------------------------------------- on disk


def digest_of_model(cluster: LocalCluster, name: str) -> Digest:
    return Digest.parse(cluster.report("info", name)["digest"])


def manifest_copies(cluster: LocalCluster, name: str) -> list[Path]:
    key = manifest_key(digest_of_model(cluster, name))
    return [path for node in cluster.node_ids if (path := cluster.data(node) / key).exists()]


def chunk_copies(cluster: LocalCluster, name: str) -> list[list[Path]]:
    """For each chunk of the model, in order, the files that hold it."""
    path = manifest_copies(cluster, name)[0]
    manifest = decode_manifest(path.read_bytes(), Digest.parse(path.name))
    found = []
    for file in manifest.files:
        for chunk in range(-(-file.size // manifest.chunk_size)):
            digest = manifest.digest(file, chunk)
            assert digest is not None
            places = [cluster.data(node) / chunk_key(digest) for node in cluster.node_ids]
            found.append([place for place in places if place.exists()])
    return found


def flip(path: Path, offset: int) -> None:
    """Turn one bit of the file around."""
    path.chmod(0o600)
    with path.open("r+b") as file:
        file.seek(offset)
        (byte,) = file.read(1)
        file.seek(offset)
        file.write(bytes([byte ^ 0x10]))


def flip_block(path: Path, block: int) -> None:
    """Turn one bit of a block of a stored chunk of 4 MiB around."""
    flip(path, header_size(16 * BLOCK_SIZE, BLOCK_SIZE) + block * BLOCK_SIZE + 17)


def damage(path: Path, kind: str) -> None:
    size = path.stat().st_size
    if kind == "missing":
        path.unlink()
    elif kind == "flipped":
        flip(path, random.Random(str(path)).randrange(size))
    else:
        path.chmod(0o600)
        os.truncate(path, {"cut": size // 2, "empty": 0}[kind])


# --------------------------------------------------------------------------------------------------- lying nodes


@contextmanager
def lying_node(cluster: LocalCluster, node: str, lie: str) -> Iterator[list[str]]:
    """In place of the node, at its port, a server that lies. Yields the requests it got; the node comes back after."""
    cluster.kill(node)
    url = load_cluster(cluster.cluster_file).node(node).url
    port = int(url.rpartition(":")[2])
    requests: list[str] = []

    class Handler(socketserver.StreamRequestHandler):
        def handle(self) -> None:
            while line := self.rfile.readline(65536):
                requests.append(line.decode("latin-1").strip())
                wanted = None
                while (header := self.rfile.readline(65536)).strip():
                    found = re.fullmatch(rb"range: bytes=(\d+)-(\d+)\s*", header, re.IGNORECASE)
                    wanted = (int(found[1]), int(found[2])) if found else wanted
                try:
                    LIES[lie](self.request, wanted)
                except OSError:
                    return

    class Server(socketserver.ThreadingTCPServer):
        allow_reuse_address = True
        daemon_threads = True
        block_on_close = False

    with Server(("127.0.0.1", port), Handler) as server:
        thread = threading.Thread(target=server.serve_forever)
        thread.start()
        try:
            yield requests
        finally:
            server.shutdown()
            thread.join()
    cluster.start(node)


def _answer(sock: socket.socket, wanted: tuple[int, int] | None, body: bytes) -> None:
    status = "200 OK"
    extra = ""
    if wanted is not None:
        status = "206 Partial Content"
        extra = f"content-range: bytes {wanted[0]}-{wanted[1]}/9999999\r\n"
        body = body[: wanted[1] - wanted[0] + 1]
    head = f"HTTP/1.1 {status}\r\ncontent-length: {len(body)}\r\n{extra}\r\n"
    sock.sendall(head.encode() + body)


def _garbage(sock: socket.socket, wanted: tuple[int, int] | None) -> None:
    _answer(sock, wanted, random.Random(1).randbytes(5 * 1024 * 1024))


def _html(sock: socket.socket, wanted: tuple[int, int] | None) -> None:
    _answer(sock, None, b"<html><body>It works!</body></html>")


def _nonsense(sock: socket.socket, wanted: tuple[int, int] | None) -> None:
    sock.sendall(b"SSH-2.0-OpenSSH_9.2\r\n" + bytes(range(256)) * 100)
    sock.shutdown(socket.SHUT_WR)


def _silence(sock: socket.socket, wanted: tuple[int, int] | None) -> None:
    sock.recv(1)  # until the other side has had enough


def _endless(sock: socket.socket, wanted: tuple[int, int] | None) -> None:
    sock.sendall(b"HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n")
    while True:
        sock.sendall(b"10000\r\n" + bytes(0x10000) + b"\r\n")


def _drip(sock: socket.socket, wanted: tuple[int, int] | None) -> None:
    length = 4 * 1024 * 1024 if wanted is None else wanted[1] - wanted[0] + 1
    sock.sendall(f"HTTP/1.1 200 OK\r\ncontent-length: {length}\r\n\r\n".encode())
    for _ in range(length):
        sock.sendall(b"x")
        time.sleep(0.1)


LIES: dict[str, Any] = {
    "garbage": _garbage,
    "html": _html,
    "nonsense": _nonsense,
    "silence": _silence,
    "endless": _endless,
    "drip": _drip,
}
