"""The extended attributes `user.shardfs.*`: what an inode is, for scripts and the curious."""

import os
from collections.abc import Mapping

from shardfs.cache import DiskCache
from shardfs.core.ranges import chunk_count
from shardfs.vfs.content import cache_content
from shardfs.vfs.inodes import ROOT, FileNode, NamesNode, Node

PREFIX = "user.shardfs."


def describe(node: Node, disk: DiskCache | None) -> Mapping[str, bytes]:
    """Full name -> value. The root has the daemon's `pid`; `digest` is the manifest's; `cached` is in bytes."""
    if isinstance(node, NamesNode):
        return {f"{PREFIX}pid": str(os.getpid()).encode()} if node.inode == ROOT else {}
    ref, manifest = node.tree.ref, node.tree.manifest
    values = {"model": ref.model, "generation": str(ref.generation), "digest": str(ref.manifest)}
    if isinstance(node, FileNode):
        values["chunks"] = str(chunk_count(node.entry.size, manifest.chunk_size))
        values["cached"] = str(_cached_bytes(node, disk))
    else:
        values["chunks"] = str(manifest.chunks)
    return {PREFIX + name: value.encode() for name, value in values.items()}


def _cached_bytes(node: FileNode, disk: DiskCache | None) -> int:
    if node.content is not None:
        return node.content.cached_bytes()
    if disk is None or not node.entry.size:
        return 0
    return disk.present_bytes(cache_content(node.tree.manifest, node.entry))
