"""A data file of the cache in the hands of somebody who reads it without us, such as the kernel.

The data file of a complete cache file is byte for byte the model file. Nothing of it changes while it is lent, and as
long as any process has it open or mapped after it was given back.
"""

import os
import threading
from collections.abc import Callable


class Lent:
    """Made by `CacheFile.lend`. `fd` is a read-only descriptor of its own, open until `close`."""

    def __init__(self, fd: int, give_back: Callable[[], None]) -> None:
        self.fd = fd
        self._give_back: Callable[[], None] | None = give_back
        self._lock = threading.Lock()  # guards `_give_back`

    def close(self) -> None:
        """Close the descriptor and give the file back, which thereby is the most recently used. Once is enough.

        May block on the disk, and takes about a microsecond for each granule of the file.
        """
        with self._lock:
            give_back, self._give_back = self._give_back, None
        if give_back is not None:
            os.close(self.fd)
            give_back()
