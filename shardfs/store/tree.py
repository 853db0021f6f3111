"""Listing objects on engines that know folders: the keys in order, page by page, from listings of single folders.

The memory of one folder's names is needed at a time. No folder with chunks holds more than a 256th of them.
"""

from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass
from heapq import nsmallest
from typing import TypeAlias

from shardfs.core.keys import CHUNKS, MANIFESTS, REFS, ObjectKey, parse_key
from shardfs.errors import InvalidFormat

_LAST = "\U0010ffff"  # sorts after every character of a key


@dataclass(frozen=True, slots=True)
class Entry:
    """A name in a folder."""

    name: str
    is_folder: bool


Folders: TypeAlias = Callable[[str], Awaitable[Sequence[Entry]]]
"""The entries of a folder of the store (`chunks/ab`), in any order; none when there is no such folder."""


async def list_keys(entries: Folders, prefix: str, after: str, limit: int) -> list[ObjectKey]:
    """Up to `limit` keys that begin with `prefix` and sort after `after`, sorted; fewer only at the end."""
    found: list[ObjectKey] = []
    for kind in (CHUNKS, MANIFESTS, REFS):
        if not _overlap(f"{kind}/", prefix) or f"{kind}/{_LAST}" <= after:
            continue
        for path in [kind] if kind == MANIFESTS else await _folders(entries, kind, prefix, after):
            if len(found) >= limit:
                return found
            found += _page(path, await entries(path), prefix, after, limit - len(found))
    return found


async def _folders(entries: Folders, kind: str, prefix: str, after: str) -> list[str]:
    """The folders that may hold such keys, in the order of the keys in them."""
    exact = prefix[:-1] if prefix.endswith("/") and prefix.count("/") == 2 else None
    if exact is not None:
        return [exact] if f"{exact}/{_LAST}" > after else []
    # With the slash, because "a-b/" sorts before "a/" although "a" sorts before "a-b".
    paths = (f"{kind}/{entry.name}/" for entry in await entries(kind) if entry.is_folder)
    return [path[:-1] for path in sorted(paths) if path + _LAST > after and _overlap(path, prefix)]


def _page(path: str, entries: Sequence[Entry], prefix: str, after: str, limit: int) -> list[ObjectKey]:
    names = (f"{path}/{entry.name}" for entry in entries if not entry.is_folder)
    keys = (_key_or_none(name) for name in names if name > after and name.startswith(prefix))
    return nsmallest(limit, (key for key in keys if key is not None))


def _overlap(path: str, prefix: str) -> bool:
    return path.startswith(prefix) or prefix.startswith(path)


def _key_or_none(name: str) -> ObjectKey | None:
    try:
        return parse_key(name)
    except InvalidFormat:
        return None
