"""The extended attributes `user.shardfs.*`: what an inode is, for scripts and the curious."""

import os
from collections.abc import Mapping

from shardfs.cache import DiskCache
from shardfs.core.ranges import chunk_count
from shardfs.vfs.content import cache_content
from shardfs.vfs.inodes import ROOT, FileNode, NamesNode, Node
from shardfs.vfs.namespace import Namespace

PREFIX = "user.shardfs."


async def describe(node: Node, disk: DiskCache | None, namespace: Namespace) -> Mapping[str, bytes]:
    """Full name -> value. The root has the daemon's `pid`; `digest` is the manifest's; `cached` is in bytes.

    NoCopy where the manifest is needed for that and no node delivers it.
    """
    if isinstance(node, NamesNode):
        return {f"{PREFIX}pid": str(os.getpid()).encode()} if node.inode == ROOT else {}
    generation = node.generation
    ref = generation.ref
    values = {"model": ref.model, "generation": str(ref.generation), "digest": str(ref.manifest)}
    if isinstance(node, FileNode):
        values["chunks"] = str(chunk_count(node.entry.size, generation.chunk_size))
        values["cached"] = str(await _cached_bytes(node, disk, namespace))
    else:
        values["chunks"] = str(generation.chunks)
    return {PREFIX + name: value.encode() for name, value in values.items()}


async def _cached_bytes(node: FileNode, disk: DiskCache | None, namespace: Namespace) -> int:
    if node.content is not None:
        return node.content.cached_bytes()
    if disk is None or not node.entry.size:
        return 0
    tree = await namespace.tree(node.generation.ref)
    return disk.present_bytes(cache_content(tree.manifest, node.entry))
