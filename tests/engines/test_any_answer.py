"""Whatever bytes a server sends, whichever client asks whatever it can ask: what comes out is documented.

A node whose answers broke the program in some other way would take all nodes with it.
"""

import json
from collections.abc import Awaitable, Callable

import pytest
import trio
from hypothesis import example, given, settings
from hypothesis import strategies as st

from shardfs.core.location import HdfsPlace
from shardfs.errors import NotFound, StoreError, UsageError
from shardfs.store.base import ExternalSource, Store
from shardfs.store.dav import DavStore
from shardfs.store.http import HttpStore
from shardfs.store.webhdfs import WebHdfsStore
from shardfs.testing.samples import sample_chunk
from tests.engines.test_evil_servers import s3_store, server, whole

SAMPLE = sample_chunk(1)
FOLDER = SAMPLE.key.rpartition("/")[0]
SECONDS_MAX = 60.0

CLIENTS: dict[str, Callable[[str], Store]] = {
    "http": lambda authority: HttpStore("far", f"http://{authority}"),
    "dav": lambda authority: DavStore("far", f"dav://{authority}/d"),
    "s3": s3_store,
    "webhdfs": lambda authority: WebHdfsStore("far", HdfsPlace(authority, "/p"), user="ada"),
}


def calls(store: Store) -> list[Callable[[], Awaitable[object]]]:
    into = memoryview(bytearray(100))
    asked: list[Callable[[], Awaitable[object]]] = [
        store.stat,
        lambda: store.list("chunks/"),
        lambda: store.list("refs/m/", after="refs/m/0", limit=2),
        lambda: store.size(SAMPLE.key),
        lambda: store.get(SAMPLE.key, into, offset=7),
        lambda: store.read(SAMPLE.key, limit=100),
        lambda: store.put(SAMPLE.key, [SAMPLE.data]),
        lambda: store.delete(SAMPLE.key),
    ]
    if isinstance(store, HttpStore):
        asked.append(lambda: store.get_spans(SAMPLE.key, [(0, into[:10]), (50, into[10:20])]))
    if isinstance(store, ExternalSource):
        asked += [
            lambda: store.get_external("x/y", into, offset=0),
            lambda: store.external_stat("x/y"),
            lambda: store.list_external("x", limit=5),
        ]
    return asked


async def ask_everything(kind: str, answers: list[bytes]) -> None:
    """Each call once, while the server gives these answers in turn."""
    for number in range(len(calls(CLIENTS[kind]("127.0.0.1:1")))):
        given_so_far = 0

        def answer(request: bytes) -> bytes:
            nonlocal given_so_far
            said = answers[given_so_far % len(answers)]
            given_so_far += 1
            return said.replace(b"{here}", here.encode()).replace(b"{target}", request.split(b" ")[1])

        async with server(answer) as (here, _):
            store = CLIENTS[kind](here)
            with trio.fail_after(SECONDS_MAX):
                told = ""
                try:
                    await calls(store)[number]()
                except (StoreError, NotFound, UsageError) as error:  # the last: a name that is against the rules
                    told = str(error)
                assert "\n" not in told
                assert len(told) < 1000
            await store.aclose()


# ------------------------------------------------------------------------------------------------ what servers say

names = st.sampled_from(["a", "..", "a/b", "", "x" * 300, "\x00", "é", SAMPLE.key, SAMPLE.key.split("/")[-1], FOLDER])
scalars = st.none() | st.booleans() | st.integers(-1, 2**70) | names
documents = st.recursive(
    scalars,
    lambda inner: (
        st.lists(inner, max_size=3)
        | st.dictionaries(
            st.sampled_from(
                [
                    "keys",
                    "end",
                    "id",
                    "name",
                    "type",
                    "FileStatus",
                    "FileStatuses",
                    "pathSuffix",
                    "length",
                    "boolean",
                    "modificationTime",
                    "RemoteException",
                    "exception",
                    "message",
                ]
            ),
            inner,
            max_size=4,
        )
    ),
    max_leaves=8,
)
rows = st.fixed_dictionaries(
    {
        "pathSuffix": names,
        "type": st.sampled_from(["FILE", "DIRECTORY", "SYMLINK", "?"]),
        "length": st.integers(-1, 2**70) | st.just(len(SAMPLE.data)),
        "modificationTime": st.integers(-(2**70), 2**70),
    }
)
json_bodies = (
    documents
    | st.lists(st.fixed_dictionaries({"name": names, "type": st.sampled_from(["file", "directory"])}), max_size=3)
    | st.fixed_dictionaries({"keys": st.lists(names, max_size=3), "end": st.booleans()})
    | rows.map(lambda row: {"FileStatus": row})
    | st.lists(rows, max_size=3).map(lambda listed: {"FileStatuses": {"FileStatus": listed}})
).map(lambda document: json.dumps(document).encode())


def element(name: str, inner: str) -> str:
    return f"<{name}>{inner}</{name}>"


texts = st.sampled_from(
    [
        "",
        "true",
        "url",
        "a%62",
        "%ff",
        f"p/{SAMPLE.key}",
        "x/y",
        "x/../y",
        f"/d/{FOLDER}/",
        f"/d/{SAMPLE.key}",
        "http://[::1/x",
        "//[x]/",
        "http://℀/x",
        "/d/%00",
        "HTTP/1.1 200 OK",
        "HTTP/1.1",
        "NoSuchBucket",
    ]
)
xml_names = st.sampled_from(
    [
        "multistatus",
        "D:multistatus",
        "response",
        "href",
        "status",
        "propstat",
        "prop",
        "resourcetype",
        "collection",
        "ListBucketResult",
        "Contents",
        "Key",
        "IsTruncated",
        "EncodingType",
        "Error",
        "Code",
        "Message",
        "Region",
    ]
)
trees = st.recursive(
    texts,
    lambda inner: st.tuples(xml_names, st.lists(inner, max_size=4)).map(
        lambda pair: element(pair[0], "".join(pair[1]))
    ),
    max_leaves=10,
)
responses = st.lists(texts.map(lambda text: element("response", element("href", text))), max_size=3)
contents = st.lists(texts.map(lambda text: element("Contents", element("Key", text))), max_size=3)
encodings = st.sampled_from(["utf-8", "utf-7", "big5", "hex", "idna", "punycode", "utf-16", "x" * 3000])
xml_bodies = st.tuples(
    encodings.map(lambda name: f'<?xml version="1.0" encoding="{name}"?>') | st.just(""),
    trees
    | responses.map(lambda rows: element("multistatus", "".join(rows)))
    | st.tuples(contents, texts).map(
        lambda pair: element("ListBucketResult", "".join(pair[0]) + element("IsTruncated", pair[1]))
    ),
).map(lambda parts: "".join(parts).encode())


@st.composite
def damaged(draw: st.DrawFn, bodies: st.SearchStrategy[bytes]) -> bytes:
    """A body with some bytes put in, or cut off."""
    body = draw(bodies)
    at = draw(st.integers(0, len(body)))
    return body[:at] + draw(st.binary(max_size=4)) + body[draw(st.integers(at, at + 4)) :]


bodies = json_bodies | xml_bodies | damaged(json_bodies) | damaged(xml_bodies) | st.binary(max_size=200)
statuses = st.sampled_from(
    [
        "200 OK",
        "201 C",
        "204 N",
        "206 P",
        "207 M",
        "301 M",
        "307 T",
        "400 B",
        "403 F",
        "404 N",
        "405 N",
        "409 C",
        "412 P",
        "416 R",
        "429 T",
        "500 I",
        "503 S",
        "507 I",
        "999 X",
        "100 C",
    ]
)
headers = st.lists(
    st.sampled_from(
        [
            "Location: http://{here}{target}",
            "Location: http://a..b:1{target}",
            "Location: http://" + "a" * 64 + "{target}",
            "Location: //[::1",
            "Retry-After: 1",
            "Retry-After: Mon, 31 Dec 9999 23:59:59 -0000",
            "Retry-After: 1 Jan 1 1:1:1",
            "ETag: x",
            "Content-Range: bytes 7-106/107",
            "Content-Range: bytes */7",
            "Transfer-Encoding: chunked",
            "Content-Length: 5",
            "WWW-Authenticate: ä",
            "Content-Type: multipart/byteranges; boundary=x",
            "X: \x7f",
        ]
    ),
    max_size=2,
)
answers = (
    st.builds(whole, statuses, bodies)
    | st.builds(lambda status, body, more: whole(status, body, *more), statuses, bodies, headers)
    | st.builds(
        lambda status, more, body: f"HTTP/1.1 {status}\r\n".encode() + "\r\n".join([*more, "", ""]).encode() + body,
        statuses,
        headers,
        bodies,
    )
    | st.binary(max_size=100)
)
DEEP = whole("200 OK", b'{"x": ' + b"[" * 50_000)
ROOT = b'{"FileStatus": {"pathSuffix": "", "type": "DIRECTORY", "length": 0, "modificationTime": 0}}'


@pytest.mark.parametrize("kind", CLIENTS)
@given(said=st.lists(answers, min_size=1, max_size=4))
@example(said=[whole("200 OK", b'{"keys": ["\xff"], "end": true}')])
@example(said=[whole("200 OK", b'{"id": "\xff"}')])
@example(said=[whole("403 F", b'{"RemoteException": {"exception": "\xff"}}')])
@example(said=[whole("200 OK", ROOT.replace(b'""', b'"\xff"'))])
@example(said=[DEEP])
@example(said=[DEEP.replace(b"200 OK", b"403 NO")])
@example(said=[whole("200 OK", b'<?xml version="1.0" encoding="utf-7"?><a/>')])
@example(said=[whole("405 N", b""), whole("207 M", b'<?xml version="1.0" encoding="utf-7"?><a/>')])
@example(
    said=[whole("405 N", b""), whole("207 M", b"<multistatus><response><href>//[::1/x</href></response></multistatus>")]
)
@example(said=[whole("200 OK", ROOT), whole("307 T", b"", "Location: http://a..b:1{target}")])
@settings(max_examples=40)
def test_any_answer_to_anything(kind: str, said: list[bytes]) -> None:
    trio.run(ask_everything, kind, said)
