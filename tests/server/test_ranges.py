"""Several ranges at once, from the header to the bytes on the wire."""

from email import message_from_bytes
from email.policy import HTTP
from pathlib import Path

import pytest

from shardfs.server.ranges import asked_spans
from shardfs.testing.samples import sample_chunk
from tests.server.raw import read_answer, serving

BIG, SMALL = sample_chunk(2, 2_000_000), sample_chunk(3, 5000)


@pytest.mark.parametrize(
    ("header", "spans"),
    [
        ("bytes=0-0", [(0, 1)]),
        ("bytes=10-", [(10, 100)]),
        ("bytes=-10", [(90, 100)]),
        ("bytes=-1000", [(0, 100)]),
        ("bytes=90-999", [(90, 100)]),
        ("BYTES=0-0", [(0, 1)]),
        ("bytes=0-0,1-1", [(0, 1), (1, 2)]),
        ("bytes=0-9, 20-29 ,\t40-49,-5", [(0, 10), (20, 30), (40, 50), (95, 100)]),
        ("bytes=0-9,95-", [(0, 10), (95, 100)]),
        ("bytes=0-9,100-", [(0, 10)]),
        ("bytes=0-9,100-200,300-400", [(0, 10)]),
        ("bytes=100-200,0-9", [(0, 10)]),
        ("bytes=100-", []),
        ("bytes=100-100,200-300", []),
        ("bytes=-0", []),
        ("bytes=0-9,9-20", None),
        ("bytes=0-9,0-9", None),
        ("bytes=0-,50-60", None),
        ("bytes=20-29,0-9", None),
        ("bytes=50-,-60", None),
        ("bytes=0-0,2-2,4-4,6-6,8-8", None),
        ("bytes=" + "0-0," * 3000 + "0-0", None),
        ("bytes=0-9,", None),
        ("bytes=,0-9", None),
        ("bytes=0-9,5-2", None),
        ("bytes=0-9,x-y", None),
        ("bytes=0-9,-", None),
        ("bytes=0-9;20-29", None),
        ("bytes=0-9,20-29,lines=1-2", None),
        ("bytes = 0-9", None),
        ("lines=1-2", None),
        ("bytes", None),
        ("", None),
        ("bytes=", None),
        ("bytes=0-" + "9" * 19, None),
    ],
)
def test_what_a_header_asks_for(header, spans):
    assert asked_spans(header.encode(), 100) == spans
    assert not asked_spans(header.encode(), 0), "an empty object has no bytes to ask for"


def take_apart(headers: dict[str, str], body: bytes) -> list[tuple[str, bytes]]:
    """By the standard library's parser: Content-Range and bytes of each part."""
    message = message_from_bytes(f"Content-Type: {headers['content-type']}\r\n\r\n".encode() + body, policy=HTTP)
    assert message.get_content_type() == "multipart/byteranges"
    assert not message.defects
    parts = list(message.iter_parts())
    assert {part.get_content_type() for part in parts} == {"application/octet-stream"}
    return [(part["Content-Range"], part.get_payload(decode=True)) for part in parts]


@pytest.mark.parametrize("sample", [SMALL, BIG], ids=["small", "big"])
async def test_several_parts(sample, tmp_path: Path) -> None:
    """Pieces that are read and pieces that are sent as files, in each order, on one connection."""
    size = len(sample.data)
    far = size - size // 3
    async with serving(tmp_path / "a") as node, await node.connect() as stream:
        await node.store.put(sample.key, [sample.data])
        for spans in (
            [(0, 1), (1, 2)],
            [(0, 600), (far, size)],
            [(0, size // 3), (far, far + 1)],
            [(0, size // 3), (size // 3, far), (far, size)],
            [(0, 5), (100, size // 2), (size // 2 + 3, size // 2 + 9), (far, size)],
        ):
            asked = ",".join(f"{start}-{end - 1}" for start, end in spans)
            await stream.send_all(f"GET /{sample.key} HTTP/1.1\r\nHost: x\r\nRange: bytes={asked}\r\n\r\n".encode())
            status, headers, body = await read_answer(stream)
            assert (status, len(body), "content-range" in headers) == (206, int(headers["content-length"]), False)
            found = take_apart(headers, body)
            assert [told for told, _ in found] == [f"bytes {start}-{end - 1}/{size}" for start, end in spans]
            pieces = body.split(b"--" + headers["content-type"].partition("boundary=")[2].encode())
            assert len(pieces) == len(spans) + 2
            for piece, (start, end) in zip(pieces[1:-1], spans, strict=True):
                assert piece.partition(b"\r\n\r\n")[2] == sample.data[start:end] + b"\r\n"


async def test_boundaries_are_not_used_twice(tmp_path: Path) -> None:
    """Or somebody could put one into an object."""
    async with serving(tmp_path / "a") as node:
        await node.store.put(SMALL.key, [SMALL.data])
        types = {(await node.ask("GET", SMALL.key, "Range: bytes=0-1,5-6"))[1]["content-type"] for _ in range(5)}
    assert len(types) == 5


async def test_what_is_left_of_several_ranges(tmp_path: Path) -> None:
    size = len(SMALL.data)
    async with serving(tmp_path / "a") as node:
        await node.store.put(SMALL.key, [SMALL.data])
        status, headers, body = await node.ask("GET", SMALL.key, f"Range: bytes=10-19,{size}-{size + 9}")
        assert (status, headers["content-range"], body) == (206, f"bytes 10-19/{size}", SMALL.data[10:20])
        status, headers, body = await node.ask("GET", SMALL.key, f"Range: bytes={size}-,{size + 5}-{size + 9}")
        assert (status, headers["content-range"], body) == (416, f"bytes */{size}", b"nothing there\n")
        for ignored in ("bytes=5-6,0-1", "bytes=0-5,5-6", "bytes=0-0,2-2,4-4,6-6,8-8", "bytes=0-1,x"):
            assert (await node.ask("GET", SMALL.key, f"Range: {ignored}"))[::2] == (200, SMALL.data)
        status, headers, body = await node.ask("HEAD", SMALL.key, "Range: bytes=0-1,5-6")
        assert (status, headers["content-length"], body) == (200, str(size), b"")
        missing = sample_chunk(99).key
        assert (await node.ask("GET", missing, "Range: bytes=0-1,5-6"))[0] == 404


@pytest.mark.parametrize("asked", ["0-1", "0-1,5-6"])
async def test_a_version_nobody_served_is_answered_with_all_of_it(asked: str, tmp_path: Path) -> None:
    async with serving(tmp_path / "a") as node:
        await node.store.put(SMALL.key, [SMALL.data])
        answer = await node.ask("GET", SMALL.key, f"Range: bytes={asked}", 'If-Range: "x"')
        assert answer[::2] == (200, SMALL.data)
