"""A server that says exactly what a test tells it to, byte for byte."""

import socket
import struct
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager, suppress
from functools import partial

import trio

from shardfs.store.http import HttpStore

Script = Callable[[trio.SocketStream, int], Awaitable[None]]
"""Called for each connection, with its number from 0. Returning closes the connection."""


@asynccontextmanager
async def evil_server(script: Script) -> AsyncIterator[HttpStore]:
    """A store whose node behaves as `script` does."""
    connections = 0

    async def handle(stream: trio.SocketStream) -> None:
        nonlocal connections
        number, connections = connections, connections + 1
        async with stream:
            with suppress(trio.BrokenResourceError, trio.ClosedResourceError):  # the client had enough
                await script(stream, number)

    async with trio.open_nursery() as nursery:
        listeners = await nursery.start(partial(trio.serve_tcp, handle, 0, host="127.0.0.1"))
        store = HttpStore("a", f"http://127.0.0.1:{listeners[0].socket.getsockname()[1]}")
        try:
            yield store
        finally:
            await store.aclose()
            nursery.cancel_scope.cancel()


async def request_head(stream: trio.SocketStream) -> bytes:
    """The next request's head; b"" when the client has closed."""
    data = b""
    while b"\r\n\r\n" not in data:
        more = await stream.receive_some()
        if not more:
            return b""
        data += more
    return data


def says(answer: bytes) -> Script:
    """Answer every request with these bytes and close."""

    async def script(stream: trio.SocketStream, number: int) -> None:
        await request_head(stream)
        await stream.send_all(answer)

    return script


def reset(stream: trio.SocketStream) -> None:
    """Close with a RST."""
    stream.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
    stream.socket.close()


def head(status: str, *headers: str) -> bytes:
    """The head of an answer."""
    return "\r\n".join((f"HTTP/1.1 {status}", *headers, "", "")).encode()
