"""Inodes: what a number stands for, and for how long it is remembered.

A number is a hash of what it stands for (model, generation, manifest, path), so it is the same in every mount and
after every restart; a new generation has new numbers, and content never changes under one. An inode is kept
while the kernel holds a reference (`lookups`), and keeps its generation's tree alive with it.
"""

import stat
from dataclasses import dataclass, field

import xxhash

from shardfs.core.manifest import FileEntry
from shardfs.vfs.content import Content
from shardfs.vfs.tree import Folder, Tree

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
    """A folder of a generation."""

    inode: int
    tree: Tree
    folder: Folder
    lookups: int = 0


@dataclass(slots=True)
class FileNode:
    """A file of a generation. `content` exists while the file is open."""

    inode: int
    tree: Tree
    entry: FileEntry
    lookups: int = 0
    handles: int = 0
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

    def folder(self, tree: Tree, path: str) -> FolderNode:
        inode, node = self._find(_key(tree, "folder", path))
        return node if isinstance(node, FolderNode) else FolderNode(inode, tree, tree.folders[path])

    def file(self, tree: Tree, entry: FileEntry) -> FileNode:
        inode, node = self._find(_key(tree, "file", entry.path))
        return node if isinstance(node, FileNode) else FileNode(inode, tree, entry)

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
            case FolderNode(tree=tree, folder=folder):
                seconds = _FOREVER_SECONDS if folder.path else self._name_seconds
                return Attributes(node.inode, stat.S_IFDIR | 0o555, 0, tree.manifest.created, 2, seconds)
            case FileNode(tree=tree, entry=entry):
                mode = stat.S_IFREG | (0o555 if entry.executable else 0o444)
                seconds = self._name_seconds if tree.single else _FOREVER_SECONDS
                return Attributes(node.inode, mode, entry.size, tree.manifest.created, 1, seconds)

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
        case FolderNode(tree=tree, folder=folder):
            return _key(tree, "folder", folder.path)
        case FileNode(tree=tree, entry=entry):
            return _key(tree, "file", entry.path)


def _key(tree: Tree, kind: str, path: str) -> str:
    ref = tree.ref
    return f"{kind}\0{ref.model}\0{ref.generation}\0{ref.manifest}\0{path}"


def _number(key: str) -> int:
    """63 bits, never 0 or the root's."""
    return (xxhash.xxh3_64_intdigest(key.encode()) & (2**63 - 1)) | 2
