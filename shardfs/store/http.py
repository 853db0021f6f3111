"""A node that speaks HTTP/1.1: `shardfs node`, or for reading whole or partial objects any server of static files.

Bodies go from the socket into the caller's buffer without a copy, at over 1 GiB/s on one core. Nothing the server says
is believed beyond its framing: an answer that is longer or shorter than asked, for another range, or garbage, is
Unavailable with the reason. Redirects are not followed and credentials go to the configured server only. A request
that was sent over an idle connection which turns out to have been closed is sent once more over a new one; all other
retries, and all deadlines, are the caller's.
"""

import ssl
from collections.abc import Callable, Sequence
from contextlib import AbstractAsyncContextManager
from typing import TypeAlias
from urllib.parse import quote, urlsplit

import msgspec

from shardfs.core.digest import Bytes
from shardfs.core.keys import ObjectKey, parse_key
from shardfs.errors import InvalidFormat, NotFound, Unavailable, UsageError
from shardfs.store.base import LIST_LIMIT, ExternalPath, SpanInto, StoreStat
from shardfs.store.byteranges import Malformed, read_spans
from shardfs.store.http_answer import content_range, object_size, refusal
from shardfs.store.http_client import CONNECTIONS_MAX, Exchange, HttpClient
from shardfs.store.http_connection import Headers
from shardfs.store.json_answer import read_json

_JSON_BYTES_MAX = 1024 * 1024

_Page: TypeAlias = tuple[list[ObjectKey], bool]


class _Listing(msgspec.Struct):
    keys: list[str]
    end: bool


class _Stat(msgspec.Struct):
    id: str
    version: str = ""
    capacity: int | None = None
    free: int | None = None


class HttpStore:
    """`Store` and `SpanSource` over `url` (http or https, perhaps with a path).

    `tls` replaces the system's idea of whom to trust.
    """

    def __init__(
        self,
        node: str,
        url: str,
        *,
        token: str | None = None,
        authorization: str | None = None,
        connections_max: int = CONNECTIONS_MAX,
        tls: ssl.SSLContext | None = None,
    ) -> None:
        parts = urlsplit(url)
        if (
            parts.scheme not in ("http", "https")
            or not parts.hostname
            or parts.query
            or parts.fragment
            or parts.username
        ):
            raise UsageError(f"node {node}: not a plain http or https URL: {url}")
        self._node = node
        self._base = parts.path.rstrip("/")
        if token is not None:
            authorization = f"Bearer {token}"
        self._headers: Headers = [("Authorization", authorization)] if authorization is not None else []
        self._has_spans = True
        self._client = HttpClient(node, url, connections_max=connections_max, tls=tls)

    @property
    def node(self) -> str:
        return self._node

    async def get(
        self,
        key: ObjectKey | ExternalPath,
        into: memoryview,
        *,
        offset: int = 0,
        arrived: Callable[[int], None] | None = None,
    ) -> int:
        """As `Store.get`. The bytes land in `into` as they come; a failed call leaves some of them there."""
        if not into:
            if await self.size(key) is None:
                raise self._missing(key)
            return 0
        span = [("Range", f"bytes={offset}-{offset + len(into) - 1}")]
        async with self._exchange("GET", key, span) as (connection, answer):
            if answer.status == 416 and (size := object_size(answer)) is not None and offset >= size:
                return 0
            if answer.status == 404:
                raise self._missing(key)
            if answer.status not in (200, 206):
                raise refusal(self._node, f"GET {key}", answer, connection.early_text())
            count = content_range(answer, offset, len(into))
            await connection.body_into(answer, into[:count], arrived)
            return count

    @property
    def has_spans(self) -> bool:
        """As `SpanSource.has_spans`. Many servers ignore several ranges, or have a way of their own with them."""
        return self._has_spans

    async def get_spans(
        self, key: ObjectKey, spans: Sequence[SpanInto], *, arrived: Callable[[int, int], None] | None = None
    ) -> Sequence[int] | None:
        """As `SpanSource.get_spans`. The answer to a request that the server does not understand is not read."""
        asked = ",".join(f"{offset}-{offset + len(view) - 1}" for offset, view in spans)
        try:
            async with self._exchange("GET", key, [("Range", f"bytes={asked}")]) as (connection, answer):
                if answer.status == 404:
                    raise self._missing(key)
                if answer.status not in (200, 206, 416):
                    raise refusal(self._node, f"GET {key}", answer, connection.early_text())
                counts = await read_spans(connection, answer, spans, arrived)
        except Unavailable as error:
            if isinstance(error.__cause__, Malformed):
                self._has_spans = False
            raise
        self._has_spans = self._has_spans and counts is not None
        return counts

    async def read(self, key: ObjectKey, *, limit: int) -> bytes:
        """As `Store.read`."""
        async with self._exchange("GET", key) as (connection, answer):
            if answer.status == 404:
                raise self._missing(key)
            if answer.status != 200:
                raise refusal(self._node, f"GET {key}", answer, connection.early_text())
            return await connection.body(answer, limit)

    async def put(self, key: ObjectKey, parts: Sequence[Bytes]) -> bool:
        """As `Store.put`. Refused for not matching its name is Unavailable too: it may have been the wire."""
        views = [memoryview(part).cast("B") for part in parts]
        headers = [("Content-Length", str(sum(len(view) for view in views))), ("If-None-Match", "*")]
        async with self._exchange("PUT", key, headers, views) as (connection, answer):
            if answer.status == 201:
                return True
            if answer.status in (200, 204, 412):
                return False
            raise refusal(self._node, f"PUT {key}", answer, connection.early_text())

    async def size(self, key: ObjectKey | ExternalPath) -> int | None:
        """As `Store.size`."""
        async with self._exchange("HEAD", key) as (_, answer):
            if answer.status == 404:
                return None
            length = answer.headers.get(b"content-length")
            if answer.status != 200 or length is None:
                raise refusal(self._node, f"HEAD {key}", answer, "")
            return int(length)

    async def list(self, prefix: str, *, after: str = "", limit: int = LIST_LIMIT) -> list[ObjectKey]:
        """As `Store.list`. Only shardfs nodes can list."""
        found: list[ObjectKey] = []
        while len(found) < limit:
            start = found[-1] if found else after
            page, end = await self._page(prefix, start, min(limit - len(found), LIST_LIMIT))
            found += page
            if end:
                break
            if not page:
                raise Unavailable(self._node, f"list {prefix}: empty page before the end")
        return found

    async def _page(self, prefix: str, after: str, limit: int) -> _Page:
        target = f"-/list?prefix={quote(prefix, safe='')}&after={quote(after, safe='')}&limit={limit}"
        async with self._exchange("GET", target) as (connection, answer):
            if answer.status != 200:
                raise refusal(self._node, f"list {prefix}", answer, connection.early_text())
            body = await connection.body(answer, _JSON_BYTES_MAX)
        try:
            listing = read_json(body, _Listing)
            keys = [parse_key(text) for text in listing.keys]
        except InvalidFormat as error:
            raise Unavailable(self._node, f"list {prefix}: {error}") from error
        sound = len(keys) <= limit and all(key.startswith(prefix) for key in keys)
        if not sound or any(a >= b for a, b in zip([after, *keys], keys, strict=False)):
            raise Unavailable(self._node, f"list {prefix}: not what was asked for, or not sorted")
        return keys, listing.end

    async def delete(self, key: ObjectKey) -> bool:
        """As `Store.delete`."""
        async with self._exchange("DELETE", key) as (connection, answer):
            if answer.status in (200, 204):
                return True
            if answer.status == 404:
                return False
            raise refusal(self._node, f"DELETE {key}", answer, connection.early_text())

    async def stat(self) -> StoreStat:
        """As `Store.stat`. A server that is no shardfs node answers 404 and is well; a node with another id is not."""
        async with self._exchange("GET", "-/stat") as (connection, answer):
            if answer.status == 404:
                return StoreStat()
            if answer.status != 200:
                raise refusal(self._node, "stat", answer, connection.early_text())
            body = await connection.body(answer, _JSON_BYTES_MAX)
        try:
            told = read_json(body, _Stat)
        except InvalidFormat as error:
            raise Unavailable(self._node, f"stat: {error}") from error
        if told.id != self._node:
            raise Unavailable(self._node, f"the server there calls itself {told.id[:64]!r}")
        return StoreStat(told.capacity, told.free, told.version)

    async def aclose(self) -> None:
        """As `Store.aclose`."""
        self._client.close()

    def _exchange(
        self, method: str, path: str, headers: Headers = (), parts: Sequence[Bytes] = ()
    ) -> AbstractAsyncContextManager[Exchange]:
        """Ask and hand out the connection with the head of the answer; what breaks in the block is Unavailable too."""
        asking = [*self._headers, *headers]
        return self._client.exchange(f"{method} {path}", method, self._target(path), asking, parts)

    def _target(self, path: str) -> str:
        return f"{self._base}/{path}"

    def _missing(self, key: ObjectKey | ExternalPath) -> NotFound:
        return NotFound(f"node {self._node} has no {key}")
