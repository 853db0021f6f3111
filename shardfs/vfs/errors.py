"""What a filesystem operation can refuse, beside the errors of the layers below."""

from shardfs.errors import ShardfsError


class StaleInode(ShardfsError):
    """The inode or handle means nothing (any more)."""


class NameTooLong(ShardfsError):
    """A name of more than 255 bytes."""


class NotAFolder(ShardfsError):
    """A folder operation on a file."""


class IsAFolder(ShardfsError):
    """A file operation on a folder."""


class NoAttribute(ShardfsError):
    """No such extended attribute."""


class TooManyHandles(ShardfsError):
    """More files open than the mount allows."""
