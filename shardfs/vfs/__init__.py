"""The read-only filesystem as an object: names, inodes, open files, reads. Knows nothing of FUSE."""

from shardfs.vfs.filesystem import FileSystem
from shardfs.vfs.inodes import Attributes

__all__ = ["Attributes", "FileSystem"]
