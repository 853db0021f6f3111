"""A server on a free port, and clients that speak to it byte by byte."""

import re
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Any

import trio

from shardfs.server import ServerOptions, serve
from shardfs.store.http import HttpStore


@dataclass(frozen=True, slots=True)
class Node:
    """A running server. Cancelling `scope` stops it."""

    data: Path
    host: str
    port: int
    scope: trio.CancelScope
    stores: list[HttpStore] = field(default_factory=list)

    async def connect(self) -> trio.SocketStream:
        return await trio.open_tcp_stream(self.host, self.port)

    async def say(self, data: bytes) -> bytes:
        """Send, then read until the server closes."""
        async with await self.connect() as stream:
            await stream.send_all(data)
            return await read_all(stream)

    async def ask(self, method: str, path: str, *headers: str, body: bytes = b"") -> tuple[int, dict[str, str], bytes]:
        """One request on its own connection: status, headers in lower case, body."""
        lines = [f"{method} /{path} HTTP/1.1", "Host: x", "Connection: close", *headers]
        if body:
            lines.append(f"Content-Length: {len(body)}")
        return parse(await self.say("\r\n".join((*lines, "", "")).encode() + body))

    async def is_well(self) -> bool:
        return (await self.ask("GET", "-/health"))[0] == 200

    async def errors(self, kind: str) -> int:
        """How often the server has counted this kind of error."""
        found = re.search(rf'_errors_total{{kind="{kind}"}} (\d+)', (await self.ask("GET", "-/metrics"))[2].decode())
        return int(found[1]) if found else 0

    @property
    def store(self) -> HttpStore:
        """A client, closed with the server."""
        if not self.stores:
            self.stores.append(HttpStore("a", f"http://{self.host}:{self.port}"))
        return self.stores[0]

    def temps(self) -> list[Path]:
        folder = self.data / "tmp"
        return list(folder.iterdir()) if folder.exists() else []


@asynccontextmanager
async def serving(data: Path, **options: Any) -> AsyncIterator[Node]:
    """A server over `data`, stopped at the end."""
    async with trio.open_nursery() as nursery:
        chosen = ServerOptions(**({"node": "a", "data": data, "port": 0} | options))
        host, port = await nursery.start(partial(serve, chosen))
        node = Node(data, host, port, nursery.cancel_scope)
        try:
            yield node
        finally:
            for store in node.stores:
                await store.aclose()
            nursery.cancel_scope.cancel()


async def read_all(stream: trio.SocketStream) -> bytes:
    """Everything until the end or a reset."""
    data = bytearray()
    with suppress(trio.BrokenResourceError):
        while more := await stream.receive_some():
            data += more
    return bytes(data)


async def read_answer(stream: trio.SocketStream) -> tuple[int, dict[str, str], bytes]:
    """One answer with Content-Length, leaving the connection open."""
    data = b""
    while b"\r\n\r\n" not in data:
        more = await stream.receive_some()
        assert more, f"closed after {data!r}"
        data += more
    status, headers, body = parse(data)
    while len(body) < int(headers.get("content-length", 0)):
        more = await stream.receive_some()
        assert more, "closed in the body"
        body += more
    return status, headers, body


def parse(answer: bytes) -> tuple[int, dict[str, str], bytes]:
    """Status (0 for nothing), headers and the rest."""
    head, _, body = answer.partition(b"\r\n\r\n")
    first, *lines = head.decode("latin-1").split("\r\n")
    pairs = (line.partition(":") for line in lines)
    headers = {name.lower(): value.strip() for name, _, value in pairs}
    return (int(first.split()[1]) if first else 0), headers, body
