"""Large buffers go back to the system when they are freed.

The C library raises its limit for that each time a larger buffer is freed, up to 32 MiB. After that manifests, of which
one is some MiB, lie among what lives long, and the gaps that they leave are kept: a mount that had opened many models
held half as much again as it used. Slots are not concerned (`shardfs.cache.memory`).
"""

import ctypes
from contextlib import suppress

OWN_MAPPING_BYTES = 512 * 1024
"""From this size on a buffer has a mapping of its own. Reads of less do without, as those cost page faults."""

_SPARE_BYTES = 4 * 1024 * 1024
_M_TRIM_THRESHOLD, _M_MMAP_THRESHOLD = -1, -3  # malloc.h


def give_back_large_buffers() -> None:
    """For the whole process, from now on. Does nothing where the C library has no such setting."""
    with suppress(AttributeError, OSError):
        mallopt = ctypes.CDLL(None).mallopt
        mallopt(_M_MMAP_THRESHOLD, OWN_MAPPING_BYTES)
        mallopt(_M_TRIM_THRESHOLD, _SPARE_BYTES)  # or it would follow the first one, and give back too eagerly
