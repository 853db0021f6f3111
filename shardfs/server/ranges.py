"""Which bytes a `Range` header asks for, and what the answer is made of (RFC 9110, 14.2 and 14.6). Pure.

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
class Plan:
    """An answer with bytes of an object. `pieces`, in order, are what is said between them and spans of the object."""

    status: int
    headers: Sequence[tuple[str, str]]
    pieces: Sequence[bytes | Span]


def planned(spans: Sequence[Span] | None, size: int) -> Plan:
    """The answer with these parts of an object of `size` bytes, at least one; None: with all of it."""
    if spans is None:
        return Plan(200, _headers("application/octet-stream", size), [(0, size)])
    if len(spans) == 1:
        ((start, end),) = spans
        headers = _headers("application/octet-stream", end - start)
        return Plan(206, [*headers, ("Content-Range", f"bytes {start}-{end - 1}/{size}")], spans)
    # Drawn anew for each answer, so that no object can be made to contain it.
    boundary = secrets.token_hex(16)
    pieces: list[bytes | Span] = []
    for start, end in spans:
        head = (
            f"\r\n--{boundary}\r\nContent-Type: application/octet-stream\r\n"
            f"Content-Range: bytes {start}-{end - 1}/{size}\r\n\r\n"
        )
        pieces += [head.encode(), (start, end)]
    pieces.append(f"\r\n--{boundary}--\r\n".encode())
    length = sum(piece[1] - piece[0] if isinstance(piece, tuple) else len(piece) for piece in pieces)
    return Plan(206, _headers(f"multipart/byteranges; boundary={boundary}", length), pieces)


def _headers(content_type: str, length: int) -> list[tuple[str, str]]:
    return [("Accept-Ranges", "bytes"), ("Content-Length", str(length)), ("Content-Type", content_type)]
