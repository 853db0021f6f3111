"""The one place where failures become errno."""

import errno

from shardfs.errors import Denied, InvalidFormat, InvalidName, NoCopy, NotFound, ShardfsError
from shardfs.vfs.errors import IsAFolder, NameTooLong, NoAttribute, NotAFolder, StaleInode, TooManyHandles

_TABLE: tuple[tuple[type[ShardfsError], int], ...] = (
    (NotFound, errno.ENOENT),
    (NameTooLong, errno.ENAMETOOLONG),
    (InvalidName, errno.ENOENT),
    (StaleInode, errno.ESTALE),
    (NotAFolder, errno.ENOTDIR),
    (IsAFolder, errno.EISDIR),
    (NoAttribute, errno.ENODATA),
    (TooManyHandles, errno.EMFILE),
    (Denied, errno.EACCES),  # before NoCopy: AllDenied is both
    (NoCopy, errno.EIO),
    (InvalidFormat, errno.EIO),
)


def errno_of(error: ShardfsError) -> int:
    """The errno a program sees for `error`; EIO where nothing better fits."""
    return next((number for kind, number in _TABLE if isinstance(error, kind)), errno.EIO)
