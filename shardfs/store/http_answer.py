"""What the head of an HTTP answer means: which bytes it brings, or which failure it is. Pure."""

import re
from email.utils import parsedate_to_datetime

from shardfs.errors import Denied, NoSpace, StoreError, Unavailable
from shardfs.store.http_connection import Answer, Broken

RETRY_AFTER_SECONDS_MAX = 5.0
"""However long a server asks to be left alone, it is asked again after this."""

_RANGE = re.compile(rb"bytes ([0-9]{1,19})-([0-9]{1,19})/([0-9]{1,19}|\*)")
_SIZE = re.compile(rb"bytes \*/([0-9]{1,19})")


def content_range(answer: Answer, offset: int, wanted: int) -> int:
    """How many of the `wanted` bytes at `offset` a 200 or 206 brings; Broken when it is another range than asked for.

    Fewer than wanted only where the object ends there. A 200 is the whole object, taken when it was asked for from its
    start; what it has beyond the wanted bytes is left on the connection, which is then closed.
    """
    length = answer.length
    if length is None:
        raise Broken("answer without Content-Length")
    if answer.status == 200:
        if offset:
            raise Broken("the server ignores Range")
        return min(length, wanted)
    found = _RANGE.fullmatch(answer.headers.get(b"content-range", b""))
    if found is None:
        raise Broken("partial answer without a valid Content-Range")
    first, last = int(found[1]), int(found[2])
    if first != offset or last < first or last >= offset + wanted or length != last - first + 1:
        raise Broken(f"asked for {wanted} bytes at {offset}, got {length} as {found[0].decode()}")
    if length < wanted and found[3] != str(last + 1).encode():
        raise Broken(f"answer cut short: {length} of {wanted} bytes at {offset}, not at the end")
    return length


def object_size(answer: Answer) -> int | None:
    """The size of the object that a 416 tells, or None."""
    found = _SIZE.fullmatch(answer.headers.get(b"content-range", b""))
    return int(found[1]) if found else None


def version_tag(answer: Answer) -> str:
    """What the server calls this version of an object: its ETag, else the time of its last change."""
    tag = answer.headers.get(b"etag") or answer.headers.get(b"last-modified", b"")
    return tag.decode("ascii", "replace")


def retry_after(answer: Answer, now: float) -> float | None:
    """Seconds that a 429 or 503 asks for, at most RETRY_AFTER_SECONDS_MAX; None when it asks for none."""
    text = answer.headers.get(b"retry-after", b"").decode("ascii", "replace").strip()
    if answer.status not in (429, 503) or not text:
        return None
    try:
        wanted = float(text) if text.isascii() and text.isdigit() else parsedate_to_datetime(text).timestamp() - now
    except (ValueError, OverflowError):
        return None
    return min(max(0.0, wanted), RETRY_AFTER_SECONDS_MAX)


def refusal(node: str, what: str, answer: Answer, text: str) -> StoreError:
    """The failure that a status means. `text` is the beginning of the server's own words."""
    reason = f"{what}: HTTP {answer.status}" + (f", {text}" if text else "")
    if answer.status in (401, 403):
        return Denied(node, reason)
    if answer.status == 507:
        return NoSpace(node, reason)
    if answer.status == 207:
        return Unavailable(node, f"{what}: HTTP 207, a multi-status that was not asked for")
    if answer.status in (429, 503):
        return Unavailable(node, f"throttled or overloaded: {reason}")
    if 300 <= answer.status < 400:
        return Unavailable(node, f"{what}: HTTP {answer.status}, redirects are not followed")
    return Unavailable(node, reason)
