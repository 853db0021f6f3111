"""Questions to one S3 bucket: signed, sent, and what the answers that say no mean.

Bodies go over the same connections as those of `HttpStore`: straight into the caller's buffer, and cancelled at once.
The client libraries that were tried follow redirects to other hosts and take the session token along
(docs/adr/0013-engines.md); this one follows none. Errors are read for code and message. A 429 or 503 with Retry-After
is obeyed: until then, but for 5 s at most, calls fail at once with the reason.

A refusal does not always say what is refused: a HEAD has no body, and a 404 may mean the object, the bucket or a web
server that is no S3 at all. Then the bucket is looked at, and that failure is raised instead.
"""

import ssl
from collections.abc import AsyncIterator, Callable, Mapping, Sequence
from contextlib import asynccontextmanager, suppress
from dataclasses import dataclass
from typing import Protocol

from shardfs.core.keys import ObjectKey
from shardfs.errors import Denied, InvalidFormat, NotFound, StoreError, Unavailable
from shardfs.store.base import ExternalPath
from shardfs.store.http_client import Exchange, HttpClient
from shardfs.store.http_connection import Answer, Broken, HttpConnection
from shardfs.store.s3_answer import S3Error, failure, read_error, read_listing
from shardfs.store.s3_sign import EMPTY_SHA256, Credentials, S3Request, sign
from shardfs.store.xml import XML_BYTES_MAX

ERROR_BYTES_MAX = 64 * 1024
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


class S3Client:
    """The bucket of `site`. `clock` is the wall clock, which signatures carry."""

    def __init__(
        self,
        node: str,
        site: S3Site,
        credentials: CredentialSource,
        *,
        connections_max: int,
        tls: ssl.SSLContext | None,
        clock: Callable[[], float],
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
        self._bucket_seen = False

    @asynccontextmanager
    async def exchange(
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
        """A signed request for the object, or with None for the bucket. `also` are headers that are not signed.

        `sha256` is that of the body. Denied, Unavailable; an answer that says no is left to the caller and `failure`.
        """
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

    async def listing(self, what: str, query: Mapping[str, str], *, limit: int = XML_BYTES_MAX) -> bytes:
        """A page of ListObjectsV2 as it was sent, at most `limit` bytes. StoreError.

        `what` says in messages what was asked for; `query` says which names, and how many.
        """
        async with self.exchange("GET", None, query={"list-type": "2", **query}) as (connection, answer):
            if answer.status != 200:
                raise await self.failure(what, connection, answer, None)
            return await connection.body(answer, limit)

    async def look(self) -> None:
        """The bucket is there and may be listed, or StoreError says what is wrong."""
        body = await self.listing("stat", {"max-keys": "1", "prefix": self._prefix}, limit=ERROR_BYTES_MAX)
        try:
            read_listing(body, self._prefix)
        except InvalidFormat as error:
            raise Unavailable(self._node, f"stat: this is no S3 server: {error}") from error
        self._bucket_seen = True

    async def see_bucket(self) -> None:
        """A 404 that does not say what is missing may mean the bucket, or be that of any other web server."""
        if not self._bucket_seen:
            await self.look()

    async def failure(
        self, what: str, connection: HttpConnection, answer: Answer, key: ObjectKey | ExternalPath | None
    ) -> StoreError | NotFound:
        """The error that an answer means. With `key`, a 404 may mean that there is no such object."""
        error = S3Error()
        if answer.length != 0:
            with suppress(Broken):  # then the status has to say enough
                error = read_error(answer, await connection.body(answer, ERROR_BYTES_MAX), connection.hide)
        if error.code in _RENEWABLE:
            self._credentials.forget()
        if error.code == "NoSuchBucket":
            return Unavailable(self._node, f"{what}: there is no such bucket: {self._shown}")
        if key is not None and answer.status == 404:
            if error.code != "NoSuchKey":
                await self.see_bucket()
            return self.missing(key)
        if answer.status in (400, 401, 403) and what.startswith("HEAD "):
            await self.look()  # HEAD has no body that could say why; this has, and raises it
        if answer.status in (401, 403) and not error.code:
            return Denied(self._node, f"{what}: HTTP {answer.status}, the credentials are refused")
        return failure(self._node, what, answer, error)

    def missing(self, key: ObjectKey | ExternalPath) -> NotFound:
        """The error that says so."""
        return NotFound(f"node {self._node} has no {key}")

    def close(self) -> None:
        """Close what is idle now."""
        self._client.close()
