"""Whether anybody has a file open or mapped, by asking the kernel for a write lease on it.

A program that maps a file of a passthrough mount and closes it maps our data file itself: the mount hears of the close
and of nothing after it. Only the kernel knows then that the bytes are still in use. It grants a write lease to whoever
is the only one to have the file open, maps and descriptors of all processes counted; it is given back at once.

Limit: answers for this moment. That nobody opens the file afterwards is for the caller to see to. Whoever opens it in
the microseconds between grant and return waits for the return.
"""

import errno
import fcntl
import os
import signal
from pathlib import Path


def is_open(path: Path) -> bool:
    """Whether some process, this one too, has the file open or mapped. False when there is none, or a link. OSError.

    A filesystem or system without leases is an OSError too.
    """
    try:
        fd = os.open(path, os.O_RDONLY | os.O_NOFOLLOW | os.O_CLOEXEC | os.O_NONBLOCK)
    except BlockingIOError:
        return True  # somebody else holds a lease
    except OSError as error:
        if error.errno in {errno.ENOENT, errno.ELOOP}:
            return False
        raise
    try:
        # Whoever opens the file now makes the kernel tell us to let go. The signal for that is by default one that ends
        # the process; this one is ignored unless somebody asked for it.
        fcntl.fcntl(fd, fcntl.F_SETSIG, signal.SIGURG)
        fcntl.fcntl(fd, fcntl.F_SETLEASE, fcntl.F_WRLCK)
        fcntl.fcntl(fd, fcntl.F_SETLEASE, fcntl.F_UNLCK)
    except BlockingIOError:
        return True
    finally:
        os.close(fd)
    return False
