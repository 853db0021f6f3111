"""What servers may say when they are asked about objects of others: the truth comes out, or one clear error."""

import json
from collections.abc import Callable, Iterator
from urllib.parse import quote

import pytest

from shardfs.errors import Denied, InvalidName, NotFound, ShardfsError, Unavailable, UsageError
from shardfs.store.base import ExternalStat
from shardfs.store.dav import DavStore
from shardfs.store.s3 import S3Store
from shardfs.store.s3_client import S3Site
from tests.engines.test_evil_servers import Held, error, server, whole
from tests.store.evil import head


def s3_store(authority: str) -> S3Store:
    return S3Store("far", S3Site(f"http://{authority}/bkt", "shardfs/", "r"), Held())


def dav_store(authority: str) -> DavStore:
    return DavStore("far", f"dav://{authority}/shardfs")


def page(*names: str, more: bool = False, encoded: bool = True) -> bytes:
    keys = "".join(f"<Contents><Key>{quote(name) if encoded else name}</Key></Contents>" for name in names)
    coding = "<EncodingType>url</EncodingType>" if encoded else ""
    text = f"<ListBucketResult>{coding}<IsTruncated>{str(more).lower()}</IsTruncated>{keys}</ListBucketResult>"
    return whole("200 OK", text.encode())


async def test_s3_pages_are_put_together() -> None:
    pages: Iterator[bytes] = iter([page("m/", "m/a", "m/b/", more=True), page("m/b/é +&.bin", more=True), page("m/c")])
    async with server(lambda _: next(pages)) as (authority, asked):
        store = s3_store(authority)
        assert await store.list_external("m") == ["m/a", "m/b/é +&.bin", "m/c"]
        await store.aclose()
    assert [request.split(b" ")[1].count(b"start-after") for request in asked] == [0, 1, 1]
    assert b"prefix=m%2F" in asked[0], "of the bucket, not of the node's prefix"
    assert b"start-after=m%2Fb%2F%C3%A9%20%2B%26.bin" in asked[2]


S3_LISTINGS = {
    "nothing": (page(), NotFound, "node far has no m"),
    "only marks of folders": (page("m/", "m/a/"), NotFound, "node far has no m"),
    "of another folder": (page("m/a", "n/b"), Unavailable, "other names than were asked for"),
    "not sorted": (page("m/b", "m/a"), Unavailable, "not sorted"),
    "twice the same": (page("m/a", "m/a"), Unavailable, "not sorted"),
    "no end": (page(more=True), Unavailable, "empty page before the end"),
    "a page that comes again": (page("m/a", more=True), Unavailable, "not sorted"),
    "out of the folder": (page("m/../../x"), InvalidName, "node far: file name .* part '..'"),
    "an empty part": (page("m//x"), InvalidName, "empty part"),
    "a control character": (page("m/a\nb"), InvalidName, "not allowed"),
    "too many": (page("m/a", "m/b", "m/c"), UsageError, "m holds more than 2 files"),
    "denied": (error("403 F", "AccessDenied"), Denied, "AccessDenied"),
    "a web page": (whole("200 OK", b"<html>"), Unavailable, "node far: list m"),
}


@pytest.mark.parametrize("case", S3_LISTINGS)
async def test_s3_listings(case: str) -> None:
    answer, kind, message = S3_LISTINGS[case]
    async with server(lambda _: answer) as (authority, _):
        store = s3_store(authority)
        with pytest.raises(kind, match=message):
            await store.list_external("m", limit=2)
        await store.aclose()


HEADS: dict[str, tuple[bytes, ExternalStat | type[ShardfsError]]] = {
    "an object": (head("200 OK", "Content-Length: 7", 'ETag: "x"', "Connection: close"), ExternalStat(7, '"x"')),
    "no ETag": (
        head("200 OK", "Content-Length: 7", "Last-Modified: Fri, 24 May 2013 00:00:00 GMT", "Connection: close"),
        ExternalStat(7, "Fri, 24 May 2013 00:00:00 GMT"),
    ),
    "no tag at all": (head("200 OK", "Content-Length: 7", "Connection: close"), ExternalStat(7, "")),
    "denied": (head("403 F", "Content-Length: 0", "Connection: close"), Denied),
    "broken": (head("500 I", "Content-Length: 0", "Connection: close"), Unavailable),
}


@pytest.mark.parametrize("make", [s3_store, dav_store], ids=["s3", "dav"])
@pytest.mark.parametrize("case", HEADS)
async def test_heads(case: str, make: Callable[[str], S3Store | DavStore]) -> None:
    answer, meant = HEADS[case]
    async with server(lambda _: answer) as (authority, asked):
        store = make(authority)
        if isinstance(meant, ExternalStat):
            assert await store.external_stat("m/é &%.bin") == meant
        else:
            with pytest.raises(meant, match="node far"):
                await store.external_stat("m/é &%.bin")
        await store.aclose()
    root = b"/bkt" if make is s3_store else b""
    assert asked[0].startswith(b"HEAD " + root + b"/m/%C3%A9%20%26%25.bin HTTP/1.1\r\n")


@pytest.mark.parametrize("status", ["301 M", "302 F", "307 T", "308 P"])
async def test_a_folder_of_a_web_server_is_no_object_and_its_redirect_is_not_followed(status: str) -> None:
    answer = head(status, "Location: http://127.0.0.1:1/m/", "Content-Length: 0", "Connection: close")
    async with server(lambda _: answer) as (authority, asked):
        store = dav_store(authority)
        with pytest.raises(NotFound):
            await store.external_stat("m")
        with pytest.raises(Unavailable, match="redirects are not followed"):
            await store.get_external("m", memoryview(bytearray(5)), offset=0)
        await store.aclose()
    assert len(asked) == 2


def index(*rows: tuple[str, str]) -> bytes:
    return whole("200 OK", json.dumps([{"name": name, "type": kind} for name, kind in rows]).encode())


DAV_LISTINGS = {
    "nothing": (index(), NotFound, "node far has no m"),
    "out of the folder": (index(("..", "directory")), InvalidName, "part '..'"),
    "far out": (index(("../../x", "file")), InvalidName, "part '..'"),
    "no name": (index(("", "file")), InvalidName, "empty part"),
    "no end": (index(("a", "directory")), InvalidName, "nested deeper than 64 folders"),
    "too many": (index(*((f"f{i}", "file") for i in range(201))), UsageError, "m holds more than 200 files"),
    "too many folders": (index(*((f"d{i}", "directory") for i in range(99))), UsageError, "more than 200"),
    "denied": (head("403 F", "Content-Length: 0", "Connection: close"), Denied, "node far"),
}


@pytest.mark.parametrize("case", DAV_LISTINGS)
async def test_dav_listings(case: str) -> None:
    answer, kind, message = DAV_LISTINGS[case]
    async with server(lambda _: answer) as (authority, asked):
        store = dav_store(authority)
        with pytest.raises(kind, match=message):
            await store.list_external("m", limit=200)
        await store.aclose()
    assert asked[0].startswith(b"GET /m/ HTTP/1.1\r\n"), "of the server, not of the node's folder"
    assert len(asked) <= 70


async def test_an_index_page_of_others_says_nothing_of_the_node() -> None:
    """Where it stands PROPFIND is asked, and the node's own folders are still listed by nginx's JSON."""

    def answer(request: bytes) -> bytes:
        if request.startswith(b"PROPFIND"):
            text = b'<multistatus xmlns="DAV:"><response><href>/m/a.bin</href></response></multistatus>'
            return whole("207 M", text)
        return whole("200 OK", b"<html>" if request.startswith(b"GET /m/ ") else b"[]")

    async with server(answer) as (authority, asked):
        store = dav_store(authority)
        assert await store.list_external("m") == ["m/a.bin"]
        assert await store.list("manifests/") == []
        await store.aclose()
    assert [request.split(b" ")[0] for request in asked] == [b"GET", b"PROPFIND", b"GET"]
