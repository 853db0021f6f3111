"""What the mount keeps near: in memory and on disk. It may forget; it must never lie."""

from shardfs.cache.block_map import Content
from shardfs.cache.disk import DiskCache, DiskCacheStatistics
from shardfs.cache.file import CacheFile
from shardfs.cache.lent import Lent

__all__ = ["CacheFile", "Content", "DiskCache", "DiskCacheStatistics", "Lent"]
