"""Which models there are and what they consist of: refs and manifests, asked of all nodes, believed of none.

Refs are merged (`shardfs.core.refs`), manifests are verified against their digest. Reading goes on with whoever
answers; writing needs a majority.
"""

from shardfs.catalog.catalog import Catalog
from shardfs.catalog.options import CatalogOptions
from shardfs.catalog.publish import Published
from shardfs.catalog.view import RefView

__all__ = ["Catalog", "CatalogOptions", "Published", "RefView"]
