"""Objects over HTTP.

| request | answers |
|---|---|
| `GET`, `HEAD` | 200; 206 for a single `Range` (GET); 404; 416 |
| `PUT` | 201 created, durable; 200 it was there, or 412 with `If-None-Match: *`; 411 no Content-Length; |
| | 413 larger than its kind may be; 422 the bytes do not match the name; 507 disk full |
| `DELETE` | 204; 404 |

The body of a PUT goes through 1 MiB of memory into a temp file, and becomes an object only after it has been read back
and verified. Whether the object is there already is decided at the end, by the link: no answer is a guess.
"""

import os
from dataclasses import dataclass

import trio

from shardfs.core.keys import ObjectKey
from shardfs.core.objects import size_limit
from shardfs.errors import InvalidFormat
from shardfs.server.connection import Connection, time_limit
from shardfs.server.disk import Disk
from shardfs.server.options import ServerOptions
from shardfs.server.request import Refused, Request
from shardfs.store.folder import Folder, read_full
from shardfs.store.folder_upload import Upload

_SMALL_BYTES = 64 * 1024  # read in the thread that opens the file: one hop instead of two
_BUFFER_BYTES = 1024 * 1024


@dataclass(frozen=True, slots=True)
class _Opened:
    """Part [start, end) of an object of `size` bytes: its `data` when small, else an open `file`."""

    size: int
    start: int
    end: int
    partial: bool
    data: bytearray | None
    file: int


class Objects:
    """The handlers, over one folder."""

    def __init__(self, folder: Folder, disk: Disk, options: ServerOptions) -> None:
        self._folder = folder
        self._disk = disk
        self._options = options
        self._uploads = trio.Semaphore(options.uploads_max)
        self._buffers: list[bytearray] = []  # at most `uploads_max`: each is out while a PUT uses it

    async def get(self, connection: Connection, request: Request, key: ObjectKey) -> None:
        """The object or a part of it."""
        opened = await self._disk.run(self._open, key, request)
        try:
            headers = [
                ("Content-Length", str(opened.end - opened.start)),
                ("Content-Type", "application/octet-stream"),
                ("Accept-Ranges", "bytes"),
            ]
            if opened.partial:
                headers.append(("Content-Range", f"bytes {opened.start}-{opened.end - 1}/{opened.size}"))
            status = 206 if opened.partial else 200
            if opened.data is not None:
                await connection.answer(status, headers, opened.data)
            else:
                await connection.answer(status, headers, more=True)
                await connection.send_file(opened.file, opened.start, opened.end, self._disk)
        finally:
            if opened.file >= 0:
                os.close(opened.file)

    def _open(self, key: ObjectKey, request: Request) -> _Opened:
        try:
            file, size = self._folder.open(key)
        except FileNotFoundError:
            raise Refused(404, "no such object") from None
        try:
            span = request.span(size)
            start, end = span or (0, size)
            if end - start > _SMALL_BYTES:
                kept, file = file, -1
                return _Opened(size, start, end, span is not None, None, kept)
            data = bytearray(end - start)
            if read_full(file, memoryview(data), start) != len(data):
                raise OSError(f"{key}: shorter than a moment ago")
            return _Opened(size, start, end, span is not None, data, -1)
        finally:
            if file >= 0:
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
