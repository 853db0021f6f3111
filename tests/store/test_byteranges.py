"""The parser of answers with several parts: however the bytes are cut, the same result; and no memory for garbage."""

import re
from email import message_from_bytes
from email.policy import HTTP

import pytest
from hypothesis import given
from hypothesis import strategies as st

from shardfs.server.ranges import planned
from shardfs.store.byteranges import ByteRanges, Malformed, OtherRanges, boundary_of, only_first
from shardfs.store.http_connection import Answer, Broken

OBJECT = bytes(range(256)) * 200
SIZE = len(OBJECT)
SPANS = ((0, 100), (40_000, 3000))


def part(first: int, last: int, size: int | str = SIZE, *, headers: str = "", data: bytes | None = None) -> bytes:
    data = OBJECT[first : last + 1] if data is None else data
    return f"--B\r\n{headers}Content-Range: bytes {first}-{last}/{size}\r\n\r\n".encode() + data + b"\r\n"


A, B, END = part(0, 99), part(40_000, 42_999), b"--B--\r\n"


class Outcome:
    """One body through the parser, in pieces of the given sizes (again and again); what can be seen of it."""

    def __init__(self, body: bytes, cuts: list[int] | None = None, spans=SPANS) -> None:
        self.memory = [bytearray(length) for _, length in spans]
        self.told: list[tuple[int, int]] = []
        parts = ByteRanges(
            b"B",
            [(start, memoryview(memory)) for (start, _), memory in zip(spans, self.memory, strict=True)],
            lambda number, count: self.told.append((number, count)),
        )
        self.error: Exception | None = None
        self.held = 0
        at = turn = 0
        try:
            while at < len(body):
                room, rest = parts.room()
                assert len(room), "the connection would take no bytes for its end"
                piece = body[at : at + (cuts[turn % len(cuts)] if cuts else len(body))]
                turn += 1
                first = piece[: len(room)]
                second = piece[len(room) : len(room) + (len(rest) if rest is not None else 0)]
                room[: len(first)] = first
                if second:
                    rest[: len(second)] = second
                at += len(first) + len(second)
                parts.took(len(first) + len(second))
                self.held = max(self.held, len(parts._held))
            parts.finish()
        except (OtherRanges, Malformed) as error:
            self.error = error
        self.counts = list(parts.counts)

    def seen(self) -> tuple[object, ...]:
        return self.counts, self.memory, type(self.error), str(self.error)


WELL = {
    "plain": A + B + END,
    "a line end first, as nginx sends it": b"\r\n" + A + B + END,
    "no line end last": (A + B + END)[:-2],
    "other headers": part(0, 99, headers="Content-Type: a/b\r\nX:\r\n")
    + part(40_000, 42_999, headers="Y: z\r\n")
    + END,
    "size not told": part(0, 99, "*") + part(40_000, 42_999, "*") + END,
    "in capitals": A.replace(b"Content-Range", b"CONTENT-RANGE") + B + END,
}


@pytest.mark.parametrize("case", WELL)
@pytest.mark.parametrize("cuts", [None, [1], [7], [100, 1, 3000], [16384]], ids=str)
def test_what_was_asked_for_lands(case, cuts):
    outcome = Outcome(WELL[case], cuts)
    assert outcome.error is None
    assert outcome.counts == [100, 3000]
    assert [bytes(memory) for memory in outcome.memory] == [OBJECT[:100], OBJECT[40_000:43_000]]
    assert outcome.told == sorted(set(outcome.told)), "never backwards"
    assert dict(outcome.told) == {0: 100, 1: 3000}


@pytest.mark.parametrize(
    ("size", "body", "counts"),
    [
        (42_000, part(0, 99, 42_000) + part(40_000, 41_999, 42_000) + END, [100, 2000]),
        (40_001, part(0, 99, 40_001) + part(40_000, 40_000, 40_001) + END, [100, 1]),
        (40_000, part(0, 99, 40_000) + END, [100, 0]),
        (60, part(0, 59, 60) + END, [60, 0]),
    ],
)
def test_an_object_that_ends_before(size, body, counts):
    outcome = Outcome(body, [11])
    assert (outcome.error, outcome.counts) == (None, counts)
    assert outcome.memory[1][counts[1] :] == bytes(3000 - counts[1])


OTHER = {
    "in another order": B + A + END,
    "merged": part(0, 42_999) + END,
    "less than asked": part(0, 50) + B + END,
    "more than asked": part(0, 100) + B + END,
    "another beginning": part(1, 99) + B + END,
    "backwards": part(99, 0, data=b"") + B + END,
    "short, size not told": part(0, 50, "*") + B + END,
    "beyond the size": part(0, 99, 50) + END,
}


@pytest.mark.parametrize("case", OTHER)
def test_other_ranges_are_noticed_before_anything_is_written(case):
    outcome = Outcome(OTHER[case], [13])
    assert isinstance(outcome.error, OtherRanges)
    assert (outcome.counts, outcome.told) == ([0, 0], [])
    assert not any(map(any, outcome.memory))


WRONG = {
    "nothing": (b"", "no end"),
    "no parts": (END, "0 parts instead of 2"),
    "text before": (b"hello\r\n" + A + B + END, "no boundary"),
    "another boundary": ((A + B + END).replace(b"--B", b"--C"), "no boundary"),
    "a longer boundary": ((A + B + END).replace(b"--B", b"--BB"), "no boundary"),
    "spaces behind the boundary": (A.replace(b"--B", b"--B  ") + B + END, "no boundary"),
    "bare line feeds": ((A + B + END).replace(b"\r\n", b"\n"), "no boundary"),
    "no headers": (b"--B\r\n\r\n" + OBJECT[:100] + b"\r\n" + B + END, "no header"),
    "no range": (b"--B\r\nX: y\r\n\r\n" + OBJECT[:100] + b"\r\n" + B + END, "without a valid Content-Range"),
    "two ranges": (part(0, 99, headers="Content-Range: bytes 0-99/1\r\n") + B + END, "without a valid Content-Range"),
    "a range of something else": (A.replace(b"bytes ", b"lines ") + B + END, "without a valid Content-Range"),
    "a huge range": (A.replace(b"99/", b"9" * 30 + b"/") + B + END, "without a valid Content-Range"),
    "a folded header": (part(0, 99, headers="X: y\r\n z\r\n") + B + END, "no header"),
    "no colon": (part(0, 99, headers="hello\r\n") + B + END, "no header"),
    "a zero byte": (part(0, 99, headers="X: \0\r\n") + B + END, "no header"),
    "an endless head": (b"--B\r\n" + b"X: y\r\n" * 100_000, "more than 1024 bytes"),
    "an endless line": (b"--B\r\nX: " + b"y" * 100_000, "more than 1024 bytes"),
    "a short part": (part(0, 99, data=OBJECT[:98]) + B + END, "no boundary"),
    "a long part": (part(0, 99, data=OBJECT[:101]) + B + END, "no boundary"),
    "the second part is another one": (A + part(40_001, 42_999) + END, "part 2 is another one"),
    "the same part twice": (A + A + END, "part 2 is another one"),
    "another size": (A + part(40_000, 42_999, SIZE + 1) + END, "part 2 is another one"),
    "one part too many": (A + B + B + END, "part 3 is another one"),
    "one part too few": (A + END, "1 parts instead of 2"),
    "one part too few, size not told": (part(0, 99, "*") + END, "1 parts instead of 2"),
    "cut short in a head": ((A + B)[:130], "no end"),
    "cut short in a part": ((A + B)[:2000], "no end"),
    "no end": (A + B, "no end"),
    "half an end": ((A + B + END)[:-3], "no end"),
    "more behind the end": (A + B + END + b"x", "more behind"),
    "a part behind the end": (A + END + B + END, "more behind"),
    "an endless end": (A + B + END + b"\r\n" * 100_000, "more behind"),
}


@pytest.mark.parametrize("case", WRONG)
@pytest.mark.parametrize("cuts", [None, [1], [1000]], ids=str)
def test_everything_else_is_malformed(case, cuts):
    body, reason = WRONG[case]
    outcome = Outcome(body, cuts)
    assert isinstance(outcome.error, Malformed)
    assert isinstance(outcome.error, Broken), "so it is a failure of the node like others"
    assert re.search(reason, str(outcome.error))
    assert outcome.held < 2048


bodies = st.one_of(
    st.sampled_from([*WELL.values(), *OTHER.values(), *(body for body, _ in WRONG.values())]),
    st.builds(
        lambda body, at, junk: body[: at % len(body)] + junk + body[at % len(body) :],
        st.sampled_from(list(WELL.values())),
        st.integers(0, 10_000),
        st.binary(min_size=1, max_size=4),
    ),
    st.builds(
        lambda body, at, bit: body[:at] + bytes([body[at] ^ bit]) + body[at + 1 :],
        st.sampled_from(list(WELL.values())),
        st.integers(0, 250),
        st.integers(1, 255),
    ),
    st.lists(st.sampled_from([b"--B", b"--", b"\r\n", b"\r", b"-", A, B, END, b"x"]), max_size=12).map(b"".join),
    st.binary(max_size=300),
)


@given(bodies, st.lists(st.integers(1, 5000), min_size=1, max_size=20))
def test_any_cut_gives_the_same(body, cuts):
    whole, pieces = Outcome(body), Outcome(body, cuts)
    assert whole.seen() == pieces.seen()
    assert pieces.held < 2048
    if whole.error is None:
        assert [bytes(memory) for memory in whole.memory if any(memory)]


@given(st.binary(max_size=2000), st.lists(st.integers(1, 50), min_size=1))
def test_garbage_in_a_part_is_only_data(data, cuts):
    """Bytes that look like a boundary end nothing: the length is known."""
    spans, size = ((5, len(data) + 7),), 5 + len(data) + 7
    body = part(5, size - 1, size, data=data + b"\r\n--B--") + END
    outcome = Outcome(body, cuts, spans)
    assert outcome.error is None
    assert bytes(outcome.memory[0]) == data + b"\r\n--B--"


def test_what_arrived_raises_comes_out():
    class Stop(Exception):
        pass

    def stop(number: int, count: int) -> None:
        raise Stop

    parts = ByteRanges(b"B", [(0, memoryview(bytearray(100)))], stop)
    room, _ = parts.room()
    room[: len(A)] = A
    with pytest.raises(Stop):
        parts.took(len(A))


@given(st.lists(st.integers(0, 500), min_size=4, max_size=8, unique=True).map(sorted))
def test_what_a_node_sends_is_what_a_client_takes(edges):
    """The frame of the server, and the standard library's parser as a second opinion."""
    spans = list(zip(edges[0::2], edges[1::2], strict=False))
    plan = planned(spans, SIZE)
    headers = dict(plan.headers)
    body = b"".join(OBJECT[slice(*piece)] if isinstance(piece, tuple) else piece for piece in plan.pieces)
    assert len(body) == int(headers["Content-Length"])
    answer = Answer(206, {b"content-type": headers["Content-Type"].encode()}, len(body), False)
    boundary = boundary_of(answer)
    memory = [bytearray(end - start) for start, end in spans]
    views = [(start, memoryview(into)) for (start, _), into in zip(spans, memory, strict=True)]
    parts = ByteRanges(boundary, views, None)
    room, _ = parts.room()
    room[: len(body)] = body
    parts.took(len(body))
    parts.finish()
    assert memory == [OBJECT[a:b] for a, b in spans]
    message = message_from_bytes(f"Content-Type: {headers['Content-Type']}\r\n\r\n".encode() + body, policy=HTTP)
    assert [found["Content-Range"] for found in message.iter_parts()] == [f"bytes {a}-{b - 1}/{SIZE}" for a, b in spans]


@pytest.mark.parametrize(
    ("value", "boundary"),
    [
        (b"multipart/byteranges; boundary=00000000000000000012", b"00000000000000000012"),
        (b'Multipart/Byteranges;boundary="a b"', None),
        (b'Multipart/Byteranges;boundary="a=b"', b"a=b"),
        (b"multipart/byteranges; boundary=" + b"x" * 70, b"x" * 70),
        (b"multipart/byteranges; boundary=" + b"x" * 71, None),
        (b"multipart/byteranges; boundary=", None),
        (b'multipart/byteranges; boundary="a', None),
        (b"multipart/byteranges", None),
        (b"multipart/form-data; boundary=a", None),
        (b"application/octet-stream", None),
    ],
)
def test_boundary(value, boundary):
    assert boundary_of(Answer(206, {b"content-type": value}, 1, False)) == boundary


@pytest.mark.parametrize(
    ("told", "length", "count"),
    [
        ("bytes 0-99/40000", 100, 100),
        ("bytes 0-59/60", 60, 60),
        ("bytes 0-99/40001", 100, None),
        ("bytes 0-99/*", 100, None),
        ("bytes 0-50/40000", 51, None),
        ("bytes 0-99/40000", 99, None),
        ("bytes 1-99/40000", 99, None),
        ("bytes 0-100/40000", 101, None),
        ("bytes 40000-42999/43000", 3000, None),
        ("bytes */0", 0, None),
        ("", 100, None),
    ],
)
def test_the_first_span_alone(told, length, count):
    spans = [(start, memoryview(bytearray(size))) for start, size in SPANS]
    assert only_first(Answer(206, {b"content-range": told.encode()}, length, False), spans) == count
