"""The chunk server: a folder of objects over HTTP/1.1. It knows no client code."""

from shardfs.server.options import ServerOptions
from shardfs.server.serve import serve

__all__ = ["ServerOptions", "serve"]
