"""Nodes as the rest of shardfs sees them: one small interface, one module per engine."""

from shardfs.store.base import Store, StoreStat

__all__ = ["Store", "StoreStat"]
