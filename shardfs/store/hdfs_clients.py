"""The HDFS library's clients, one pair for each NameNode and user, for the life of the process.

They are never given back: dropping an asyncio client waits for its worker threads while it holds Python's lock, and a
worker that wants that lock at this moment waits for ever (hdfs-native 0.14). So one more reference to each is kept
than Python knows of, and not even the end of the program drops them.
"""

import ctypes
import os
import threading
from collections.abc import Mapping
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from hdfs_native import AsyncClient, Client

_ENVIRONMENT = ("HADOOP_USER_NAME", "HADOOP_CONF_DIR", "HADOOP_HOME", "KRB5CCNAME")
"""What the library looks at when a client is made."""


class Clients:
    """The two interfaces to one NameNode, each made when it is first needed."""

    def __init__(self, url: str, settings: Mapping[str, str]) -> None:
        self._url = url
        self._settings = dict(settings)
        self._lock = threading.Lock()
        self._asynchronous: AsyncClient | None = None
        self._blocking: Client | None = None

    def asynchronous(self) -> "AsyncClient":
        """For the asyncio thread."""
        import hdfs_native  # noqa: PLC0415 - an extra

        with self._lock:
            if self._asynchronous is None:
                self._asynchronous = hdfs_native.AsyncClient(self._url, self._settings)
                _keep(self._asynchronous.inner)
            return self._asynchronous

    def blocking(self) -> "Client":
        """For threads."""
        import hdfs_native  # noqa: PLC0415

        with self._lock:
            if self._blocking is None:
                self._blocking = hdfs_native.Client(self._url, self._settings)
                _keep(self._blocking.inner)
            return self._blocking


_lock = threading.Lock()
_all: dict[tuple[object, ...], Clients] = {}


def clients(url: str, settings: Mapping[str, str]) -> Clients:
    """Those for `url` and the user that the environment names now."""
    key = (url, *sorted(settings.items()), *(os.environ.get(name) for name in _ENVIRONMENT))
    with _lock:
        return _all.setdefault(key, Clients(url, settings))


def _keep(client: object) -> None:
    ctypes.pythonapi.Py_IncRef(ctypes.py_object(client))
