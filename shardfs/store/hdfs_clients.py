"""The HDFS library's clients, one for each NameNode and user, for the life of the process.

They are never given back: dropping one waits for the library's worker threads while it holds Python's lock. So one more
reference to each is kept than Python knows of, and not even the end of the program drops them.
"""

import ctypes
import os
import threading
from collections.abc import Mapping
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from hdfs_native import Client

_ENVIRONMENT = ("HADOOP_USER_NAME", "HADOOP_CONF_DIR", "HADOOP_HOME", "KRB5CCNAME")
"""What the library looks at when a client is made."""

_lock = threading.Lock()
_all: "dict[tuple[object, ...], Client]" = {}


def client(url: str, settings: Mapping[str, str]) -> "Client":
    """The one for `url` and the user that the environment names now. Connects to nothing yet. RuntimeError."""
    import hdfs_native  # noqa: PLC0415 - an extra

    key = (url, *sorted(settings.items()), *(os.environ.get(name) for name in _ENVIRONMENT))
    with _lock:
        if key not in _all:
            made = hdfs_native.Client(url, dict(settings))
            ctypes.pythonapi.Py_IncRef(ctypes.py_object(made.inner))
            _all[key] = made
        return _all[key]
