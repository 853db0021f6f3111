"""A node that is a folder of a WebDAV server. A stock nginx with these lines is enough:

    dav_methods PUT DELETE; create_full_put_path on; autoindex on; autoindex_format json;

Objects are read like those of any HTTP node. Folders are listed through nginx's JSON, or with PROPFIND where the server
has it; missing folders are made by nginx itself, or with MKCOL. Such a server does not verify what it is given, so
`put` does before it sends, and asks for the size after. It stores a PUT as a whole or not at all, but knows no
condition and no fsync: docs/SEMANTICS.md says what follows.
"""

import base64
import ssl
from collections import deque
from collections.abc import Callable, Sequence
from contextlib import AbstractAsyncContextManager
from urllib.parse import quote, unquote

import trio

from shardfs.core.digest import Bytes
from shardfs.core.keys import ObjectKey
from shardfs.core.names import check_path
from shardfs.errors import InvalidFormat, NotFound, Unavailable, UsageError
from shardfs.store.base import EXTERNAL_FILES_MAX, LIST_LIMIT, ExternalPath, ExternalStat, StoreStat
from shardfs.store.dav_listing import PROPFIND, read_autoindex, read_multistatus
from shardfs.store.http import HttpStore
from shardfs.store.http_answer import refusal, version_tag
from shardfs.store.http_client import CONNECTIONS_MAX, Exchange
from shardfs.store.http_connection import Headers
from shardfs.store.long_answers import LongAnswers
from shardfs.store.sending import Sending
from shardfs.store.tree import Entry, list_keys

LISTING_BYTES_MAX = 32 * 1024 * 1024
_HINT = "the server must list folders: PROPFIND, or for nginx `autoindex on; autoindex_format json;`"


class DavStore(HttpStore):
    """`Store` over `url` (dav or davs), and `ExternalSource` over all of its server.

    A `token` with a colon in it is user and password, any other a bearer token.
    """

    def __init__(
        self,
        node: str,
        url: str,
        *,
        token: str | None = None,
        connections_max: int = CONNECTIONS_MAX,
        tls: ssl.SSLContext | None = None,
    ) -> None:
        http = url.replace("dav", "http", 1)
        super().__init__(node, http, authorization=authorization(token), connections_max=connections_max, tls=tls)
        self._shown = url.rstrip("/")
        self._sending = Sending(node)
        self._long = LongAnswers()
        self._has_autoindex = True  # until it answers otherwise

    async def put(self, key: ObjectKey, parts: Sequence[Bytes]) -> bool:
        """As `Store.put`. Bytes that do not match the name are refused with Unavailable, before anything is sent."""
        whole = await self._sending.whole(key, parts)
        async with self._sending.turn(key):
            if await self.size(key) is not None:
                return False
            status = await self._put(key, whole.data)
            if status == 409:  # the folder is missing, and this server does not make it
                await self._make_folders(key)
                status = await self._put(key, whole.data)
            if status == 409:
                raise Unavailable(self._node, f"PUT {key}: HTTP 409, the folder cannot be made")
            if status == 412:
                return False
            size = await self.size(key)
            if size != len(whole.data):
                raise Unavailable(self._node, f"PUT {key}: of {len(whole.data)} bytes {size or 0} are there")
            return status == 201

    async def _put(self, key: ObjectKey, data: bytes) -> int:
        headers: Headers = [("Content-Length", str(len(data))), ("If-None-Match", "*")]
        async with self._exchange("PUT", key, headers, [data]) as (connection, answer):
            if answer.status not in (200, 201, 204, 409, 412):
                raise refusal(self._node, f"PUT {key}", answer, connection.early_text())
            return answer.status

    async def _make_folders(self, key: ObjectKey) -> None:
        path = ""
        for part in ["", *key.split("/")[:-1]]:
            path += f"{part}/" if part else ""
            async with self._exchange("MKCOL", path) as (connection, answer):
                if answer.status not in (200, 201, 301, 405):  # the last two: it is there
                    raise refusal(self._node, f"MKCOL {path}", answer, connection.early_text())

    async def list(self, prefix: str, *, after: str = "", limit: int = LIST_LIMIT) -> list[ObjectKey]:
        """As `Store.list`. A folder is listed at once, whatever `limit` is."""
        await trio.lowlevel.checkpoint()
        return await list_keys(self._entries, prefix, after, limit)

    async def get_external(
        self,
        path: str,
        into: memoryview,
        *,
        offset: int,
        arrived: Callable[[int], None] | None = None,
    ) -> int:
        """As `ExternalSource.get_external`: any file of the server."""
        return await self.get(ExternalPath(path), into, offset=offset, arrived=arrived)

    async def external_stat(self, path: str) -> ExternalStat:
        """As `ExternalSource.external_stat`. A redirect, or an answer without a length, is a folder's."""
        async with self._exchange("HEAD", ExternalPath(path)) as (_, answer):
            length = answer.headers.get(b"content-length")
            if answer.status in (301, 302, 307, 308, 404) or (answer.status == 200 and length is None):
                raise self._missing(ExternalPath(path))
            if answer.status != 200 or length is None:
                raise refusal(self._node, f"HEAD {path}", answer, "")
            return ExternalStat(int(length), version_tag(answer))

    async def list_external(self, path: str, *, limit: int = EXTERNAL_FILES_MAX) -> Sequence[str]:
        """As `ExternalSource.list_external`. Folders count, too."""
        found: list[str] = []
        folders = deque([path])
        seen = 0
        while folders:
            folder = folders.popleft()
            for entry in await self._entries(ExternalPath(folder)):
                below = check_path(f"{folder}/{entry.name}", f"node {self._node}: file name")
                (folders if entry.is_folder else found).append(below)
                seen += 1
                if seen > limit:
                    raise UsageError(f"node {self._node}: {path} holds more than {limit} files")
        if not found:
            raise self._missing(ExternalPath(path))
        return found

    def _exchange(
        self, method: str, path: str, headers: Headers = (), parts: Sequence[Bytes] = ()
    ) -> AbstractAsyncContextManager[Exchange]:
        what = f"{method} {path or self._shown}"
        return self._client.exchange(what, method, self._target(path), [*self._headers, *headers], parts)

    def _target(self, path: str) -> str:
        return f"/{quote(path)}" if isinstance(path, ExternalPath) else super()._target(path)

    async def _entries(self, path: str) -> Sequence[Entry]:
        """What is in a folder of the node, or of the server; nothing when there is none."""
        what = f"list {path}"
        own = not isinstance(path, ExternalPath)
        inside = f"{path}/" if own else ExternalPath(f"{path}/")
        if self._has_autoindex:
            async with self._exchange("GET", inside) as (connection, answer):
                if answer.status == 404:
                    return []
                if answer.status not in (200, 403, 405):
                    raise refusal(self._node, what, answer, connection.early_text())
                if answer.status == 200:
                    body = await connection.body(answer, LISTING_BYTES_MAX)
                    entries = await self._long.read(read_autoindex, body)
                    if entries is not None:
                        return entries
        async with self._exchange(
            "PROPFIND", inside, [("Depth", "1"), ("Content-Length", str(len(PROPFIND)))], [PROPFIND]
        ) as (connection, answer):
            if answer.status == 404:
                return []
            if answer.status != 207:
                raise refusal(self._node, what, answer, _HINT)
            body = await connection.body(answer, LISTING_BYTES_MAX)
        if own:  # a folder with an index page of its own says nothing of the others
            self._has_autoindex = False
        try:
            folder = unquote(self._target(inside))
            return await self._long.read(lambda said: read_multistatus(said, folder), body)
        except InvalidFormat as error:
            raise Unavailable(self._node, f"{what}: {error}") from error

    async def stat(self) -> StoreStat:
        """As `Store.stat`. A folder that does not exist yet is well: the first put makes it. A file is not."""
        async with self._exchange("HEAD", "") as (_, answer):
            if answer.status in (200, 204, 405):
                return StoreStat()
            if answer.status != 404:
                raise refusal(self._node, "stat", answer, _HINT if answer.status == 403 else "")
        path = unquote(self._base).strip("/")
        try:
            await self.external_stat(path)  # without a slash at its end
        except NotFound:
            return StoreStat()
        raise Unavailable(self._node, f"{self._shown} is a file and no folder")


def authorization(token: str | None) -> str | None:
    """The header for what the cluster file's `token_env` or `token_file` holds."""
    if token is None:
        return None
    return f"Basic {base64.b64encode(token.encode()).decode()}" if ":" in token else f"Bearer {token}"
