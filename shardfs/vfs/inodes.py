"""Inodes: what a number stands for, and for how long it is remembered.

A number is a hash of what it stands for (model, generation, manifest, path), so it is the same in every mount and
after every restart; a new generation has new numbers, and content never changes under one. An inode is kept
while the kernel holds a reference (`lookups`), which may be for as long as the mount lives. So it holds what it shows,
and not its generation's manifest: only while the file is open it does.
"""

import stat
from dataclasses import dataclass, field

import xxhash

from shardfs.core.manifest import FileEntry
from shardfs.vfs.content import Content
from shardfs.vfs.tree import Generation, Tree

ROOT = 1
_FOREVER_SECONDS = 3600.0


@dataclass(frozen=True, slots=True)
class Attributes:
    """What `stat` shows. `seconds_valid`: how long the name and these may be believed without asking again."""

    inode: int
    mode: int
    size: int
    mtime: int
    links: int
    seconds_valid: float


@dataclass(slots=True)
class NamesNode:
    """A folder of model names, `prefix` is "" for the root and else ends in "/"."""

    inode: int
    prefix: str
    lookups: int = 0


@dataclass(slots=True)
class FolderNode:
    """A folder of a generation; `path` is "" for the top."""

    inode: int
    generation: Generation
    path: str
    lookups: int = 0


@dataclass(slots=True)
class FileNode:
    """A file of a generation. `tree` and `content` exist while the file is open."""

    inode: int
    generation: Generation
    entry: FileEntry
    lookups: int = 0
    handles: int = 0
    tree: Tree | None = field(default=None)
    content: Content | None = field(default=None)


Node = NamesNode | FolderNode | FileNode


class InodeTable:
    """All inodes the kernel knows. Guarded by the event loop."""

    def __init__(self, *, name_seconds: float, started: int) -> None:
        self._name_seconds = name_seconds
        self._started = started
        self._nodes: dict[int, Node] = {ROOT: NamesNode(ROOT, "", lookups=1)}

    def __len__(self) -> int:
        return len(self._nodes)

    def get(self, inode: int) -> Node | None:
        return self._nodes.get(inode)

    def names(self, prefix: str) -> NamesNode:
        """The folder of the model names that begin with `prefix`."""
        inode, node = self._find(f"names\0{prefix}")
        return node if isinstance(node, NamesNode) else NamesNode(inode, prefix)

    def folder(self, generation: Generation, path: str) -> FolderNode:
        inode, node = self._find(_key(generation, "folder", path))
        return node if isinstance(node, FolderNode) else FolderNode(inode, generation, path)

    def file(self, generation: Generation, entry: FileEntry) -> FileNode:
        inode, node = self._find(_key(generation, "file", entry.path))
        return node if isinstance(node, FileNode) else FileNode(inode, generation, entry)

    def remember(self, node: Node) -> None:
        """The kernel was told of `node` once more."""
        # An open listing may hold a twin of what others have looked up since.
        node = self._nodes.setdefault(node.inode, node)
        node.lookups += 1

    def forget(self, inode: int, count: int) -> None:
        """The kernel dropped `count` references."""
        node = self._nodes.get(inode)
        if node is None or inode == ROOT:
            return
        node.lookups -= count
        self.drop_if_unused(node)

    def drop_if_unused(self, node: Node) -> None:
        if node.lookups <= 0 and not (isinstance(node, FileNode) and node.handles):
            self._nodes.pop(node.inode, None)

    def attributes(self, node: Node) -> Attributes:
        match node:
            case NamesNode():
                return Attributes(node.inode, stat.S_IFDIR | 0o555, 0, self._started, 2, self._name_seconds)
            case FolderNode(generation=generation, path=path):
                seconds = _FOREVER_SECONDS if path else self._name_seconds
                return Attributes(node.inode, stat.S_IFDIR | 0o555, 0, generation.created, 2, seconds)
            case FileNode(generation=generation, entry=entry):
                mode = stat.S_IFREG | (0o555 if entry.executable else 0o444)
                seconds = self._name_seconds if generation.single else _FOREVER_SECONDS
                return Attributes(node.inode, mode, entry.size, generation.created, 1, seconds)

    def _find(self, key: str) -> tuple[int, Node | None]:
        """The number of `key`, and its node if the kernel knows it. Numbers that collide are moved on by one."""
        inode = _number(key)
        while (node := self._nodes.get(inode)) is not None and _key_of(node) != key:
            inode += 1
        return inode, node


def _key_of(node: Node) -> str:
    match node:
        case NamesNode(prefix=prefix):
            return f"names\0{prefix}"
        case FolderNode(generation=generation, path=path):
            return _key(generation, "folder", path)
        case FileNode(generation=generation, entry=entry):
            return _key(generation, "file", entry.path)


def _key(generation: Generation, kind: str, path: str) -> str:
    ref = generation.ref
    return f"{kind}\0{ref.model}\0{ref.generation}\0{ref.manifest}\0{path}"


def _number(key: str) -> int:
    """63 bits, never 0 or the root's."""
    return (xxhash.xxh3_64_intdigest(key.encode()) & (2**63 - 1)) | 2
