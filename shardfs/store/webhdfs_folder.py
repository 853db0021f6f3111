"""Files and folders by their paths in HDFS, over WebHDFS; how an object gets its name, and what is left behind.

An object is written as `tmp/<random>` below the node's folder, its size is asked for, and it is renamed to its name
without overwriting, which the NameNode does atomically. What a write that failed has left is removed by the next one;
what a killed one has left, after a day.

Errors are `Refused`, and StoreError, also for an answer that is none.
"""

import re
import secrets
import time
from collections import deque
from collections.abc import Callable, Sequence
from contextlib import suppress
from typing import TypeVar

from shardfs.errors import InvalidFormat, StoreError, Unavailable
from shardfs.store.hdfs_folder import TEMP, TEMP_SECONDS_MAX, NoFolder, NoParent
from shardfs.store.long_answers import LongAnswers
from shardfs.store.webhdfs_answer import FileStatus, Refused, read_boolean, read_listing, read_status
from shardfs.store.webhdfs_client import WebHdfsClient

LISTING_BYTES_MAX = 32 * 1024 * 1024
LEFT_MAX = 64
"""Temporary files of failed writes that are remembered; others are swept up a day later."""

ABSENT = "FileNotFoundException"
_EXISTS = "FileAlreadyExistsException"
_T = TypeVar("_T")
_TEMP_NAME = re.compile(r"[0-9a-f]{32}", re.ASCII)


class WebHdfsFolder:
    """The folder `root` of the HDFS that `client` asks, for `node`. Paths are absolute."""

    def __init__(self, node: str, root: str, client: WebHdfsClient) -> None:
        self._node = node
        self._root = root
        self._client = client
        self._long = LongAnswers()
        self._root_seen = False
        self._swept = False
        self._left: deque[str] = deque(maxlen=LEFT_MAX)

    async def make_root(self) -> None:
        """The folder of the node, made when its parent exists. NoParent, NoFolder."""
        if self._root_seen:
            return
        what = f"folder {self._root}"
        found = await self.find(what, self._root)
        if found is None:
            parent = self._root.rpartition("/")[0] or "/"
            above = await self.find(what, parent)
            if above is None:
                raise NoParent(parent)
            _check_folder(above, parent)
            await self._make_folder(what, self._root)
        else:
            _check_folder(found, self._root)
        self._root_seen = True

    async def look(self, what: str) -> None:
        """The folder of the node is one, and still there. NoFolder."""
        _check_folder(await self.stat(what, self._root), self._root)

    async def stat(self, what: str, path: str) -> FileStatus:
        """What the NameNode knows of a file or folder."""
        return self._read(what, read_status, await self._client.ask(what, "GET", path, "GETFILESTATUS"))

    async def find(self, what: str, path: str) -> FileStatus | None:
        """As `stat`; None when there is nothing."""
        try:
            return await self.stat(what, path)
        except Refused as refused:
            if refused.name != ABSENT:
                raise
            return None

    async def rows(self, what: str, path: str) -> Sequence[FileStatus]:
        """What is in a folder, which is listed as a whole; nothing when there is none."""
        try:
            body = await self._client.ask(what, "GET", path, "LISTSTATUS", limit=LISTING_BYTES_MAX)
        except Refused as refused:
            if refused.name != ABSENT:
                raise
            return []
        rows = await self._long.read(lambda said: self._read(what, read_listing, said), body)
        return [row for row in rows if row.path_suffix]

    async def delete(self, what: str, path: str) -> bool:
        """False when there was nothing."""
        return self._read(what, read_boolean, await self._client.ask(what, "DELETE", path, "DELETE"))

    async def write(self, what: str, path: str, data: bytes) -> bool:
        """Create the file with `data`, at once; False when there is one already."""
        await self._tidy_up()
        temp = f"{self._root}/{TEMP}/{secrets.token_hex(16)}"
        try:
            async with self._client.data(what, "PUT", temp, "CREATE", {"overwrite": "false"}, [data]):
                pass
            size = (await self.stat(what, temp)).length
            if size != len(data):
                raise Unavailable(self._node, f"{what}: of {len(data)} bytes {size} are there")
            moved = await self._rename(what, temp, path)
            if not moved:
                await self.delete(what, temp)
        except BaseException:  # cancelled too: nothing may hold that up
            self._left.append(temp)
            raise
        return moved

    async def _rename(self, what: str, temp: str, path: str) -> bool:
        """False when there is something already."""
        # The option asks for the newer kind of rename, which tells "it exists" from "it has no folder", and never
        # moves the file into a folder of that name. Servers without it say false to both.
        options = {"destination": path, "renameoptions": "NONE"}
        for again in (False, True):
            try:
                said = await self._client.ask(what, "PUT", temp, "RENAME", options)
                if not said or self._read(what, read_boolean, said):
                    return True
                if await self.find(what, path) is not None:
                    return False
            except Refused as refused:
                if refused.name == _EXISTS:
                    return False
                if refused.name != ABSENT or again:
                    raise
            if not again:
                await self._make_folder(what, path.rpartition("/")[0])
        raise Unavailable(self._node, f"{what}: the NameNode does not rename it, and does not say why")

    async def _make_folder(self, what: str, path: str) -> None:
        if not self._read(what, read_boolean, await self._client.ask(what, "PUT", path, "MKDIRS")):
            raise Unavailable(self._node, f"{what}: folder {path} cannot be made")

    def _read(self, what: str, read: Callable[[bytes], _T], body: bytes) -> _T:
        try:
            return read(body)
        except InvalidFormat as error:
            raise Unavailable(self._node, f"{what}: {error}") from error

    async def _tidy_up(self) -> None:
        """Remove what failed writes of ours have left, and, once, what killed ones of anybody have."""
        left = [self._left.popleft() for _ in range(len(self._left))]
        if not self._swept:
            self._swept = True
            folder, oldest = f"{self._root}/{TEMP}", (time.time() - TEMP_SECONDS_MAX) * 1000
            rows = await self.rows("sweep", folder)
            old = (row.path_suffix for row in rows if row.modification_time < oldest)
            left += [f"{folder}/{name}" for name in old if _TEMP_NAME.fullmatch(name)]
        for path in left:
            with suppress(StoreError, Refused):
                await self.delete("sweep", path)


def _check_folder(status: FileStatus, path: str) -> None:
    if status.type == "FILE":  # a link may be one to a folder
        raise NoFolder(path)
