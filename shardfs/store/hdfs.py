"""A node that is a folder in HDFS, by HDFS's own protocols: RPC to the NameNode, data to and from the DataNodes.

The library is hdfs-native (`pip install shardfs[hdfs]`; no Java). Chunks are read through its blocking interface in
bounded threads, everything else through its asyncio interface in a thread of its own: the only way in which a call to a
frozen NameNode can be ended (docs/adr/0013-engines.md). It fails over between DataNodes by itself, and checks HDFS's
own checksums. The user is `$HADOOP_USER_NAME`, else the one who runs the program; `$HADOOP_CONF_DIR` may name a
folder with `hdfs-site.xml`, for name services and the like.

`put` writes `tmp/<random>` below the node's folder and renames it to its name without overwriting, which the NameNode
does atomically. What a killed put leaves in `tmp` is removed after a day. The folder itself is made when its
parent exists.
"""

import asyncio
import math
import secrets
import time
from collections.abc import Awaitable, Callable, Iterator, Sequence
from contextlib import contextmanager, suppress
from typing import TYPE_CHECKING, TypeVar

import trio

from shardfs.core.digest import Bytes
from shardfs.core.keys import ObjectKey
from shardfs.core.location import HdfsPlace
from shardfs.core.names import check_path
from shardfs.errors import NotFound, Unavailable, UsageError
from shardfs.store.base import EXTERNAL_FILES_MAX, LIST_LIMIT, ExternalPath, ExternalStat, StoreStat
from shardfs.store.calls import Calls, Emit, TooManyStuck
from shardfs.store.hdfs_clients import clients
from shardfs.store.hdfs_failure import failure
from shardfs.store.sending import Sending
from shardfs.store.tree import Entry, list_keys

if TYPE_CHECKING:
    from hdfs_native import AsyncClient

CALLS_MAX = 32
CALL_SECONDS_MAX = 120.0
"""Nobody waits this long: it ends what a caller without a deadline began."""

PIECE_BYTES = 256 * 1024
"""Bytes are handed over in pieces of at least this size, but for the last."""

ANSWER_SECONDS_MAX = 1.0
"""After this long without a word from the NameNode it is asked before a thread depends on it."""

SOCKET_SECONDS_MAX = 5.0
"""A DataNode that says nothing for this long is left for the next one."""

TEMP = "tmp"
TEMP_SECONDS_MAX = 24 * 3600.0
_CLEAN_SECONDS_MAX = 10.0

_T = TypeVar("_T")


class HdfsStore:
    """`Store` over `place`, and `ExternalSource` over all of its HDFS."""

    def __init__(self, node: str, place: HdfsPlace) -> None:
        try:
            import hdfs_native  # noqa: PLC0415 - 20 ms and a wheel that only HDFS needs
        except ModuleNotFoundError:
            raise UsageError(f"node {node}: hdfs:// needs a library: pip install 'shardfs[hdfs]'") from None
        self._options = hdfs_native.WriteOptions(overwrite=False, create_parent=True)
        self._node = node
        self._root = place.path
        self._url = f"hdfs://{place.authority}"
        settings = {
            "dfs.client.socket-timeout": str(int(SOCKET_SECONDS_MAX * 1000)),
            # More attempts would sleep in between, which the asyncio interface cannot; the callers try again anyway.
            "dfs.client.failover.max.attempts": "0" if ":" in place.authority else "1",
            "dfs.client.failover.sleep.base.millis": "0",
        }
        self._clients = clients(self._url, settings)
        self._calls = Calls(calls_max=CALLS_MAX, seconds_max=CALL_SECONDS_MAX)
        self._sending = Sending(node)
        self._cleaning: set[asyncio.Task[None]] = set()  # the loop's thread
        self._swept = False
        self._root_seen = False
        self._answered = -math.inf  # when the NameNode did, by trio's clock

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
        """As `Store.get`. Bytes arrive in pieces of 256 KiB and are copied once more."""
        what, done = f"get {key}", 0

        def piece(data: bytes) -> None:
            nonlocal done
            end = done + len(data)
            if end > len(into):
                raise Unavailable(self._node, f"{what}: more bytes than asked for")
            into[done:end] = data
            done = end
            if arrived is not None:
                arrived(done)

        await self._ask_namenode(what)
        try:
            wanted = await self._calls.blocking(lambda emit: self._read(key, offset, len(into), emit), piece)
        except TooManyStuck:
            raise self._stuck(what) from None
        self._answered = trio.current_time()
        if done != wanted:
            raise Unavailable(self._node, f"{what}: {done} of {wanted} bytes")
        return done

    def _read(self, key: ObjectKey | ExternalPath, offset: int, length: int, emit: Emit) -> int:
        """In a thread: twice as fast as the asyncio interface, which wakes up for every 64 KiB."""
        with self._explained(f"get {key}", key):
            reader = self._clients.blocking().read(self._path(key))
            wanted = min(length, len(reader) - offset)
            if wanted <= 0:
                return 0
            held: list[bytes] = []
            held_bytes = 0
            for data in reader.read_range_stream(offset, wanted):
                held.append(data)
                held_bytes += len(data)
                if held_bytes >= PIECE_BYTES:
                    emit(b"".join(held))
                    held, held_bytes = [], 0
            if held:
                emit(b"".join(held))
            return wanted

    async def _ask_namenode(self, what: str) -> None:
        """A thread that asks a frozen NameNode waits for as long as it is frozen. So ask in a way that can be ended."""
        if trio.current_time() - self._answered > ANSWER_SECONDS_MAX:

            async def ask() -> None:
                await self._hdfs().get_file_info(self._root)

            await self._run(what, ask)

    async def read(self, key: ObjectKey, *, limit: int) -> bytes:
        """As `Store.read`."""

        async def read() -> bytes:
            reader = await self._hdfs().read(self._path(key))
            size = len(reader)
            if size > limit:
                raise Unavailable(self._node, f"read {key}: {size} bytes, more than {limit}")
            return await reader.read_range(0, size) if size else b""

        return await self._run(f"read {key}", read, key=key)

    async def put(self, key: ObjectKey, parts: Sequence[Bytes]) -> bool:
        """As `Store.put`. Bytes that do not match the name are refused with Unavailable, before anything is sent."""
        whole = await self._sending.whole(key, parts)
        if not self._swept:
            self._swept = True
            await self._run("sweep", self._sweep)
        async with self._sending.turn(key):
            if await self.size(key) is not None:
                return False
            return await self._run(f"put {key}", lambda: self._put(self._path(key), whole.data))

    async def _put(self, path: str, data: bytes) -> bool:
        client = self._hdfs()
        temp = f"{self._root}/{TEMP}/{secrets.token_hex(16)}"
        moved = False
        try:
            writer = await client.create(temp, self._options)
            await writer.write(data)
            await writer.hsync()
            await writer.close()
            try:
                moved = await self._rename(temp, path)
            except FileNotFoundError:  # the folder
                await client.mkdirs(path.rpartition("/")[0], create_parent=True)
                moved = await self._rename(temp, path)
        finally:
            if not moved:
                self._clean(temp)
        if moved:
            size = (await client.get_file_info(path)).length
            if size != len(data):
                raise OSError(f"of {len(data)} bytes {size} are there")
        return moved

    async def _rename(self, temp: str, path: str) -> bool:
        """False when there is something already."""
        try:
            await self._hdfs().rename(temp, path, overwrite=False)
        except FileExistsError:
            return False
        return True

    def _clean(self, temp: str) -> None:
        """Remove what an upload leaves, behind the back of the call that ends: best effort, and bounded in time."""

        async def clean() -> None:
            with suppress(Exception):
                async with asyncio.timeout(_CLEAN_SECONDS_MAX):
                    await self._hdfs().delete(temp)

        task = asyncio.get_running_loop().create_task(clean())
        self._cleaning.add(task)
        task.add_done_callback(self._cleaning.discard)

    async def _sweep(self) -> None:
        oldest = (time.time() - TEMP_SECONDS_MAX) * 1000
        with suppress(FileNotFoundError):
            async for status in self._hdfs().list_status(f"{self._root}/{TEMP}"):
                if status.modification_time < oldest:
                    await self._hdfs().delete(f"{self._root}/{TEMP}/{status.path.rpartition('/')[2]}")

    async def size(self, key: ObjectKey) -> int | None:
        """As `Store.size`."""

        async def size() -> int | None:
            status = await self._hdfs().get_file_info(self._path(key))
            return None if status.isdir else status.length

        try:
            return await self._run(f"size {key}", size, key=key)
        except NotFound:
            return None

    async def list(self, prefix: str, *, after: str = "", limit: int = LIST_LIMIT) -> list[ObjectKey]:
        """As `Store.list`."""

        async def entries(path: str) -> list[Entry]:
            try:
                listed = self._hdfs().list_status(f"{self._root}/{path}")
                return [Entry(status.path.rpartition("/")[2], status.isdir) async for status in listed]
            except FileNotFoundError:
                return []

        return await self._run(f"list {prefix}", lambda: list_keys(entries, prefix, after, limit))

    async def delete(self, key: ObjectKey) -> bool:
        """As `Store.delete`."""
        return await self._run(f"delete {key}", lambda: self._hdfs().delete(self._path(key)))

    async def stat(self) -> StoreStat:
        """As `Store.stat`. The library cannot ask for the space that is left."""

        async def stat() -> None:
            await self._hdfs().get_file_info(self._root)

        await self._run("stat", stat)
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

        async def stat() -> ExternalStat:
            status = await self._hdfs().get_file_info(self._path(place))
            if status.isdir:
                raise FileNotFoundError(path)
            return ExternalStat(status.length, f"mtime {status.modification_time}")

        return await self._run(f"stat {path}", stat, key=place)

    async def list_external(self, path: str, *, limit: int = EXTERNAL_FILES_MAX) -> Sequence[str]:
        """As `ExternalSource.list_external`."""
        place = ExternalPath(path)

        async def names() -> Sequence[str]:
            found: list[str] = []
            async for status in self._hdfs().list_status(self._path(place), recursive=True):
                if status.isdir:
                    continue
                if len(found) == limit:
                    raise UsageError(f"node {self._node}: {path} holds more than {limit} files")
                name = status.path.removeprefix(self._url).lstrip("/")
                found.append(check_path(name, f"node {self._node}: file name"))
            if not found:
                raise FileNotFoundError(path)
            return found

        return await self._run(f"list {path}", names, key=place)

    async def aclose(self) -> None:
        """As `Store.aclose`. The connections are the process's: see `shardfs.store.hdfs_clients`."""
        await trio.lowlevel.checkpoint()

    def _hdfs(self) -> "AsyncClient":
        return self._clients.asynchronous()

    async def _make_root(self) -> None:
        """The folder of the node, made when its parent exists."""
        if self._root_seen:
            return
        try:
            await self._hdfs().get_file_info(self._root)
        except FileNotFoundError:
            parent = self._root.rpartition("/")[0] or "/"
            try:
                await self._hdfs().get_file_info(parent)
            except FileNotFoundError:
                raise Unavailable(self._node, f"folder {parent} does not exist in {self._url}") from None
            await self._hdfs().mkdirs(self._root)
        self._root_seen = True

    async def _run(
        self, what: str, work: Callable[[], Awaitable[_T]], *, key: ObjectKey | ExternalPath | None = None
    ) -> _T:
        """`work` in the loop. With `key`, a FileNotFoundError means that there is no such object."""

        async def rooted() -> _T:
            with self._explained(what, key):
                await self._make_root()
                return await work()

        try:
            result = await self._calls.coroutine(rooted)
        except TooManyStuck:
            raise self._stuck(what) from None
        except TimeoutError:
            raise Unavailable(self._node, f"{what}: no answer within {CALL_SECONDS_MAX:.0f} s") from None
        self._answered = trio.current_time()
        return result

    @contextmanager
    def _explained(self, what: str, key: ObjectKey | ExternalPath | None) -> Iterator[None]:
        """The library's errors as ours, on its side; cancellation and our own errors go through."""
        try:
            yield
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

    def _stuck(self, what: str) -> Unavailable:
        return Unavailable(self._node, f"{what}: too many calls are stuck")

    def _path(self, key: ObjectKey | ExternalPath) -> str:
        return f"/{key}" if isinstance(key, ExternalPath) else f"{self._root}/{key}"
