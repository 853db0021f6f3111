"""What a node tells about itself, below `/-/`, where no object can be.

| path | answer |
|---|---|
| `/-/list?prefix=&after=&limit=` | `{"keys": [...], "end": bool}`: sorted; `end` when nothing comes after them |
| `/-/stat` | `{"id", "version", "capacity", "free"}`: bytes of the disk |
| `/-/health` | `ok`; asks the folder, needs no token |
| `/-/metrics` | Prometheus |
"""

from urllib.parse import parse_qsl

import msgspec

from shardfs import __version__
from shardfs.server.connection import Connection
from shardfs.server.disk import Disk
from shardfs.server.metrics import Metrics
from shardfs.server.options import ServerOptions
from shardfs.server.request import Refused, Request
from shardfs.store.folder import Folder

PREFIX = "-/"
HEALTH = "-/health"
_FIELDS_MAX = 8


class Reports:
    """The handlers."""

    def __init__(self, folder: Folder, disk: Disk, options: ServerOptions, metrics: Metrics) -> None:
        self._folder = folder
        self._disk = disk
        self._options = options
        self._metrics = metrics

    async def get(self, connection: Connection, request: Request) -> None:
        """Answer a GET or HEAD below `/-/`."""
        kind = "application/json"
        if request.path == "-/list":
            body = await self._list(request.query)
        elif request.path == "-/stat":
            stat = await self._disk.run(self._folder.stat)
            told = {"id": self._options.node, "version": __version__}
            body = msgspec.json.encode(told | {"capacity": stat.capacity_bytes, "free": stat.free_bytes})
        elif request.path == HEALTH:
            await self._disk.run(self._folder.stat)
            kind, body = "text/plain", b"ok\n"
        elif request.path == "-/metrics":
            kind, body = "text/plain; version=0.0.4; charset=utf-8", self._metrics.text()
        else:
            raise Refused(404, "no such report")
        headers = [("Content-Length", str(len(body))), ("Content-Type", kind)]
        await connection.answer(200, headers, body)

    async def _list(self, query: str) -> bytes:
        try:
            pairs = parse_qsl(query, keep_blank_values=True, strict_parsing=bool(query), max_num_fields=_FIELDS_MAX)
            fields = dict(pairs)
            wanted = int(fields.get("limit", self._options.list_limit_max))
        except ValueError as error:
            raise Refused(400, f"bad query: {error}") from error
        limit = max(1, min(wanted, self._options.list_limit_max))
        keys = await self._disk.run(self._folder.keys, fields.get("prefix", ""), fields.get("after", ""), limit)
        return msgspec.json.encode({"keys": [str(key) for key in keys], "end": len(keys) < limit})
