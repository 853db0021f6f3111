"""A node that is a folder in HDFS, where only HTTP passes: WebHDFS of the NameNode and its DataNodes.

Bodies go over connections like those of `HttpStore`: straight into the caller's buffer, and cancelled at once; no
library, no threads. The NameNode chooses a DataNode for each call, so one that has died costs single calls until the
NameNode has noticed; whoever asks again may be sent to another copy. `hdfs://` knows the other copies itself and is
quicker: this is for networks that do not let it through.

WebHDFS has no `hsync`: docs/SEMANTICS.md says what follows. The folder of the node is made when its parent exists.
Names that old DataNodes garble (`webhdfs_takes`) are refused: they might open another file.
"""

from collections import deque
from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import asynccontextmanager

import trio

from shardfs.core.digest import Bytes
from shardfs.core.keys import ObjectKey
from shardfs.core.location import HdfsPlace, webhdfs_takes
from shardfs.core.names import check_path
from shardfs.errors import NotFound, Unavailable, UsageError
from shardfs.store.base import EXTERNAL_FILES_MAX, LIST_LIMIT, ExternalPath, ExternalStat, StoreStat
from shardfs.store.hdfs_folder import NoFolder, NoParent
from shardfs.store.http_client import CONNECTIONS_MAX
from shardfs.store.http_connection import Broken
from shardfs.store.sending import Sending
from shardfs.store.tree import Entry, list_keys
from shardfs.store.webhdfs_answer import FileStatus, Refused, failure_of
from shardfs.store.webhdfs_client import WebHdfsClient
from shardfs.store.webhdfs_folder import ABSENT, WebHdfsFolder


class WebHdfsStore:
    """`Store` over `place`, and `ExternalSource` over all of its HDFS, as the user of that name."""

    def __init__(self, node: str, place: HdfsPlace, *, user: str, connections_max: int = CONNECTIONS_MAX) -> None:
        self._node = node
        self._root = place.path
        self._shown = f"webhdfs://{place.authority}"
        self._client = WebHdfsClient(node, place.authority, user=user, connections_max=connections_max)
        self._folder = WebHdfsFolder(node, place.path, self._client)
        self._sending = Sending(node)

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
        what, wanted = f"get {key}", len(into)
        count, refused = 0, None
        if into:
            try:
                async with self._asking(what, key):
                    count = await self._open(what, key, into, offset, arrived)
            except Unavailable as error:
                if not isinstance(error.__cause__, Refused):
                    raise
                refused = error  # perhaps for an offset behind the end
        if not into or count < wanted:  # only the NameNode knows where the object ends
            size = (await self._file(what, key)).length
            if count != min(wanted, max(0, size - offset)):
                raise refused or Unavailable(self._node, f"{what}: cut short, {count} bytes at {offset} of {size}")
        return count

    async def _open(
        self,
        what: str,
        key: ObjectKey | ExternalPath,
        into: memoryview,
        offset: int,
        arrived: Callable[[int], None] | None,
    ) -> int:
        span = {"offset": str(offset), "length": str(len(into))}
        async with self._client.data(what, "GET", self._path(key), "OPEN", span) as (connection, answer):
            if answer.length is None:  # its end alone tells, in some versions
                data = await connection.body(answer, len(into))
                into[: len(data)] = data
                if data and arrived is not None:
                    arrived(len(data))
                return len(data)
            if answer.length > len(into):
                raise Broken(f"{answer.length} bytes, more than the {len(into)} that were asked for")
            await connection.body_into(answer, into[: answer.length], arrived)
            return answer.length

    async def read(self, key: ObjectKey, *, limit: int) -> bytes:
        """As `Store.read`."""
        size = (await self._file(f"read {key}", key)).length
        if size > limit:
            raise Unavailable(self._node, f"read {key}: {size} bytes, more than {limit}")
        data = bytearray(size)
        count = await self.get(key, memoryview(data))
        return bytes(data[:count])

    async def put(self, key: ObjectKey, parts: Sequence[Bytes]) -> bool:
        """As `Store.put`. Bytes that do not match the name are refused with Unavailable, before anything is sent."""
        whole = await self._sending.whole(key, parts)
        async with self._sending.turn(key):
            if await self.size(key) is not None:
                return False
            what = f"put {key}"
            async with self._asking(what):
                return await self._folder.write(what, self._path(key), whole.data)

    async def size(self, key: ObjectKey) -> int | None:
        """As `Store.size`."""
        try:
            return (await self._file(f"size {key}", key)).length
        except NotFound:
            return None

    async def list(self, prefix: str, *, after: str = "", limit: int = LIST_LIMIT) -> list[ObjectKey]:
        """As `Store.list`. A folder is listed at once, whatever `limit` is."""
        await trio.lowlevel.checkpoint()

        async def entries(path: str) -> Sequence[Entry]:
            what = f"list {path}"
            async with self._asking(what):
                rows = await self._folder.rows(what, f"{self._root}/{path}")
            return [Entry(row.path_suffix, row.type == "DIRECTORY") for row in rows]

        return await list_keys(entries, prefix, after, limit)

    async def delete(self, key: ObjectKey) -> bool:
        """As `Store.delete`."""
        what = f"delete {key}"
        async with self._asking(what):
            return await self._folder.delete(what, self._path(key))

    async def stat(self) -> StoreStat:
        """As `Store.stat`. How much space is left cannot be asked for."""
        async with self._asking("stat"):
            await self._folder.look("stat")
        return StoreStat()

    async def get_external(
        self,
        path: str,
        into: memoryview,
        *,
        offset: int,
        arrived: Callable[[int], None] | None = None,
    ) -> int:
        """As `ExternalSource.get_external`: any file of this HDFS."""
        return await self.get(ExternalPath(path), into, offset=offset, arrived=arrived)

    async def external_stat(self, path: str) -> ExternalStat:
        """As `ExternalSource.external_stat`. Tags are those of `hdfs://`."""
        status = await self._file(f"stat {path}", ExternalPath(path))
        return ExternalStat(status.length, f"mtime {status.modification_time}")

    async def list_external(self, path: str, *, limit: int = EXTERNAL_FILES_MAX) -> Sequence[str]:
        """As `ExternalSource.list_external`. Folders count, too; links are refused by name."""
        what = f"list {path}"
        found: list[str] = []
        folders = deque([path])
        seen = 0
        while folders:
            folder = folders.popleft()
            async with self._asking(what):
                rows = await self._folder.rows(what, self._path(ExternalPath(folder)))
            for row in rows:
                below = check_path(f"{folder}/{row.path_suffix}", f"node {self._node}: file name")
                if row.type not in ("FILE", "DIRECTORY"):
                    raise UsageError(f"node {self._node}: {below} is a link, which is not followed")
                self._path(ExternalPath(below))
                (folders if row.type == "DIRECTORY" else found).append(below)
                seen += 1
                if seen > limit:
                    raise UsageError(f"node {self._node}: {path} holds more than {limit} files")
        if not found:
            raise self._missing(ExternalPath(path))
        return found

    async def aclose(self) -> None:
        """As `Store.aclose`."""
        self._client.close()
        await trio.lowlevel.checkpoint()

    async def _file(self, what: str, key: ObjectKey | ExternalPath) -> FileStatus:
        """What the NameNode says of a file. NotFound for a folder too."""
        async with self._asking(what, key):
            status = await self._folder.stat(what, self._path(key))
        if status.type != "FILE":
            raise self._missing(key)
        return status

    @asynccontextmanager
    async def _asking(self, what: str, key: ObjectKey | ExternalPath | None = None) -> AsyncIterator[None]:
        """The node's folder is there; Hadoop's exceptions come out as ours. With `key`, an absent file is NotFound.

        What the caller's `arrived` raises about the bytes goes through: it is no answer of Hadoop's.
        """
        try:
            await self._folder.make_root()
            yield
        except NoParent as error:
            raise Unavailable(self._node, f"folder {error} does not exist in {self._shown}") from None
        except NoFolder as error:
            raise Unavailable(self._node, f"{error} in {self._shown} is a file and no folder") from None
        except Refused as refused:
            if key is not None and refused.name == ABSENT:
                raise self._missing(key) from None
            raise failure_of(self._node, what, refused) from refused

    def _path(self, key: ObjectKey | ExternalPath) -> str:
        if not isinstance(key, ExternalPath):
            return f"{self._root}/{key}"
        if not webhdfs_takes(key):
            raise UsageError(f"node {self._node}: WebHDFS servers disagree about the name {key}; use hdfs://")
        return f"/{key}"

    def _missing(self, key: ObjectKey | ExternalPath) -> NotFound:
        return NotFound(f"node {self._node} has no {key}")
