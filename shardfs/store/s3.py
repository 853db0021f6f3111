"""A node that is a folder of an S3 bucket, at any endpoint that speaks the protocol.

How it is spoken to, and what its refusals mean, is in `shardfs.store.s3_client`.

`put` sends `If-None-Match: *` and the SHA-256 of the body, asks for the object before and for its size after. A server
that ignores the condition is still right, because equal names mean equal content (docs/SEMANTICS.md). What is small
(pointers, manifests, refs) costs one request instead of three: an ETag that is the MD5 of the body says as much as its
size, and a server that was once seen keeping the condition (`shardfs.store.s3_condition`) need not be asked before.
Deleting does not tell whether there was something; it is asked before.
"""

import hashlib
import ssl
import time
from collections.abc import Callable, Sequence

import trio

from shardfs.core.digest import Bytes
from shardfs.core.keys import ObjectKey
from shardfs.core.names import check_path
from shardfs.errors import InvalidFormat, Unavailable, UsageError
from shardfs.store.base import EXTERNAL_FILES_MAX, LIST_LIMIT, ExternalPath, ExternalStat, StoreStat
from shardfs.store.http_answer import content_range, object_size, version_tag
from shardfs.store.http_client import CONNECTIONS_MAX
from shardfs.store.long_answers import LongAnswers
from shardfs.store.s3_answer import read_listing, read_names
from shardfs.store.s3_client import ERROR_BYTES_MAX, CredentialSource, S3Client, S3Site
from shardfs.store.s3_condition import Condition
from shardfs.store.sending import SMALL_BYTES_MAX, Sending, Whole

_PAGE_KEYS = 1000


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
        self._node = node
        self._prefix = site.prefix
        self._client = S3Client(node, site, credentials, connections_max=connections_max, tls=tls, clock=clock)
        self._sending = Sending(node)
        self._long = LongAnswers()
        self._condition = Condition()

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
                raise self._client.missing(key)
            return 0
        span = [("Range", f"bytes={offset}-{offset + len(into) - 1}")]
        async with self._client.exchange("GET", key, also=span) as (connection, answer):
            if answer.status in (200, 206):
                count = content_range(answer, offset, len(into))
                await connection.body_into(answer, into[:count], arrived)
                return count
            if answer.status == 416:
                size = object_size(answer)
                if size is None or offset >= size:
                    return 0
            raise await self._client.failure(f"GET {key}", connection, answer, key)

    async def read(self, key: ObjectKey, *, limit: int) -> bytes:
        """As `Store.read`."""
        async with self._client.exchange("GET", key) as (connection, answer):
            if answer.status != 200:
                raise await self._client.failure(f"GET {key}", connection, answer, key)
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
        sending = self._client.exchange("PUT", key, headers, body=whole.data, sha256=whole.sha256)
        async with sending as (connection, answer):
            if answer.status == 412:
                return False
            if answer.status not in (200, 201, 204):
                raise await self._client.failure(f"PUT {key}", connection, answer, None)
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
        async with self._client.exchange("HEAD", key) as (connection, answer):
            if answer.status == 200:
                length = answer.headers.get(b"content-length")
                if length is None:
                    raise Unavailable(self._node, f"HEAD {key}: an answer without Content-Length")
                return ExternalStat(int(length), version_tag(answer))
            if answer.status != 404:
                raise await self._client.failure(f"HEAD {key}", connection, answer, None)
        await self._client.see_bucket()
        return None

    async def list(self, prefix: str, *, after: str = "", limit: int = LIST_LIMIT) -> list[ObjectKey]:
        """As `Store.list`. Objects of others in the same folder are passed over."""
        found: list[ObjectKey] = []
        last = self._prefix + after if after else ""
        while len(found) < limit:
            query = {"encoding-type": "url", "prefix": self._prefix + prefix}
            query["max-keys"] = str(min(limit - len(found), _PAGE_KEYS))
            if last:
                query["start-after"] = last
            what = f"list {prefix}"
            body = await self._client.listing(what, query)
            try:
                page = await self._long.read(lambda said: read_listing(said, self._prefix), body)
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
        async with self._client.exchange("DELETE", key) as (connection, answer):
            if answer.status not in (200, 204):
                raise await self._client.failure(f"DELETE {key}", connection, answer, None)
            await connection.body(answer, ERROR_BYTES_MAX)
        return True

    async def stat(self) -> StoreStat:
        """As `Store.stat`. S3 knows no limits: the bucket is there, and may be listed."""
        await self._client.look()
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
            raise self._client.missing(ExternalPath(path))
        return found

    async def list_external(self, path: str, *, limit: int = EXTERNAL_FILES_MAX) -> Sequence[str]:
        """As `ExternalSource.list_external`. Names that end with a slash are marks for folders, and passed over."""
        found: list[str] = []
        last, more = "", True
        while more:
            query = {"encoding-type": "url", "prefix": f"{path}/"}
            if last:
                query["start-after"] = last
            body = await self._client.listing(f"list {path}", query)
            try:
                page = await self._long.read(lambda said: read_names(said, f"{path}/"), body)
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
            raise self._client.missing(ExternalPath(path))
        return found

    async def aclose(self) -> None:
        """As `Store.aclose`."""
        self._client.close()
        await trio.lowlevel.checkpoint()


def _md5(data: bytes) -> str:
    """What most servers call an object that was sent in one piece; others are asked for its size."""
    return hashlib.md5(data, usedforsecurity=False).hexdigest()
