"""Every failure shardfs reports, as one small tree.

The layer that raises decides what the failure means; nobody above guesses from a message. A message
is one line that names the thing at fault. `exit_status` is what a command returns for it, and the
mount turns the same classes into errno in one table (`shardfs.mount.errno_table`).
"""


class ShardfsError(Exception):
    """Base of all expected failures: shown to the user as one line, never as a traceback."""

    exit_status = 1


class UsageError(ShardfsError):
    """The user asked for something that cannot be: a bad option, cluster file or name."""

    exit_status = 2


class InvalidName(UsageError):
    """A model, file or node name breaks the naming rules."""


class InvalidCluster(UsageError):
    """The cluster file is wrong; the message names file, line and cause."""


class InvalidFormat(ShardfsError):
    """Bytes from outside do not parse, break a limit or do not match their digest."""


class NotFound(ShardfsError):
    """No such model, generation, file or object, said by somebody who knows."""


class SourceError(ShardfsError):
    """A local file to publish is missing, unreadable, refused or changed while it was read."""


class Conflict(ShardfsError):
    """Somebody else published the same name at the same time, or the name is taken by a folder."""


class CacheError(ShardfsError):
    """The cache folder cannot be used (locked by another daemon, not writable, not ours)."""


class MountError(ShardfsError):
    """The mount cannot be made or taken down."""


class DeadlineExceeded(ShardfsError):
    """The answer did not come within the time the caller had."""


class StoreError(ShardfsError):
    """A node did not do what it was asked; `node` is its id."""

    def __init__(self, node: str, reason: str) -> None:
        super().__init__(f"node {node}: {reason}")
        self.node = node
        self.reason = reason


class Unavailable(StoreError):
    """The node could not be reached, answered late, cut the answer short or failed inside.

    Another try, or another node, may succeed.
    """


class Denied(StoreError):
    """The node refused the credentials. Not retried and no sign of a dead node."""


class NoSpace(StoreError):
    """The node's disk is full."""


class Corrupt(StoreError):
    """The node delivered bytes that do not match their name."""


class NoCopy(ShardfsError):
    """No node could deliver a chunk or manifest; the message lists each node with its reason."""


class AllDenied(Denied, NoCopy):
    """No copy, because every node that was asked refused the credentials. `node` is one of them."""

    def __init__(self, node: str, message: str) -> None:
        ShardfsError.__init__(self, message)
        self.node = node
        self.reason = message


class NotEnoughNodes(ShardfsError):
    """Too few nodes answered to store what must be stored, or to say that something does not exist."""
