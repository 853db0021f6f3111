"""The bearer token of a node, from where the cluster file says. It is never logged and never part of a message."""

import os
import re
import stat
from pathlib import Path

from shardfs.core.cluster import Node
from shardfs.errors import UsageError

TOKEN_BYTES_MAX = 4096

_TOKEN = re.compile(r"[A-Za-z0-9._~+/=:-]+", re.ASCII)


def read_token(node: Node) -> str | None:
    """The token for `node`, or None when the cluster file names none. UsageError when it cannot be had safely."""
    if node.token_env:
        return _checked(os.environ.get(node.token_env, ""), node, f"environment variable {node.token_env}")
    if node.token_file:
        path = Path(os.path.expanduser(node.token_file))  # unlike Path.expanduser it leaves an unknown ~user
        return _checked(_read(path, node), node, str(path))
    return None


def _read(path: Path, node: Node) -> str:
    if not path.is_absolute():
        raise UsageError(f"node {node.id}: token_file {path} must be an absolute path")
    try:
        with path.open("rb") as file:
            mode = os.fstat(file.fileno()).st_mode
            data = file.read(TOKEN_BYTES_MAX + 1)
    except OSError as error:
        raise UsageError(f"node {node.id}: token_file {path}: {error.strerror}") from None
    except ValueError:
        raise UsageError(f"node {node.id}: token_file {str(path)!r} cannot be the name of a file") from None
    if mode & stat.S_IRWXO:
        raise UsageError(f"node {node.id}: token_file {path} is open to everybody; run: chmod 600 {path}")
    return data.decode("latin-1")


def _checked(text: str, node: Node, source: str) -> str:
    token = text.strip()
    if not token:
        raise UsageError(f"node {node.id}: the token in {source} is missing or empty")
    if len(token) > TOKEN_BYTES_MAX or not _TOKEN.fullmatch(token):
        raise UsageError(f"node {node.id}: what {source} holds is no token (letters, digits and ._~+/=:- only)")
    return token
