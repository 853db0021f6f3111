"""Objects in an HDFS folder, in blocking code to be run in threads; it asks now and then whether anybody still waits.

Errors are those of the library (`shardfs.store.hdfs_failure` says what they mean) and FileNotFoundError.
"""

import secrets
import time
from collections.abc import Sequence
from contextlib import suppress
from typing import TYPE_CHECKING

from shardfs.store.base import ExternalStat
from shardfs.store.calls import Call
from shardfs.store.hdfs_clients import client
from shardfs.store.tree import Entry

if TYPE_CHECKING:
    from hdfs_native import Client

SOCKET_SECONDS_MAX = 5.0
"""A DataNode that says nothing for this long is left for the next one."""

TEMP = "tmp"
TEMP_SECONDS_MAX = 24 * 3600.0


class NoParent(Exception):
    """The folder that the node's folder should be made in does not exist; the argument is its path."""


class NoFolder(Exception):
    """A file is where a folder is wanted; the argument is its path."""


class TooManyFiles(Exception):
    """A listing with more files than were asked for."""


class HdfsFolder:
    """The folder `root` of the HDFS at `url`. Paths are absolute. Safe to use from several threads at once."""

    def __init__(self, url: str, root: str) -> None:
        self._url = url
        self._root = root
        self._root_seen = False
        self._made: set[str] = set()  # folders for objects, 256 and those of the models; any thread adds

    def _client(self) -> "Client":
        settings = {
            "dfs.client.socket-timeout": str(int(SOCKET_SECONDS_MAX * 1000)),
            # A single NameNode is not asked again by the library, for up to minutes: callers try again anyway.
            "dfs.client.failover.max.attempts": "0" if ":" in self._url.partition("//")[2] else "1",
            "dfs.client.failover.sleep.base.millis": "0",
        }
        return client(self._url, settings)

    def make_root(self) -> None:
        """The folder of the node, made when its parent exists. NoParent, NoFolder."""
        if self._root_seen:
            return
        try:
            self.look()
        except FileNotFoundError:
            parent = self._root.rpartition("/")[0] or "/"
            try:
                self._look(parent)
            except FileNotFoundError:
                raise NoParent(parent) from None
            self._client().mkdirs(self._root)
        self._root_seen = True

    def read(self, call: Call, path: str, offset: int, length: int) -> int:
        """Deliver up to `length` bytes from `offset`; how many that should be is the result."""
        reader = self._client().read(path)
        wanted = min(length, len(reader) - offset)
        if wanted <= 0:
            return 0
        for data in reader.read_range_stream(offset, wanted):  # 64 KiB each, as the DataNode sends them
            call.deliver(data)
        return wanted

    def read_whole(self, path: str, limit: int) -> bytes | int:
        """The bytes of a file, or its size when it has more than `limit`."""
        reader = self._client().read(path)
        size = len(reader)
        if size > limit:
            return size
        return reader.read_range(0, size) if size else b""

    def write(self, call: Call, path: str, data: bytes) -> bool:
        """Create the file with `data`, durably and at once; False when there is one already."""
        import hdfs_native  # noqa: PLC0415 - an extra

        held = self._client()
        temp = f"{self._root}/{TEMP}/{secrets.token_hex(16)}"
        options = hdfs_native.WriteOptions(overwrite=False, create_parent=True)
        moved = False
        try:
            writer = held.create(temp, options)
            writer.write(data)
            writer.hsync()
            writer.close()  # half of the time this sleeps for 0.5 s: the library asks before the NameNode knows
            call.check()
            moved = self._move(temp, path)
        finally:
            if not moved:
                with suppress(Exception):  # what is left is swept up a day later
                    held.delete(temp)
        if moved:
            size = held.get_file_info(path).length
            if size != len(data):
                raise OSError(f"of {len(data)} bytes {size} are there")
        return moved

    def _move(self, temp: str, path: str) -> bool:
        """Rename into a folder that may have to be made. False when there is something already."""
        folder = path.rpartition("/")[0]
        if folder not in self._made:
            self._client().mkdirs(folder, create_parent=True)
            self._made.add(folder)
        try:
            return self._rename(temp, path)
        except FileNotFoundError:  # somebody has removed it
            self._client().mkdirs(folder, create_parent=True)
            return self._rename(temp, path)

    def _rename(self, temp: str, path: str) -> bool:
        """False when there is something already."""
        try:
            self._client().rename(temp, path, overwrite=False)
        except FileExistsError:
            return False
        return True

    def sweep(self) -> None:
        """Remove what uploads that were killed have left."""
        held = self._client()
        oldest = (time.time() - TEMP_SECONDS_MAX) * 1000
        with suppress(FileNotFoundError):
            for status in held.list_status(f"{self._root}/{TEMP}"):
                if status.modification_time < oldest:
                    held.delete(f"{self._root}/{TEMP}/{status.path.rpartition('/')[2]}")

    def stat(self, path: str) -> ExternalStat:
        """Size and time of a file. FileNotFoundError for a folder too."""
        status = self._client().get_file_info(path)
        if status.isdir:
            raise FileNotFoundError(path)
        return ExternalStat(status.length, f"mtime {status.modification_time}")

    def entries(self, path: str) -> list[Entry]:
        """What is in a folder; nothing when there is none."""
        try:
            return [Entry(status.path.rpartition("/")[2], status.isdir) for status in self._client().list_status(path)]
        except FileNotFoundError:
            return []

    def files_below(self, call: Call, path: str, limit: int) -> Sequence[str]:
        """The paths of all files below `path`, without the slash at their start. TooManyFiles."""
        found: list[str] = []
        for status in self._client().list_status(path, recursive=True):
            call.check()
            if not status.isdir:
                if len(found) == limit:
                    raise TooManyFiles
                found.append(status.path.removeprefix(self._url).lstrip("/"))
        return found

    def delete(self, path: str) -> bool:
        """False when there was nothing."""
        return self._client().delete(path)

    def look(self) -> None:
        """FileNotFoundError when the folder is gone, NoFolder when it is a file."""
        self._look(self._root)

    def _look(self, path: str) -> None:
        if not self._client().get_file_info(path).isdir:
            raise NoFolder(path)
