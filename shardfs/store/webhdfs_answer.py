"""What NameNodes and DataNodes say over HTTP: states of files, refusals, and where a NameNode sends its client. Pure.

Hadoop wraps its exceptions in JSON and answers 403 to almost all of them, so the exception's name says what happened
and the status does not. What is no such JSON does not come from WebHDFS: a 404 of a web server says nothing of a file.
"""

import re
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Annotated, TypeVar
from urllib.parse import parse_qs, unquote, urlsplit

import msgspec

from shardfs.core.location import is_host
from shardfs.errors import Denied, InvalidFormat, StoreError, Unavailable
from shardfs.store.hdfs_failure import failure
from shardfs.store.http_answer import refusal
from shardfs.store.http_connection import Answer, Broken
from shardfs.store.json_answer import read_json

PREFIX = "/webhdfs/v1"
HTTP_PORT = 80
_LOCATION_BYTES_MAX = 16 * 1024
_PORT_HINT = "is WebHDFS there? the port must be that of a NameNode's web pages: 9870, or 50070 before Hadoop 3"
_DENIED = ("AuthenticationException", "InvalidToken", "SecurityException")

_T = TypeVar("_T")
_TARGET = re.compile(r"[\x21-\x7e]+", re.ASCII)
_AUTHORITY = re.compile(r"[A-Za-z0-9._-]+(:[0-9]{1,5})?|\[[0-9A-Fa-f:.]+\](:[0-9]{1,5})?", re.ASCII)


class Refused(Exception):
    """An exception of Hadoop's: `name` is its class, `text` the first line of its message."""

    def __init__(self, name: str, text: str) -> None:
        super().__init__(f"{name}: {text}")
        self.name = name
        self.text = text


@dataclass(frozen=True, slots=True)
class Redirect:
    """Where a NameNode sends its client."""

    host: str
    port: int
    authority: str
    target: str


class FileStatus(msgspec.Struct, rename="camel"):
    """A file, folder or link. `path_suffix` is its name in the folder that was listed, `length` its bytes."""

    path_suffix: str
    type: str
    length: Annotated[int, msgspec.Meta(ge=0)]
    modification_time: int


class _One(msgspec.Struct):
    FileStatus: FileStatus


class _Rows(msgspec.Struct):
    FileStatus: list[FileStatus]


class _Listing(msgspec.Struct):
    FileStatuses: _Rows


class _Boolean(msgspec.Struct):
    boolean: bool


class _Exception(msgspec.Struct):
    exception: str
    message: str | None = None


class _Error(msgspec.Struct):
    RemoteException: _Exception


def read_status(body: bytes) -> FileStatus:
    """The answer to GETFILESTATUS, or InvalidFormat."""
    return _decode(body, _One).FileStatus


def read_listing(body: bytes) -> Sequence[FileStatus]:
    """The answer to LISTSTATUS, or InvalidFormat. Of a file it is one row without a name."""
    return _decode(body, _Listing).FileStatuses.FileStatus


def read_boolean(body: bytes) -> bool:
    """The answer to MKDIRS, DELETE and one kind of RENAME, or InvalidFormat."""
    return _decode(body, _Boolean).boolean


def _decode(body: bytes, kind: type[_T]) -> _T:
    try:
        return read_json(body, kind)
    except InvalidFormat as error:
        raise InvalidFormat(f"not an answer of WebHDFS: {error}") from None


def read_refused(body: bytes) -> Refused | None:
    """The exception in the body of an error; None when it is something else."""
    try:
        told = _decode(body, _Error).RemoteException
    except InvalidFormat:
        return None
    lines = (line.strip() for line in (told.message or "").splitlines())
    return Refused(told.exception[:100], next((line for line in lines if line), ""))


def failure_of(node: str, what: str, refused: Refused) -> StoreError:
    """The failure that an exception of Hadoop's means for whoever asked the node."""
    meant = failure(node, what, refused)
    if refused.name in _DENIED:
        return Denied(node, meant.reason)
    if refused.name == "StandbyException":
        return Unavailable(node, f"{meant.reason} (this NameNode is on standby; name the active one)")
    return meant


def stranger(node: str, what: str, answer: Answer, text: str) -> StoreError:
    """The failure that an error means which is none of Hadoop's exceptions. `text` begins the server's own words."""
    if answer.status == 401:
        wanted = answer.headers.get(b"www-authenticate", b"").decode("ascii", "replace").partition(" ")[0][:40]
        way = f"{wanted!r} " if wanted else ""
        return Denied(node, f"{what}: HTTP 401, a login {way}is wanted, and webhdfs:// knows none but a user's name")
    meant = refusal(node, what, answer, text)
    if answer.status in (400, 404, 405, 501):
        return Unavailable(node, f"{meant.reason} ({_PORT_HINT})")
    return meant


def read_redirect(answer: Answer, *, path: str, op: str) -> Redirect:
    """Where the answer to `op` on `path` sends the client. Broken unless to the same question on a plain http host."""
    location = answer.headers.get(b"location", b"")
    text = location.decode("ascii", "replace")
    if answer.status != 307 or not text or len(text) > _LOCATION_BYTES_MAX:
        raise Broken(f"HTTP {answer.status} instead of the name of a DataNode ({_PORT_HINT})")
    shown = "".join(c if c.isprintable() and c.isascii() else "?" for c in text[:100])
    try:
        url = urlsplit(text)
        port = url.port or HTTP_PORT
    except ValueError as error:
        raise Broken(f"redirect to {shown!r}: {error}") from error
    if url.scheme != "http" or not is_host(url.hostname or "") or not _AUTHORITY.fullmatch(url.netloc):
        raise Broken(f"redirect to {shown!r}, which is no plain http host: not followed")
    target = f"{url.path}?{url.query}"
    asked = [value.upper() for value in parse_qs(url.query).get("op", [])]
    same = unquote(url.path) == PREFIX + path and asked == [op]
    if not same or url.fragment or not _TARGET.fullmatch(target):
        raise Broken(f"redirect to {shown!r}, which is another question than {op} {path}: not followed")
    return Redirect(url.hostname or "", port, url.netloc, target)
