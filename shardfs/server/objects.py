"""Objects over HTTP.

| request | answers |
|---|---|
| `GET`, `HEAD` | 200; 206 for a `Range` (GET), with several parts for several ranges; 404; 416 |
| `PUT` | 201 created, durable; 200 it was there, or 412 with `If-None-Match: *`; 411 no Content-Length; |
| | 413 larger than its kind may be; 422 the bytes do not match the name; 507 disk full |
| `DELETE` | 204; 404 |

The body of a PUT goes through 1 MiB of memory into a temp file, and becomes an object only after it has been read back
and verified. Whether the object is there already is decided at the end, by the link: no answer is a guess.
"""

import os
from collections.abc import Sequence

import trio

from shardfs.core.digest import Bytes
from shardfs.core.keys import ObjectKey
from shardfs.core.objects import size_limit
from shardfs.errors import InvalidFormat
from shardfs.server.connection import Connection, time_limit
from shardfs.server.disk import Disk
from shardfs.server.options import ServerOptions
from shardfs.server.ranges import Span, framed
from shardfs.server.request import Refused, Request
from shardfs.store.folder import Folder, read_full
from shardfs.store.folder_upload import Upload

_SMALL_BYTES = 64 * 1024  # read in the thread that opens the file: one hop instead of two
_BUFFER_BYTES = 1024 * 1024


class _Opened:
    """What a GET sends: its head, `lead` right behind it, then the `runs` of the open `file` (-1: there are none).

    Each run is start, end and the bytes that follow it. What is small has been read already and is among these bytes.
    """

    __slots__ = ("file", "headers", "lead", "runs", "status")

    def __init__(self, file: int, size: int, spans: Sequence[Span] | None) -> None:
        self.file = file
        self.lead: Bytes = b""
        self.runs: list[tuple[int, int, bytes]] = []
        self.status = 200 if spans is None else 206
        self.headers = [("Accept-Ranges", "bytes")]
        parts = spans or [(0, size)]
        if len(parts) == 1:
            ((start, end),) = parts
            self._describe("application/octet-stream", end - start)
            if spans is not None:
                self.headers.append(("Content-Range", f"bytes {start}-{end - 1}/{size}"))
            self._take(start, end)
            return
        frame = framed(parts, size)
        self._describe(frame.content_type, frame.length)
        for head, (start, end) in zip(frame.heads, parts, strict=True):
            self._say(head)
            self._take(start, end)
        self._say(frame.tail)

    def _describe(self, content_type: str, length: int) -> None:
        self.headers += [("Content-Length", str(length)), ("Content-Type", content_type)]

    def _take(self, start: int, end: int) -> None:
        if end - start > _SMALL_BYTES:
            self.runs.append((start, end, b""))
            return
        data = bytearray(end - start)
        if read_full(self.file, memoryview(data), start) != len(data):
            raise OSError(f"object shorter than a moment ago: it ends before {end}")
        self._say(data)

    def _say(self, data: bytes | bytearray) -> None:
        if self.runs:
            start, end, after = self.runs[-1]
            self.runs[-1] = (start, end, after + data)
        else:
            self.lead = data if not self.lead else bytes(self.lead) + data


class Objects:
    """The handlers, over one folder."""

    def __init__(self, folder: Folder, disk: Disk, options: ServerOptions) -> None:
        self._folder = folder
        self._disk = disk
        self._options = options
        self._uploads = trio.Semaphore(options.uploads_max)
        self._buffers: list[bytearray] = []  # at most `uploads_max`: each is out while a PUT uses it

    async def get(self, connection: Connection, request: Request, key: ObjectKey) -> None:
        """The object or parts of it."""
        opened = await self._disk.run(self._open, key, request)
        try:
            await connection.answer(opened.status, opened.headers, opened.lead, more=bool(opened.runs))
            for start, end, after in opened.runs:
                await connection.send_file(opened.file, start, end, self._disk, after=after)
        finally:
            if opened.file >= 0:
                os.close(opened.file)

    def _open(self, key: ObjectKey, request: Request) -> _Opened:
        try:
            file, size = self._folder.open(key)
        except FileNotFoundError:
            raise Refused(404, "no such object") from None
        kept = False
        try:
            opened = _Opened(file, size, request.spans(size))
            kept = bool(opened.runs)
            if not kept:
                opened.file = -1
            return opened
        finally:
            if not kept:
                os.close(file)

    async def head(self, connection: Connection, key: ObjectKey) -> None:
        """Size only; a Range means nothing here."""
        size = await self._disk.run(self._folder.size, key)
        if size is None:
            raise Refused(404, "no such object")
        await connection.answer(200, [("Content-Length", str(size)), ("Accept-Ranges", "bytes")])

    async def delete(self, connection: Connection, key: ObjectKey) -> None:
        """204 when this call removed it."""
        if not await self._disk.run(self._folder.delete, key):
            raise Refused(404, "no such object")
        await connection.answer(204, [])

    async def put(self, connection: Connection, request: Request, key: ObjectKey) -> None:
        """Receive, verify, make durable, make visible, answer."""
        if request.length is None or request.chunked:
            connection.closing = True  # what such a client sends next is anybody's guess
            raise Refused(411, "Content-Length is needed, and no transfer coding")
        if request.length > size_limit(key):
            raise Refused(413, f"at most {size_limit(key)} bytes")
        async with self._uploads:
            try:
                created = await self._receive(connection, key, request.length)
            except InvalidFormat as error:
                raise Refused(422, str(error)) from error
        if created:
            await connection.answer(201, [("Content-Length", "0")])
        elif request.headers.get(b"if-none-match") == b"*":
            await connection.answer(412, [("Content-Length", "0")])
        else:
            await connection.answer(200, [("Content-Length", "0")])

    async def _receive(self, connection: Connection, key: ObjectKey, size: int) -> bool:
        upload = await self._disk.run(Upload, self._folder, key, size)
        try:
            buffer = self._buffers.pop() if self._buffers else bytearray(_BUFFER_BYTES)
            try:
                with time_limit(self._options.body_seconds(size)), memoryview(buffer) as view:
                    await connection.proceed()
                    while count := await connection.receive_into(view):
                        await self._disk.run(upload.write, view[:count])
            finally:
                self._buffers.append(buffer)
            return await self._disk.run(upload.publish)
        finally:
            with trio.CancelScope(shield=True):
                await self._disk.run(upload.close)
