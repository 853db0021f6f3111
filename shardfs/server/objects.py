"""Objects over HTTP.

| request | answers |
|---|---|
| `GET`, `HEAD` | 200; 206 for a `Range` (GET), with several parts for several ranges; 404; 416 |
| `PUT` | 201 created, durable; 200 it was there, or 412 with `If-None-Match: *`; 411 no Content-Length; |
| | 413 larger than its kind may be; 422 the bytes do not match the name; 503 too many others; 507 disk full |
| `DELETE` | 204; 404 |

The body of a PUT goes through 1 MiB of memory into a temp file, and becomes an object only after it has been read back
and verified. A small one, as pointers, refs and most manifests are, waits for no place. Whether the object is there
already is decided at the end, by the link: no answer is a guess.
"""

import os
from collections.abc import Callable, Sequence
from contextlib import closing

import trio

from shardfs.core.keys import ObjectKey
from shardfs.core.objects import size_limit
from shardfs.errors import InvalidFormat
from shardfs.server.at_once import Glance
from shardfs.server.connection import Connection
from shardfs.server.disk import Disk
from shardfs.server.options import ServerOptions
from shardfs.server.outgoing import Outgoing, Piece
from shardfs.server.patience import Patience
from shardfs.server.places import Places
from shardfs.server.ranges import planned
from shardfs.server.request import Refused, Request
from shardfs.store.folder import Folder
from shardfs.store.folder_upload import Upload

_SMALL_BYTES = 64 * 1024
_BUFFER_BYTES = 1024 * 1024


class Objects:
    """The handlers, over one folder."""

    def __init__(self, folder: Folder, disk: Disk, options: ServerOptions) -> None:
        self._folder = folder
        self._glance = Glance(folder.root)
        self._disk = disk
        self._options = options
        self._places = Places(options)
        self._buffers: list[bytearray] = []  # at most `uploads_max`: each is out while a PUT with a place uses it

    async def get(self, connection: Connection, request: Request, key: ObjectKey) -> None:
        """The object or parts of it: from memory without a thread, and while a client keeps up with one at most."""
        answer = None
        if (found := self._glance.open(key)) is not None:
            answer = _begin(connection, request, *found, at_once=True)
        if answer is None:
            answer = await self._disk.run(self._open_and_push, connection, request, key, self._disk.stay_seconds)
        with closing(answer):
            await connection.deliver(answer, self._disk)

    def _open_and_push(self, connection: Connection, request: Request, key: ObjectKey, stay_seconds: float) -> Outgoing:
        try:
            file, size = self._folder.open(key)
        except FileNotFoundError:
            raise Refused(404, "no such object") from None
        answer = _begin(connection, request, file, size)
        assert answer is not None
        try:
            connection.push(answer, stay_seconds)
        except BaseException:
            answer.close()
            raise
        return answer

    async def head(self, connection: Connection, key: ObjectKey) -> None:
        """Size only; a Range means nothing here."""
        size: int | None
        if (found := self._glance.open(key)) is not None:
            file, size = found
            os.close(file)
        else:
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
        try:
            if request.length <= _SMALL_BYTES:
                created = await self._receive(connection, key, request.length, bytearray(request.length))
            else:
                created = await self._receive_in_turn(connection, key, request.length)
        except InvalidFormat as error:
            raise Refused(422, str(error)) from error
        if created:
            await connection.answer(201, [("Content-Length", "0")])
        elif request.headers.get(b"if-none-match") == b"*":
            await connection.answer(412, [("Content-Length", "0")])
        else:
            await connection.answer(200, [("Content-Length", "0")])

    async def _receive_in_turn(self, connection: Connection, key: ObjectKey, size: int) -> bool:
        async with self._places.one():
            buffer = self._buffers.pop() if self._buffers else bytearray(_BUFFER_BYTES)
            try:
                return await self._receive(connection, key, size, buffer, self._places.moved)
            finally:
                self._buffers.append(buffer)

    async def _receive(
        self,
        connection: Connection,
        key: ObjectKey,
        size: int,
        buffer: bytearray,
        told: Callable[[], None] = lambda: None,
    ) -> bool:
        """Through `buffer`; `told` hears of each step that is done. True when the object is new."""
        upload = await self._disk.run(Upload, self._folder, key, size)
        try:
            patience = Patience(self._options, self._options.upload_stall_seconds_max, told)
            with memoryview(buffer) as view:
                await connection.proceed()
                while count := await connection.receive_into(view, patience):
                    await self._disk.run(upload.write, view[:count])
            created = await self._disk.run(upload.publish)
            told()
            return created
        finally:
            with trio.CancelScope(shield=True):
                await self._disk.run(upload.close)


def _begin(connection: Connection, request: Request, file: int, size: int, *, at_once: bool = False) -> Outgoing | None:
    """The answer to a GET of an open object. It takes the file, which is closed when there is no answer.

    With `at_once`, None when the small parts are not in memory.
    """
    kept = False
    try:
        plan = planned(request.spans(size), size)
        pieces = _with_small_parts(file, plan.pieces, os.RWF_NOWAIT if at_once else 0)
        needed = any(isinstance(piece, tuple) for piece in pieces)
        answer = connection.begin(plan.status, plan.headers, pieces, file if needed else -1)
        kept = needed
        return answer
    except OSError:
        if not at_once:
            raise
        return None  # not in memory, or a file system that cannot tell: the thread will say what is wrong, if anything
    finally:
        if not kept:
            os.close(file)


def _with_small_parts(file: int, pieces: Sequence[Piece], flags: int) -> list[Piece]:
    """These pieces, with the bytes of the small spans read: cheaper than a call of sendfile for each."""
    read: list[Piece] = []
    for piece in pieces:
        if isinstance(piece, tuple) and piece[1] - piece[0] <= _SMALL_BYTES:
            start, end = piece
            data = bytearray(end - start)
            if data and os.preadv(file, [data], start, flags) != len(data):
                if flags:
                    raise BlockingIOError
                raise OSError(f"object shorter than a moment ago: it ends before {end}")
            read.append(data)
        else:
            read.append(piece)
    return read
