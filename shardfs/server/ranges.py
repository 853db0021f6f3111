"""Which bytes a `Range` header asks for, and the frame for several of them (RFC 9110, 14.2 and 14.6). Pure.

Several ranges are served when there are at most RANGES_MAX, ascending, and none overlaps another: so an answer has at
most as many bytes of the object as the object itself. Everything else is ignored, as HTTP wants it, and the answer is
the whole object. Ranges that lie beyond its end are left out; when that is all of them, the answer is 416.
"""

import re
import secrets
from collections.abc import Sequence
from dataclasses import dataclass

RANGES_MAX = 4
_RANGE = re.compile(rb"[ \t]*(?:([0-9]{1,18})-([0-9]{1,18})?|-([0-9]{1,18}))[ \t]*")

Span = tuple[int, int]
"""Start and end of bytes of an object."""


def asked_spans(header: bytes, size: int) -> Sequence[Span] | None:
    """The bytes that a `Range` header asks for of an object of `size` bytes: empty when the object has none of them.

    None when the header is to be ignored.
    """
    unit, _, ranges = header.partition(b"=")
    if unit.lower() != b"bytes":
        return None
    texts = ranges.split(b",", RANGES_MAX)
    if len(texts) > RANGES_MAX:
        return None
    found: list[Span] = []
    for text in texts:
        match = _RANGE.fullmatch(text)
        if match is None:
            return None
        first, last, suffix = match.groups()
        if suffix is not None:
            start, end = max(0, size - int(suffix)), size
        else:
            start, end = int(first), size if last is None else min(size, int(last) + 1)
            if last is not None and int(last) < start:
                return None
        if start >= end:
            continue
        if found and start < found[-1][1]:
            return None
        found.append((start, end))
    return found


@dataclass(frozen=True, slots=True)
class Frame:
    """A body of several parts: `heads` goes before the bytes of each, `tail` after the last. `length` is of it all."""

    content_type: str
    heads: Sequence[bytes]
    tail: bytes
    length: int


def framed(spans: Sequence[Span], size: int) -> Frame:
    """The frame for these parts of an object of `size` bytes.

    The boundary is drawn anew for each answer, so that no object can be made to contain it.
    """
    boundary = secrets.token_hex(16)
    heads = [
        f"\r\n--{boundary}\r\nContent-Type: application/octet-stream\r\n"
        f"Content-Range: bytes {start}-{end - 1}/{size}\r\n\r\n".encode()
        for start, end in spans
    ]
    tail = f"\r\n--{boundary}--\r\n".encode()
    length = sum(map(len, heads)) + sum(end - start for start, end in spans) + len(tail)
    return Frame(f"multipart/byteranges; boundary={boundary}", heads, tail, length)
