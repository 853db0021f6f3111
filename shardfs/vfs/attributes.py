"""The extended attributes `user.shardfs.*`: what an inode is, for scripts and the curious."""

import os

from shardfs.cache import DiskCache
from shardfs.core.ranges import chunk_count
from shardfs.vfs.content import cache_content
from shardfs.vfs.inodes import ROOT, FileNode, NamesNode, Node
from shardfs.vfs.namespace import Namespace

PREFIX = "user.shardfs."
_CACHED = f"{PREFIX}cached"


def names_of(node: Node) -> list[str]:
    """The full names of its attributes."""
    return [*_known(node), *([_CACHED] if isinstance(node, FileNode) else [])]


async def value_of(node: Node, name: str, disk: DiskCache | None, namespace: Namespace) -> bytes | None:
    """The attribute of that full name. The root has the daemon's `pid`; `digest` is the manifest's; `cached` in bytes.

    None when it has none of the name. For `cached`, NoCopy when the manifest is needed and no node delivers it.
    """
    if name == _CACHED and isinstance(node, FileNode):
        return str(await _cached_bytes(node, disk, namespace)).encode()
    value = _known(node).get(name)
    return None if value is None else value.encode()


def _known(node: Node) -> dict[str, str]:
    """Those that need no manifest."""
    if isinstance(node, NamesNode):
        return {f"{PREFIX}pid": str(os.getpid())} if node.inode == ROOT else {}
    generation = node.generation
    ref = generation.ref
    chunks = chunk_count(node.entry.size, generation.chunk_size) if isinstance(node, FileNode) else generation.chunks
    values = {"model": ref.model, "generation": str(ref.generation), "digest": str(ref.manifest), "chunks": str(chunks)}
    return {PREFIX + name: value for name, value in values.items()}


async def _cached_bytes(node: FileNode, disk: DiskCache | None, namespace: Namespace) -> int:
    if node.content is not None:
        return node.content.cached_bytes()
    if disk is None or not node.entry.size:
        return 0
    tree = await namespace.tree(node.generation.ref)
    return disk.present_bytes(cache_content(tree.manifest, node.entry))
