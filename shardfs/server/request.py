"""What a client asks for: the checked head of a request, and the refusals. Pure.

Object names need no quoting in URLs, so nothing is ever decoded: a path is a key to the letter, or it is refused.
"""

import re
from dataclasses import dataclass

import h11

QUERY_BYTES_MAX = 4096
_RANGE = re.compile(rb"bytes=(?:([0-9]{1,18})-([0-9]{1,18})?|-([0-9]{1,18}))", re.IGNORECASE)


class Refused(Exception):
    """The request cannot be done; `status` and `text` are the answer."""

    def __init__(self, status: int, text: str, headers: tuple[tuple[str, str], ...] = ()) -> None:
        super().__init__(text)
        self.status = status
        self.text = text
        self.headers = headers


@dataclass(frozen=True, slots=True)
class Request:
    """A head that h11 has found well formed. `length` is None without Content-Length."""

    method: str
    path: str
    query: str
    headers: dict[bytes, bytes]
    length: int | None
    chunked: bool
    last: bool
    """The client will send no further request, or could not be understood if it did."""

    @classmethod
    def parse(cls, event: h11.Request) -> "Request":
        """Refused for targets that are no plain path."""
        headers = dict(event.headers)
        target = event.target.decode("ascii", "replace")
        path, _, query = target.partition("?")
        length = headers.get(b"content-length")
        request = cls(
            method=event.method.decode("ascii", "replace"),
            path=path[1:],
            query=query,
            headers=headers,
            length=None if length is None else int(length),
            chunked=b"transfer-encoding" in headers,
            last=event.http_version < b"1.1" or b"close" in headers.get(b"connection", b"").lower(),
        )
        if not path.startswith("/"):
            raise Refused(400, "the target of a request is a path")
        if len(query) > QUERY_BYTES_MAX:
            raise Refused(414, "query too long")
        return request

    @property
    def has_body(self) -> bool:
        return self.chunked or bool(self.length)

    def span(self, size: int) -> tuple[int, int] | None:
        """Start and end of the range asked for within an object of `size` bytes; None for all of it.

        Ranges that are malformed, or several, are ignored, as HTTP wants it; Refused with 416 beyond the end.
        """
        found = _RANGE.fullmatch(self.headers.get(b"range", b""))
        if found is None:
            return None
        first, last, suffix = found.groups()
        if suffix is not None:
            start, end = max(0, size - int(suffix)), size
        else:
            start, end = int(first), size if last is None else min(size, int(last) + 1)
            if last is not None and int(last) < start:
                return None
        if start >= end:
            raise Refused(416, "nothing there", (("Content-Range", f"bytes */{size}"),))
        return start, end
