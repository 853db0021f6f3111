"""The cluster file: which nodes there are, how many copies, how big chunks are.

Parsed by `tomllib`, typed by `msgspec`; this module adds the rules and says which line is at fault.
"""

import re
import tomllib
from typing import Literal

import msgspec

from shardfs.core.chunk import BLOCK_SIZE, CHUNK_SIZE, CHUNK_SIZE_MAX
from shardfs.core.location import TOKEN_SCHEMES, check_url
from shardfs.core.names import check_node_id
from shardfs.core.units import parse_size
from shardfs.errors import InvalidCluster, UsageError

NODES_MAX = 4096
WEIGHT_MAX = 1e6
READ_PRIORITY_MAX = 9

_PATH = re.compile(r"(?P<what>.*?)(?: - at `\$(?P<path>[^`]*)`)?", re.DOTALL)
_NODES_INLINE = re.compile(r"\s*[\"']?nodes[\"']?\s*=")
_NODES_HEADER = re.compile(r"\s*\[\[\s*nodes\s*\]\]")


class Node(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """One place that stores chunks. `weight` is its share relative to the others'.

    Readers ask the nodes of the lowest `read_priority` first: 0 is near, higher numbers are far (a bucket in
    another region, say), the copy of last resort.
    """

    id: str
    url: str
    zone: str = ""
    weight: float = 1.0
    read_priority: int = 0
    state: Literal["active", "draining"] = "active"
    token_env: str = ""
    token_file: str = ""


class Cluster(msgspec.Struct, frozen=True):
    """A checked cluster. `chunk_size` in bytes."""

    nodes: tuple[Node, ...]
    replicas: int
    chunk_size: int

    def node(self, node_id: str) -> Node:
        return next(node for node in self.nodes if node.id == node_id)

    @property
    def majority(self) -> int:
        """Nodes that must hold a ref or manifest: more than half, and at least `replicas`."""
        return max(len(self.nodes) // 2 + 1, self.replicas)

    @property
    def witnesses(self) -> int:
        """So many nodes that any ref that was published lies on one of them at least."""
        return len(self.nodes) - self.majority + 1


class _File(msgspec.Struct, forbid_unknown_fields=True):
    nodes: list[Node]
    replicas: int = 2
    chunk_size: str | int = CHUNK_SIZE


class _Fault(Exception):
    def __init__(self, what: str, key: str | None = None, node: int | None = None) -> None:
        super().__init__(what)
        self.key, self.node = key, node


def parse_cluster(text: str, source: str = "cluster.toml") -> Cluster:
    """The cluster that `text` describes, or InvalidCluster: `source:line: what is wrong`."""
    try:
        table = tomllib.loads(text)
    except tomllib.TOMLDecodeError as error:
        line = re.search(r"at line (\d+)", str(error))
        at = line.group(1) if line else str(max(1, len(text.splitlines())))
        raise InvalidCluster(f"{source}:{at}: {error}") from None
    except RecursionError:
        raise InvalidCluster(f"{source}:1: nested too deeply") from None
    try:
        return _checked(_typed(table))
    except _Fault as fault:
        line_number = _line_of(text, fault.key, fault.node)
        raise InvalidCluster(f"{source}:{line_number}: {fault}") from None


def _typed(table: dict[str, object]) -> _File:
    try:
        return msgspec.convert(table, type=_File)
    except msgspec.ValidationError as error:
        found = _PATH.fullmatch(str(error))
        what, path = (found["what"], found["path"] or "") if found else (str(error), "")
        index = re.search(r"\[(\d+)\]", path)
        unknown = re.search(r"unknown field `([^`]+)`", what)
        if unknown:
            what = f"unknown key {unknown.group(1)!r}"
        missing = re.search(r"missing required field `([^`]+)`", what)
        if missing:
            what = "missing [[nodes]]" if missing.group(1) == "nodes" else f"missing {missing.group(1)!r}"
        named = re.search(r"\.(\w+)$", path)
        key = unknown.group(1) if unknown else named.group(1) if named else None
        if named and not unknown:
            what = f"{named.group(1)}: {what}"
        raise _Fault(what, key, int(index.group(1)) if index else None) from None


def _checked(file: _File) -> Cluster:
    try:
        chunk_size = parse_size(file.chunk_size)
    except UsageError as error:
        raise _Fault(f"chunk_size: {error}", "chunk_size") from None
    if not BLOCK_SIZE <= chunk_size <= CHUNK_SIZE_MAX or chunk_size % BLOCK_SIZE:
        raise _Fault(f"chunk_size must be a multiple of 256KiB up to 64MiB, not {file.chunk_size}", "chunk_size")
    if not 1 <= len(file.nodes) <= NODES_MAX:
        raise _Fault(f"a cluster has 1 to {NODES_MAX} nodes, not {len(file.nodes)}", "nodes")
    ids: dict[str, int] = {}
    urls: dict[str, str] = {}
    for index, node in enumerate(file.nodes):
        _check_node(node, index)
        if node.id in ids:
            raise _Fault(f"node id {node.id!r} is used twice", "id", index)
        if node.url.rstrip("/") in urls:
            raise _Fault(f"nodes {urls[node.url.rstrip('/')]!r} and {node.id!r} have the same url", "url", index)
        ids[node.id] = index
        urls[node.url.rstrip("/")] = node.id
    active = sum(node.state == "active" for node in file.nodes)
    if not 1 <= file.replicas <= active:
        raise _Fault(f"replicas must be 1 to {active}, the number of active nodes, not {file.replicas}", "replicas")
    return Cluster(tuple(file.nodes), file.replicas, chunk_size)


def _check_node(node: Node, index: int) -> None:
    try:
        check_node_id(node.id)
    except UsageError as error:
        raise _Fault(str(error), "id", index) from None
    if not 0 < node.weight <= WEIGHT_MAX:
        raise _Fault(f"weight must be above 0 and at most {WEIGHT_MAX:g}, not {node.weight}", "weight", index)
    if not 0 <= node.read_priority <= READ_PRIORITY_MAX:
        what = f"read_priority must be 0 (near) to {READ_PRIORITY_MAX} (far), not {node.read_priority}"
        raise _Fault(what, "read_priority", index)
    if node.token_env and node.token_file:
        raise _Fault("give token_env or token_file, not both", "token_file", index)
    try:
        url = check_url(node.url)
    except UsageError as error:
        raise _Fault(str(error), "url", index) from None
    if url.scheme not in TOKEN_SCHEMES and (node.token_env or node.token_file):
        what = f"{url.scheme}:// takes no token" + (
            "; its credentials come from the engine's own chain" * (url.scheme != "file")
        )
        raise _Fault(what, "token_env" if node.token_env else "token_file", index)


def _line_of(text: str, key: str | None, node: int | None) -> int:
    """The line of `key` in table `node` (or at the top), else of the table, else 1. Only for messages."""
    table, table_line = -1, 1
    assignment = re.compile(rf"\s*\[*\s*[\"']?{re.escape(key)}[\"']?\s*[=.\]]") if key else None
    for number, line in enumerate(text.splitlines(), start=1):
        if node is not None and _NODES_INLINE.match(line):
            table_line = number
        if _NODES_HEADER.match(line):
            table += 1
            table_line = number if table == node else table_line
        elif assignment and assignment.match(line) and table == (-1 if node is None else node):
            return number
    return table_line
