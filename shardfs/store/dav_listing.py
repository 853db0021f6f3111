"""What WebDAV servers say of a folder: nginx's `autoindex_format json`, and the multi-status of PROPFIND. Pure."""

from urllib.parse import unquote, urlsplit

import msgspec

from shardfs.errors import InvalidFormat
from shardfs.store.json_answer import read_json
from shardfs.store.tree import Entry
from shardfs.store.xml import parse_xml

PROPFIND = b'<?xml version="1.0"?><propfind xmlns="DAV:"><prop><resourcetype/></prop></propfind>'


class _Row(msgspec.Struct):
    name: str
    type: str


def read_autoindex(body: bytes) -> list[Entry] | None:
    """The entries of nginx's JSON; None when it is something else, such as a page for people."""
    try:
        rows = read_json(body, list[_Row])
    except InvalidFormat:
        return None
    return [Entry(row.name, row.type == "directory") for row in rows]


def read_multistatus(body: bytes, folder: str) -> list[Entry]:
    """The entries that a PROPFIND of depth 1 on the path `folder` (with a slash at its end) brought. InvalidFormat."""
    root = parse_xml(body)
    if root.name != "multistatus":
        raise InvalidFormat(f"not a multi-status: {root.name[:40]!r}")
    entries = []
    for response in root.all("response"):
        path = _path(response.value("href"))
        if not path.startswith(folder):
            if path + "/" == folder:
                continue
            raise InvalidFormat("a listing of another folder than was asked for")
        name = path[len(folder) :].rstrip("/")
        status = response.value("status") or response.value("propstat", "status")
        if not name:
            continue
        if status and status.split(" ")[1:2] not in (["200"], ["207"]):
            raise InvalidFormat(f"an entry with the status {status[:40]!r}")
        is_folder = path.endswith("/") or response.first("propstat", "prop", "resourcetype", "collection") is not None
        entries.append(Entry(name, is_folder))
    return entries


def _path(href: str) -> str:
    try:
        return unquote(urlsplit(href).path)
    except ValueError as error:
        raise InvalidFormat(f"an entry with the address {href[:100]!r}: {error}") from None
