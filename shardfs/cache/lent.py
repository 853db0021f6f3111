"""A data file of the cache in the hands of somebody who reads it without us, such as the kernel.

The data file of a complete cache file is byte for byte the model file. Nothing of it changes while it is lent, and as
long as any process has it open or mapped after it was given back.
"""

import os
import threading
from collections.abc import Callable


class Lent:
    """A lent data file. `fd`: a read-only descriptor of its own, open until `detach` or `close`; -1 after that.

    `give_back` is handed to `later`, since it may block on the disk.
    """

    def __init__(self, fd: int, give_back: Callable[[], None], *, later: Callable[[Callable[[], None]], None]) -> None:
        self.fd = fd
        self._give_back: Callable[[], None] | None = give_back
        self._later = later
        self._lock = threading.Lock()  # guards both

    def detach(self) -> None:
        """Close the descriptor, for whoever holds the open file in another way. It stays lent until `close`."""
        with self._lock:
            fd, self.fd = self.fd, -1
        if fd >= 0:
            os.close(fd)

    def close(self) -> None:
        """Close the descriptor and give the file back, which thereby is the most recently used. Once is enough.

        Returns at once; a thread of the cache finds out whether the file may be changed again.
        """
        self.detach()
        with self._lock:
            give_back, self._give_back = self._give_back, None
        if give_back is not None:
            self._later(give_back)
