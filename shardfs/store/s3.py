"""A node that is a folder of an S3 bucket, at any endpoint that speaks the protocol.

Bodies go over the same connections as those of `HttpStore`: straight into the caller's buffer, and cancelled at once.
The client libraries that were tried follow redirects to other hosts and take the session token along
(docs/adr/0013-engines.md); this one follows none. Errors are read for code and message. A 429 or 503 with Retry-After
is obeyed: until then, but for 5 s at most, calls fail at once with the reason.

`put` sends `If-None-Match: *` and the SHA-256 of the body, asks for the object before and for its size after. A server
that ignores the condition is still right, because equal names mean equal content (docs/SEMANTICS.md). What is small
(pointers, manifests, refs) costs one request instead of three: an ETag that is the MD5 of the body says as much as its
size, and a server that was once seen keeping the condition (`shardfs.store.s3_condition`) need not be asked before.
Deleting does not tell whether there was something; it is asked before.
"""

import hashlib
import ssl
import time
from collections.abc import AsyncIterator, Callable, Mapping, Sequence
from contextlib import asynccontextmanager, suppress
from dataclasses import dataclass
from typing import Protocol

import trio

from shardfs.core.digest import Bytes
from shardfs.core.keys import ObjectKey
from shardfs.core.names import check_path
from shardfs.errors import Denied, InvalidFormat, NotFound, StoreError, Unavailable, UsageError
from shardfs.store.base import EXTERNAL_FILES_MAX, LIST_LIMIT, ExternalPath, ExternalStat, StoreStat
from shardfs.store.http_answer import content_range, object_size, version_tag
from shardfs.store.http_client import CONNECTIONS_MAX, Exchange, HttpClient
from shardfs.store.http_connection import Answer, Broken, HttpConnection
from shardfs.store.s3_answer import S3Error, failure, read_error, read_listing, read_names
from shardfs.store.s3_condition import Condition
from shardfs.store.s3_sign import EMPTY_SHA256, Credentials, S3Request, sign
from shardfs.store.sending import SMALL_BYTES_MAX, Sending, Whole
from shardfs.store.xml import XML_BYTES_MAX

ERROR_BYTES_MAX = 64 * 1024
_PAGE_KEYS = 1000
_RENEWABLE = ("ExpiredToken", "InvalidToken", "TokenRefreshRequired")


class CredentialSource(Protocol):
    """Where credentials come from. `current` raises Denied, naming the node, when there are none."""

    async def current(self) -> Credentials: ...

    def forget(self) -> None:
        """The server calls them expired: look again before the next request."""
        ...


@dataclass(frozen=True, slots=True)
class S3Site:
    """Where a node is. `url` is that of the bucket; the names below `prefix` are the node's."""

    url: str
    prefix: str
    region: str


class S3Store:
    """`Store` over `site`, and `ExternalSource` over its bucket. `clock` is the wall clock, which signatures carry."""

    def __init__(
        self,
        node: str,
        site: S3Site,
        credentials: CredentialSource,
        *,
        connections_max: int = CONNECTIONS_MAX,
        tls: ssl.SSLContext | None = None,
        clock: Callable[[], float] = time.time,
    ) -> None:
        scheme, _, rest = site.url.partition("://")
        host, _, path = rest.partition("/")
        self._node = node
        self._shown = site.url
        self._bucket = "/" + path.strip("/") if path.strip("/") else ""
        self._prefix = site.prefix
        self._region = site.region
        self._credentials = credentials
        self._clock = clock
        self._client = HttpClient(node, f"{scheme}://{host}", connections_max=connections_max, tls=tls)
        self._sending = Sending(node)
        self._condition = Condition()
        self._bucket_seen = False

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
        async with self._exchange("GET", key, also=span) as (connection, answer):
            if answer.status in (200, 206):
                count = content_range(answer, offset, len(into))
                await connection.body_into(answer, into[:count], arrived)
                return count
            if answer.status == 416:
                size = object_size(answer)
                if size is None or offset >= size:
                    return 0
            raise await self._failure(f"GET {key}", connection, answer, key)

    async def read(self, key: ObjectKey, *, limit: int) -> bytes:
        """As `Store.read`."""
        async with self._exchange("GET", key) as (connection, answer):
            if answer.status != 200:
                raise await self._failure(f"GET {key}", connection, answer, key)
            return await connection.body(answer, limit)

    async def put(self, key: ObjectKey, parts: Sequence[Bytes]) -> bool:
        """As `Store.put`. Bytes that do not match the name are refused with Unavailable, before anything is sent."""
        whole = await self._sending.whole(key, parts, sha256=True)
        async with self._sending.turn(key):
            if len(whole.data) > SMALL_BYTES_MAX:  # asking spares the bytes
                return await self.size(key) is None and await self._create(key, whole)
            return await self._condition.put(
                absent=lambda: self._absent(key),
                create=lambda: self._create(key, whole),
            )

    async def _absent(self, key: ObjectKey) -> bool:
        return await self.size(key) is None

    async def _create(self, key: ObjectKey, whole: Whole) -> bool:
        """PUT on condition that there is nothing; False when there is, as far as the server looks."""
        headers = {"if-none-match": "*", "content-length": str(len(whole.data))}
        async with self._exchange("PUT", key, headers, body=whole.data, sha256=whole.sha256) as (connection, answer):
            if answer.status == 412:
                return False
            if answer.status not in (200, 201, 204):
                raise await self._failure(f"PUT {key}", connection, answer, None)
            tag = version_tag(answer)
            await connection.body(answer, ERROR_BYTES_MAX)
        if len(whole.data) <= SMALL_BYTES_MAX and tag.strip('"') == _md5(whole.data):
            return True
        size = await self.size(key)
        if size != len(whole.data):
            raise Unavailable(self._node, f"PUT {key}: of {len(whole.data)} bytes {size or 0} are there")
        return True

    async def size(self, key: ObjectKey | ExternalPath) -> int | None:
        """As `Store.size`."""
        found = await self._head(key)
        return None if found is None else found.size

    async def _head(self, key: ObjectKey | ExternalPath) -> ExternalStat | None:
        async with self._exchange("HEAD", key) as (connection, answer):
            if answer.status == 200:
                length = answer.headers.get(b"content-length")
                if length is None:
                    raise Unavailable(self._node, f"HEAD {key}: an answer without Content-Length")
                return ExternalStat(int(length), version_tag(answer))
            if answer.status != 404:
                raise await self._failure(f"HEAD {key}", connection, answer, None)
        await self._see_bucket()
        return None

    async def list(self, prefix: str, *, after: str = "", limit: int = LIST_LIMIT) -> list[ObjectKey]:
        """As `Store.list`. Objects of others in the same folder are passed over."""
        found: list[ObjectKey] = []
        last = self._prefix + after if after else ""
        while len(found) < limit:
            query = {"list-type": "2", "encoding-type": "url", "prefix": self._prefix + prefix}
            query["max-keys"] = str(min(limit - len(found), _PAGE_KEYS))
            if last:
                query["start-after"] = last
            what = f"list {prefix}"
            async with self._exchange("GET", None, query=query) as (connection, answer):
                if answer.status != 200:
                    raise await self._failure(what, connection, answer, None)
                body = await connection.body(answer, XML_BYTES_MAX)
            try:
                page = read_listing(body, self._prefix)
            except InvalidFormat as error:
                raise Unavailable(self._node, f"{what}: {error}") from error
            before = found[-1] if found else after
            if any(a >= b for a, b in zip([before, *page.keys], page.keys, strict=False)):
                raise Unavailable(self._node, f"{what}: not sorted, or not what was asked for")
            found += page.keys
            if not page.more:
                break
            if page.last <= last:
                raise Unavailable(self._node, f"{what}: empty page before the end")
            last = page.last
        return found[:limit]

    async def delete(self, key: ObjectKey) -> bool:
        """As `Store.delete`."""
        if await self.size(key) is None:
            return False
        async with self._exchange("DELETE", key) as (connection, answer):
            if answer.status not in (200, 204):
                raise await self._failure(f"DELETE {key}", connection, answer, None)
            await connection.body(answer, ERROR_BYTES_MAX)
        return True

    async def stat(self) -> StoreStat:
        """As `Store.stat`. S3 knows no limits: the bucket is there, and may be listed."""
        query = {"list-type": "2", "max-keys": "1", "prefix": self._prefix}
        async with self._exchange("GET", None, query=query) as (connection, answer):
            if answer.status != 200:
                raise await self._failure("stat", connection, answer, None)
            body = await connection.body(answer, ERROR_BYTES_MAX)
        try:
            read_listing(body, self._prefix)
        except InvalidFormat as error:
            raise Unavailable(self._node, f"stat: this is no S3 server: {error}") from error
        self._bucket_seen = True
        return StoreStat()

    async def get_external(
        self,
        path: str,
        into: memoryview,
        *,
        offset: int,
        arrived: Callable[[int], None] | None = None,
    ) -> int:
        """As `ExternalSource.get_external`: any object of the bucket."""
        return await self.get(ExternalPath(path), into, offset=offset, arrived=arrived)

    async def external_stat(self, path: str) -> ExternalStat:
        """As `ExternalSource.external_stat`."""
        found = await self._head(ExternalPath(path))
        if found is None:
            raise self._missing(ExternalPath(path))
        return found

    async def list_external(self, path: str, *, limit: int = EXTERNAL_FILES_MAX) -> Sequence[str]:
        """As `ExternalSource.list_external`. Names that end with a slash are marks for folders, and passed over."""
        found: list[str] = []
        last, more = "", True
        while more:
            query = {"list-type": "2", "encoding-type": "url", "prefix": f"{path}/"}
            if last:
                query["start-after"] = last
            async with self._exchange("GET", None, query=query) as (connection, answer):
                if answer.status != 200:
                    raise await self._failure(f"list {path}", connection, answer, None)
                body = await connection.body(answer, XML_BYTES_MAX)
            try:
                page = read_names(body, f"{path}/")
            except InvalidFormat as error:
                raise Unavailable(self._node, f"list {path}: {error}") from error
            if any(a >= b for a, b in zip([last, *page.names], page.names, strict=False)):
                raise Unavailable(self._node, f"list {path}: not sorted, or not what was asked for")
            if page.more and not page.names:
                raise Unavailable(self._node, f"list {path}: empty page before the end")
            found += [
                check_path(name, f"node {self._node}: file name") for name in page.names if not name.endswith("/")
            ]
            if len(found) > limit:
                raise UsageError(f"node {self._node}: {path} holds more than {limit} files")
            last, more = page.names[-1] if page.names else "", page.more
        if not found:
            raise self._missing(ExternalPath(path))
        return found

    async def aclose(self) -> None:
        """As `Store.aclose`."""
        self._client.close()
        await trio.lowlevel.checkpoint()

    @asynccontextmanager
    async def _exchange(
        self,
        method: str,
        key: ObjectKey | ExternalPath | None,
        headers: Mapping[str, str] | None = None,
        *,
        query: Mapping[str, str] | None = None,
        also: Sequence[tuple[str, str]] = (),
        body: bytes = b"",
        sha256: str = EMPTY_SHA256,
    ) -> AsyncIterator[Exchange]:
        """A signed request for the object, or with None for the bucket. `also` are headers that are not signed."""
        path = self._bucket or "/"
        if key is not None:
            path = f"{self._bucket}/{'' if isinstance(key, ExternalPath) else self._prefix}{key}"
        request = S3Request(method, path, query or {}, headers or {}, sha256)
        credentials = await self._credentials.current()
        signed = sign(
            request, host=self._client.authority, region=self._region, credentials=credentials, now=self._clock()
        )
        what = f"{method} {key if key is not None else self._shown}"
        parts = [body] if body else ()
        async with self._client.exchange(what, method, request.target, [*signed, *also], parts) as exchange:
            yield exchange

    async def _failure(
        self, what: str, connection: HttpConnection, answer: Answer, key: ObjectKey | ExternalPath | None
    ) -> StoreError | NotFound:
        """The error that an answer means. With `key`, a 404 may mean that there is no such object."""
        error = S3Error()
        if answer.length != 0:
            with suppress(Broken):  # then the status has to say enough
                error = read_error(answer, await connection.body(answer, ERROR_BYTES_MAX))
        if error.code in _RENEWABLE:
            self._credentials.forget()
        if error.code == "NoSuchBucket":
            return Unavailable(self._node, f"{what}: there is no such bucket: {self._shown}")
        if key is not None and answer.status == 404:
            if error.code != "NoSuchKey":
                await self._see_bucket()
            return self._missing(key)
        if answer.status in (400, 401, 403) and what.startswith("HEAD "):
            await self.stat()  # HEAD has no body that could say why; this has, and raises it
        if answer.status in (401, 403) and not error.code:
            return Denied(self._node, f"{what}: HTTP {answer.status}, the credentials are refused")
        return failure(self._node, what, answer, error)

    async def _see_bucket(self) -> None:
        """A 404 that does not say what is missing may mean the bucket, or be that of any other web server."""
        if not self._bucket_seen:
            await self.stat()

    def _missing(self, key: ObjectKey | ExternalPath) -> NotFound:
        return NotFound(f"node {self._node} has no {key}")


def _md5(data: bytes) -> str:
    """What most servers call an object that was sent in one piece; others are asked for its size."""
    return hashlib.md5(data, usedforsecurity=False).hexdigest()
