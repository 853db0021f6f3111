"""JSON from servers, as a typed value. Pure.

The decoder has more ways to fail than its own error: text that is not UTF-8 and documents that are nested too deeply
come out as others. Whoever reads an answer goes through here, so that none of them gets past the caller.
"""

from typing import TypeVar

import msgspec

from shardfs.errors import InvalidFormat

_T = TypeVar("_T")


def read_json(body: bytes, kind: type[_T]) -> _T:
    """The value of type `kind` that `body` holds, or InvalidFormat. The caller bounds the size of `body`."""
    try:
        return msgspec.json.decode(body, type=kind)
    except (msgspec.MsgspecError, ValueError, RecursionError) as error:  # UnicodeError is a ValueError
        raise InvalidFormat(f"not the JSON that was expected: {error}") from None
