"""Answers with several parts of an object: `multipart/byteranges` (RFC 9110, 14.6; RFC 2046, 5.1). No IO.

`ByteRanges` says where the next bytes of the body belong (`room`) and is told how many came (`took`). The bytes of a
part land in the caller's memory; what stands around them, and a few that come with it, go through a buffer of 16 KiB.
Their number is known from Content-Range, so nothing is ever searched for the boundary.

Accepted is what was asked for, to the letter: the parts in that order, each whole or up to the object's end; parts that
begin after its end are left out. A first part that is another one means that this server goes its own way with several
ranges (RFC 9110 lets it merge, reorder or ignore them): OtherRanges, and nothing has been written. All else is
Malformed. The head of a part has at most PART_HEAD_BYTES_MAX bytes; nothing may stand before the first or after the
last part but one line end.
"""

import re
from collections.abc import Callable, Sequence
from functools import partial

from shardfs.store.base import SpanInto
from shardfs.store.http_answer import object_size
from shardfs.store.http_connection import Answer, Broken, HttpConnection

PART_HEAD_BYTES_MAX = 1024
_BUFFER_BYTES = 16 * 1024

_TYPE = re.compile(rb"multipart/byteranges[ \t]*;[ \t]*boundary=(\"?)([0-9A-Za-z'()+_,./:=?-]{1,70})\1", re.IGNORECASE)
_LINE = re.compile(rb"([!#$%&'*+.^_`|~0-9A-Za-z-]{1,64}):[ \t]*([\t -~\x80-\xff]*?)[ \t]*")
_RANGE = re.compile(rb"bytes ([0-9]{1,19})-([0-9]{1,19})/([0-9]{1,19}|\*)")
_END, _BLANK = b"\r\n", b"\r\n\r\n"
_HELD_BYTES_MAX = PART_HEAD_BYTES_MAX + len(_BLANK) + 1  # so many have a head in them, or are too many


class OtherRanges(Exception):
    """The answer brings other ranges than were asked for; nothing of it has been written anywhere."""


class Malformed(Broken):
    """The body is no `multipart/byteranges`, or none of what was asked for."""


def boundary_of(answer: Answer) -> bytes | None:
    """What separates the parts; None when the answer has no parts, or a type that nobody sends."""
    found = _TYPE.fullmatch(answer.headers.get(b"content-type", b""))
    return found[2] if found else None


def only_first(answer: Answer, spans: Sequence[SpanInto]) -> int | None:
    """How many bytes of the first span a 206 without parts brings, because the object ends before all the others.

    None when it says anything else.
    """
    found = _RANGE.fullmatch(answer.headers.get(b"content-range", b""))
    if found is None or found[3] == b"*":
        return None
    first, last, size = int(found[1]), int(found[2]), int(found[3])
    (offset, view), others = spans[0], spans[1:]
    wanted = min(len(view), size - offset)
    beyond = all(at >= size for at, _ in others)
    return (
        wanted
        if beyond and wanted > 0 and (first, last, answer.length) == (offset, offset + wanted - 1, wanted)
        else None
    )


async def read_spans(
    connection: HttpConnection,
    answer: Answer,
    spans: Sequence[SpanInto],
    arrived: Callable[[int, int], None] | None,
) -> Sequence[int] | None:
    """What `SpanSource.get_spans` returns, from a 200, 206 or 416 to a request for `spans`."""
    counts = [0] * len(spans)
    if answer.status == 416:
        size = object_size(answer)
        return counts if size is not None and size <= spans[0][0] else None
    if answer.status != 206 or answer.length is None:
        return None
    boundary = boundary_of(answer)
    if boundary is not None:
        parts = ByteRanges(boundary, spans, arrived)
        try:
            await connection.body_through(answer, parts)
        except OtherRanges:
            return None
        parts.finish()
        return parts.counts
    first = only_first(answer, spans)
    if first is None:
        return None
    await connection.body_into(answer, spans[0][1][:first], None if arrived is None else partial(arrived, 0))
    counts[0] = first
    return counts


class ByteRanges:
    """Takes one body apart. `counts` are the bytes that have landed of each span.

    `arrived` is called as `SpanSource.get_spans` says; what it raises comes out of `took`.
    """

    def __init__(self, boundary: bytes, spans: Sequence[SpanInto], arrived: Callable[[int, int], None] | None) -> None:
        self.counts = [0] * len(spans)
        self._delimiter = b"\r\n--" + boundary
        self._spans = spans
        self._arrived = arrived
        self._buffer = memoryview(bytearray(_BUFFER_BYTES))
        self._held = b""  # of a part's head, or of the end
        self._target: memoryview | None = None  # where the rest of the part under way belongs
        self._part = -1
        self._size: int | None = None  # of the object
        self._ended = False

    def room(self) -> tuple[memoryview, memoryview | None]:
        """Where the next bytes of the body belong, and those after them."""
        return (self._buffer, None) if self._target is None else (self._target, self._buffer)

    def took(self, count: int) -> None:
        """`count` bytes have landed in `room`."""
        if self._target is not None:
            direct = min(count, len(self._target))
            self._landed(direct)
            count -= direct
        rest = self._buffer[:count]
        while rest:
            target = self._target
            if target is None:
                rest = self._take_head(rest)
            else:
                size = min(len(target), len(rest))
                target[:size] = rest[:size]
                rest = rest[size:]
                self._landed(size)

    def finish(self) -> None:
        """The body is over: Malformed unless it was whole."""
        if not self._ended or self._held not in (b"", _END):
            raise Malformed("the parts of the answer have no end")
        left_out = self._spans[self._part + 1 :]
        if self._part < 0 or any(self._size is None or offset < self._size for offset, _ in left_out):
            raise Malformed(f"{self._part + 1} parts instead of {len(self._spans)}")

    def _landed(self, count: int) -> None:
        target = self._target
        assert target is not None
        self._target = target[count:] if count < len(target) else None
        self.counts[self._part] += count
        if self._arrived is not None:
            self._arrived(self._part, self.counts[self._part])

    def _take_head(self, data: memoryview) -> memoryview:
        """Read the line that separates parts and the head of the next one, once all of it is there; what is left."""
        before = len(self._held)
        self._held += bytes(data[:_HELD_BYTES_MAX])
        if self._ended:
            if not _END.startswith(self._held):
                raise Malformed("more behind the last part")
            return data[len(data) :]
        held, skipped = self._held, 0
        if self._part < 0 and held.startswith(b"-"):
            held, skipped = _END + held, len(_END)  # the line end before the first part may be missing
        begin = len(self._delimiter) + 2
        if len(held) < begin:
            return data[len(data) :]
        mark = held[len(self._delimiter) : begin]
        if not held.startswith(self._delimiter) or mark not in (_END, b"--"):
            raise Malformed("no boundary where a part has to begin or end")
        if mark == b"--":
            self._held, self._ended = b"", True
            return self._take_head(data[begin - skipped - before :])
        end = held.find(_BLANK, len(self._delimiter))
        if end > PART_HEAD_BYTES_MAX or (end < 0 and len(held) > PART_HEAD_BYTES_MAX + len(_BLANK)):
            raise Malformed(f"the head of a part has more than {PART_HEAD_BYTES_MAX} bytes")
        if end < 0:
            return data[len(data) :]
        self._held = b""
        self._begin(held[begin:end])
        return data[end + len(_BLANK) - skipped - before :]

    def _begin(self, head: bytes) -> None:
        """The next part is the one whose head this is."""
        ranges = []
        for line in head.split(_END):
            found = _LINE.fullmatch(line)
            if found is None:
                raise Malformed("the head of a part is no header")
            if found[1].lower() == b"content-range":
                ranges.append(found[2])
        match = _RANGE.fullmatch(ranges[0]) if len(ranges) == 1 else None
        if match is None:
            raise Malformed("a part without a valid Content-Range")
        size = None if match[3] == b"*" else int(match[3])
        part = self._part + 1
        count = _fitting(self._spans[part], int(match[1]), int(match[2]), size) if part < len(self._spans) else None
        if count is None or (part and size != self._size):
            if not part:
                raise OtherRanges
            raise Malformed(f"part {part + 1} is another one than was asked for: {match[0].decode()}")
        self._part, self._size = part, size
        self._target = self._spans[part][1][:count]


def _fitting(span: SpanInto, first: int, last: int, size: int | None) -> int | None:
    """How many bytes of `span` a part [first, last] of an object of `size` bytes brings; None when it is another."""
    offset, view = span
    count = last + 1 - first
    if first != offset or not 0 < count <= len(view) or (size is not None and last >= size):
        return None
    return count if count == len(view) or size == last + 1 else None
