"""The folder of a node belongs to one process and one node id.

`lock` is held (flock) while a server runs; `node.json` names the node that the objects were placed for. Placement
is by node id, so a folder served under another id would be a disk full of objects in the wrong place.
"""

import fcntl
import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import msgspec

from shardfs.core.names import check_node_id
from shardfs.errors import ShardfsError, UsageError

LOCK, IDENTITY = "lock", "node.json"
_FORMAT = "shardfs-node-1"
_IDENTITY_BYTES_MAX = 4096


class _Identity(msgspec.Struct):
    format: str
    id: str


@contextmanager
def claimed(data: Path, node: str) -> Iterator[None]:
    """Hold the folder for this process. UsageError when it is another node's, ShardfsError when it cannot be had."""
    check_node_id(node)
    lock = -1
    try:
        try:
            data.mkdir(exist_ok=True)
            lock = os.open(data / LOCK, os.O_RDWR | os.O_CREAT | os.O_NOFOLLOW | os.O_CLOEXEC, 0o644)
            try:
                fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError:
                raise ShardfsError(f"node {node}: folder {data} is in use by another node process") from None
            _identify(data, node)
        except OSError as error:
            raise ShardfsError(f"node {node}: cannot use folder {data}: {error.strerror}") from error
        yield
    finally:
        if lock >= 0:
            os.close(lock)


def _identify(data: Path, node: str) -> None:
    path = data / IDENTITY
    try:
        found = msgspec.json.decode(_read(path), type=_Identity)
    except FileNotFoundError:
        _write(path, msgspec.json.encode(_Identity(_FORMAT, node)) + b"\n")
        return
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as error:
        raise UsageError(f"node {node}: {path} is damaged: {error}") from error
    if found.format != _FORMAT or found.id != node:
        raise UsageError(f"node {node}: folder {data} belongs to node {found.id[:64]!a} ({found.format[:64]!a})")


def _read(path: Path) -> bytes:
    file = os.open(path, os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC)  # a FIFO must not hang us
    try:
        return os.read(file, _IDENTITY_BYTES_MAX)
    finally:
        os.close(file)


def _write(path: Path, content: bytes) -> None:
    temp = path.with_suffix(".new")
    with temp.open("wb") as file:
        file.write(content)
        file.flush()
        os.fsync(file.fileno())
    temp.replace(path)
    folder = os.open(path.parent, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        os.fsync(folder)
    finally:
        os.close(folder)
