"""Questions to a NameNode over HTTP, and the one exception to "redirects are never followed".

A NameNode answers everything itself but OPEN and CREATE, to which it names a DataNode. That redirect is followed once,
if it leads to the same question on a plain http host (`shardfs.store.webhdfs_answer.read_redirect`); a redirect of a
DataNode, or any other of the NameNode, is not. Nothing secret is sent to either: the user's name is all there is.

DataNodes close every connection after one answer, so theirs are made for one exchange each, at most
`connections_max` at a time, and the same number to the NameNode.
"""

import socket
from collections.abc import AsyncIterator, Mapping, Sequence
from contextlib import asynccontextmanager, suppress
from typing import TypeAlias
from urllib.parse import quote, urlencode

import trio

from shardfs.core.digest import Bytes
from shardfs.errors import Unavailable
from shardfs.store.http_client import CONNECTIONS_MAX, Exchange, HttpClient
from shardfs.store.http_connection import Answer, Broken, Headers, HttpConnection
from shardfs.store.http_pool import reason_of
from shardfs.store.http_wire import connect
from shardfs.store.webhdfs_answer import PREFIX, Redirect, read_redirect, read_refused, stranger

ANSWER_BYTES_MAX = 64 * 1024

Options: TypeAlias = Mapping[str, str]
"""What a question says besides its path."""

_NONE: Options = {}


class WebHdfsClient:
    """The NameNode at `authority` (host:port) and whatever DataNodes it names, for the user of that name."""

    def __init__(self, node: str, authority: str, *, user: str, connections_max: int = CONNECTIONS_MAX) -> None:
        self._node = node
        self._user = user
        self._namenode = HttpClient(node, f"http://{authority}", connections_max=connections_max)
        self._slots = trio.Semaphore(connections_max)

    async def ask(
        self, what: str, method: str, path: str, op: str, options: Options = _NONE, *, limit: int = ANSWER_BYTES_MAX
    ) -> bytes:
        """What the NameNode says to `op`, at most `limit` bytes. Refused, StoreError.

        `what` says in messages what was asked for; `path` begins at the root of HDFS.
        """
        target = self._target(path, op, options)
        async with self._namenode.exchange(what, method, target, _no_body(method)) as (connection, answer):
            if answer.status != 200:
                raise await self._failure(what, connection, answer)
            return await connection.body(answer, limit)

    @asynccontextmanager
    async def data(
        self, what: str, method: str, path: str, op: str, options: Options, parts: Sequence[Bytes] = ()
    ) -> AsyncIterator[Exchange]:
        """OPEN or CREATE at the DataNode that the NameNode names, when it grants that. Refused, StoreError."""
        target = self._target(path, op, options)
        async with self._namenode.exchange(what, method, target, _no_body(method)) as (connection, answer):
            if answer.status >= 400:
                raise await self._failure(what, connection, answer)
            place = read_redirect(answer, path=path, op=op)
            with suppress(Broken):  # whatever it says besides only matters for using the connection again
                await connection.body(answer, ANSWER_BYTES_MAX)
        headers: Headers = ()
        if parts:
            size = sum(memoryview(part).nbytes for part in parts)
            headers = [("Content-Type", "application/octet-stream"), ("Content-Length", str(size))]
        async with self._datanode(what, method, place, headers, parts) as exchange:
            yield exchange

    @asynccontextmanager
    async def _datanode(
        self, what: str, method: str, place: Redirect, headers: Headers, parts: Sequence[Bytes]
    ) -> AsyncIterator[Exchange]:
        there = f"{what}: DataNode {place.authority}"
        async with self._slots:
            try:
                wire = await connect(place.host, place.port, None)
            except socket.gaierror as error:
                hint = "the NameNode calls it so, and this machine must know that name"
                raise Unavailable(self._node, f"{there}: {reason_of(error)} ({hint})") from error
            except OSError as error:
                raise Unavailable(self._node, f"{there}: cannot connect: {reason_of(error)}") from error
            connection = HttpConnection(wire, place.authority)
            try:
                answer = await connection.ask(method, place.target, headers, parts)
                if answer.status not in (200, 201):
                    raise await self._failure(there, connection, answer)
                yield connection, answer
            except Broken as error:
                raise Unavailable(self._node, f"{there}: {error}") from error
            finally:
                connection.close()

    async def _failure(self, what: str, connection: HttpConnection, answer: Answer) -> Exception:
        body = b""
        text = connection.early_text()
        with suppress(Broken):  # then the status has to say enough
            body = await connection.body(answer, ANSWER_BYTES_MAX)
        return read_refused(body) or stranger(self._node, what, answer, text)

    def _target(self, path: str, op: str, options: Options) -> str:
        query = urlencode({"op": op, "user.name": self._user, **options}, quote_via=quote, safe="/")
        return f"{PREFIX}{quote(path)}?{query}"

    def close(self) -> None:
        """Close what is idle now."""
        self._namenode.close()


def _no_body(method: str) -> Headers:
    return [("Content-Length", "0")] if method == "PUT" else []
