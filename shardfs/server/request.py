"""What a client asks for: the checked head of a request, and the refusals. Pure.

Object names need no quoting in URLs, so nothing is ever decoded: a path is a key to the letter, or it is refused.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import h11

from shardfs.server.ranges import Span, asked_spans

QUERY_BYTES_MAX = 4096


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

    def spans(self, size: int) -> Sequence[Span] | None:
        """What is asked for of an object of `size` bytes, at least one span; None for all of it.

        Refused with 416 when all of it lies beyond the end. `If-Range` can name no version that is served here: there
        are no tags, so the answer to it is the whole object, as HTTP wants it.
        """
        header = self.headers.get(b"range")
        if header is None or b"if-range" in self.headers:
            return None
        spans = asked_spans(header, size)
        if spans is not None and not spans:
            raise Refused(416, "nothing there", (("Content-Range", f"bytes */{size}"),))
        return spans
