"""Whose name Hadoop is told: `$HADOOP_USER_NAME`, else the user who runs the program. Nothing proves it.

That is Hadoop's `simple` authentication, in which the client says who it is.
"""

import os
import pwd
import re

from shardfs.errors import UsageError

_USER = re.compile(r"[A-Za-z_][A-Za-z0-9._-]{0,254}[$]?", re.ASCII)
"""What WebHDFS takes for a name, unless its `dfs.webhdfs.user.provider.user.pattern` says otherwise."""


def hadoop_user(node: str) -> str:
    """The name for `node`. UsageError when there is none, or none that can be sent."""
    named = os.environ.get("HADOOP_USER_NAME", "")
    try:
        user = named or pwd.getpwuid(os.getuid()).pw_name
    except KeyError:
        raise UsageError(f"node {node}: user {os.getuid()} has no name; set HADOOP_USER_NAME") from None
    if not _USER.fullmatch(user):
        source = "HADOOP_USER_NAME" if named else "the login name; set HADOOP_USER_NAME"
        raise UsageError(f"node {node}: {user[:80]!r} is no name of a user for Hadoop ({source})")
    return user
