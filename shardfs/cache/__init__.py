"""What the mount keeps near: in memory and on disk. It may forget; it must never lie."""

from shardfs.cache.block_map import Content
from shardfs.cache.disk import DiskCache
from shardfs.cache.file import CacheFile
from shardfs.cache.lent import Lent
from shardfs.cache.shared import DiskCacheStatistics

__all__ = ["CacheFile", "Content", "DiskCache", "DiskCacheStatistics", "Lent"]
