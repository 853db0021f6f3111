"""From chunk names to verified bytes in memory: single flight, replica race, disk cache, memory bound."""

from shardfs.fetch.engine import Engine, EngineOptions, Reading
from shardfs.fetch.fill import ChunkPlace
from shardfs.fetch.waiting import Waiting

__all__ = ["ChunkPlace", "Engine", "EngineOptions", "Reading", "Waiting"]
