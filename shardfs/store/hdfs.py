"""A node that is a folder in HDFS, by HDFS's own protocols: RPC to the NameNode, data to and from the DataNodes.

The library is hdfs-native (`pip install shardfs[hdfs]`; no Java), called in bounded threads. It fails over between
DataNodes by itself, and checks HDFS's own checksums. The user is `$HADOOP_USER_NAME`, else the one who runs the
program; `$HADOOP_CONF_DIR` may name a folder with `hdfs-site.xml`, for name services and the like.

`put` writes `tmp/<random>` below the node's folder and renames it to its name without overwriting, which the NameNode
does atomically. What a killed put leaves in `tmp` is removed after a day. The folder itself is made when its
parent exists.
"""

import importlib.util
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import TypeVar
from urllib.parse import urlsplit

import trio

from shardfs.core.digest import Bytes
from shardfs.core.keys import ObjectKey
from shardfs.core.location import HdfsPlace
from shardfs.core.names import check_path
from shardfs.errors import NotFound, Unavailable, UsageError
from shardfs.store.base import EXTERNAL_FILES_MAX, LIST_LIMIT, ExternalPath, ExternalStat, StoreStat
from shardfs.store.calls import Call, Calls, TooManyStuck
from shardfs.store.hdfs_failure import failure
from shardfs.store.hdfs_folder import HdfsFolder, NoFolder, NoParent, TooManyFiles
from shardfs.store.hdfs_namenode import NameNode
from shardfs.store.sending import Sending
from shardfs.store.tree import Entry, list_keys

CALLS_MAX = 64
"""Most of them wait: closing a file that was written sleeps for half a second, half of the time."""

_T = TypeVar("_T")


class HdfsStore:
    """`Store` over `place`, and `ExternalSource` over all of its HDFS."""

    def __init__(self, node: str, place: HdfsPlace) -> None:
        if importlib.util.find_spec("hdfs_native") is None:
            raise UsageError(f"node {node}: hdfs:// needs a library: pip install 'shardfs[hdfs]'")
        self._node = node
        self._root = place.path
        self._url = f"hdfs://{place.authority}"
        address = urlsplit(self._url)
        self._namenode = NameNode(node, address.hostname or "", address.port)
        self._folder = HdfsFolder(self._url, place.path)
        self._calls = Calls(calls_max=CALLS_MAX)
        self._sending = Sending(node)
        self._swept = False

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
        """As `Store.get`. The call's thread copies the bytes into `into`, in pieces of 64 KiB."""
        what, done = f"get {key}", 0

        def heard(count: int) -> None:
            nonlocal done
            done = count
            if arrived is not None:
                arrived(count)

        path = self._path(key)
        wanted = await self._run(what, lambda call: self._folder.read(call, path, offset, len(into)), key, into, heard)
        if done != wanted:
            raise Unavailable(self._node, f"{what}: {done} of {wanted} bytes")
        return done

    async def read(self, key: ObjectKey, *, limit: int) -> bytes:
        """As `Store.read`."""
        held = await self._run(f"read {key}", lambda _: self._folder.read_whole(self._path(key), limit), key)
        if isinstance(held, int):
            raise Unavailable(self._node, f"read {key}: {held} bytes, more than {limit}")
        return held

    async def put(self, key: ObjectKey, parts: Sequence[Bytes]) -> bool:
        """As `Store.put`. Bytes that do not match the name are refused with Unavailable, before anything is sent."""
        whole = await self._sending.whole(key, parts)
        if not self._swept:
            self._swept = True
            await self._run("sweep", lambda _: self._folder.sweep())
        async with self._sending.turn(key):
            if await self.size(key) is not None:
                return False
            return await self._run(f"put {key}", lambda call: self._folder.write(call, self._path(key), whole.data))

    async def size(self, key: ObjectKey) -> int | None:
        """As `Store.size`."""
        try:
            return (await self._run(f"size {key}", lambda _: self._folder.stat(self._path(key)), key)).size
        except NotFound:
            return None

    async def list(self, prefix: str, *, after: str = "", limit: int = LIST_LIMIT) -> list[ObjectKey]:
        """As `Store.list`."""
        await trio.lowlevel.checkpoint()

        async def entries(path: str) -> Sequence[Entry]:
            return await self._run(f"list {path}", lambda _: self._folder.entries(f"{self._root}/{path}"))

        return await list_keys(entries, prefix, after, limit)

    async def delete(self, key: ObjectKey) -> bool:
        """As `Store.delete`."""
        return await self._run(f"delete {key}", lambda _: self._folder.delete(self._path(key)))

    async def stat(self) -> StoreStat:
        """As `Store.stat`. The library cannot ask for the space that is left."""
        await self._run("stat", lambda _: self._folder.look())
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
        if not into:
            await self.external_stat(path)
            return 0
        return await self.get(ExternalPath(path), into, offset=offset, arrived=arrived)

    async def external_stat(self, path: str) -> ExternalStat:
        """As `ExternalSource.external_stat`."""
        place = ExternalPath(path)
        return await self._run(f"stat {path}", lambda _: self._folder.stat(self._path(place)), place)

    async def list_external(self, path: str, *, limit: int = EXTERNAL_FILES_MAX) -> Sequence[str]:
        """As `ExternalSource.list_external`."""
        place = ExternalPath(path)
        try:
            found = await self._run(
                f"list {path}", lambda call: self._folder.files_below(call, self._path(place), limit), place
            )
        except TooManyFiles:
            raise UsageError(f"node {self._node}: {path} holds more than {limit} files") from None
        if not found:
            raise NotFound(f"node {self._node} has no {path}")
        return [check_path(name, f"node {self._node}: file name") for name in found]

    async def aclose(self) -> None:
        """As `Store.aclose`. The connections are the process's: see `shardfs.store.hdfs_clients`."""
        await trio.lowlevel.checkpoint()

    async def _run(
        self,
        what: str,
        work: Callable[[Call], _T],
        key: ObjectKey | ExternalPath | None = None,
        into: memoryview | None = None,
        arrived: Callable[[int], None] | None = None,
    ) -> _T:
        """`work` in a thread. With `key`, a FileNotFoundError means that there is no such object."""

        def rooted(call: Call) -> _T:
            with self._explained(what, key):
                self._folder.make_root()
                return work(call)

        await self._namenode.awake(what)
        try:
            result = await self._calls.run(rooted, into, arrived)
        except TooManyStuck:
            raise Unavailable(self._node, f"{what}: too many calls are stuck") from None
        except NotFound:
            self._namenode.heard()
            raise
        self._namenode.heard()
        return result

    @contextmanager
    def _explained(self, what: str, key: ObjectKey | ExternalPath | None) -> Iterator[None]:
        """The library's errors as ours, in its thread; our own go through."""
        try:
            yield
        except NoParent as error:
            raise Unavailable(self._node, f"folder {error} does not exist in {self._url}") from None
        except NoFolder as error:
            raise Unavailable(self._node, f"{error} in {self._url} is a file and no folder") from None
        except FileNotFoundError as error:
            if key is None:
                raise failure(self._node, what, error) from None
            raise NotFound(f"node {self._node} has no {key}") from None
        except (OSError, RuntimeError, ValueError) as error:
            raise failure(self._node, what, error) from None
        except BaseException as error:
            if type(error).__name__ == "PanicException":  # of the library; no Exception, and it cannot be imported
                raise failure(self._node, what, error) from None
            raise

    def _path(self, key: ObjectKey | ExternalPath) -> str:
        return f"/{key}" if isinstance(key, ExternalPath) else f"{self._root}/{key}"
