"""Whatever an S3 or WebDAV server says, the client ends with the truth or with one clear error that names the node."""

import re
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager, suppress
from functools import partial

import pytest
import trio

from shardfs.errors import Denied, NoSpace, NotFound, Unavailable
from shardfs.store.base import Store
from shardfs.store.dav import DavStore
from shardfs.store.http_answer import RETRY_AFTER_SECONDS_MAX
from shardfs.store.s3 import S3Store
from shardfs.store.s3_client import S3Site
from shardfs.store.s3_sign import Credentials
from shardfs.testing.samples import sample_chunk
from tests.store.evil import head, request_head

SAMPLE = sample_chunk(1)
SECRETS = ("s3cr3t-key", "s3cr3t-token")


class Held:
    """Credentials, and how often they were called expired."""

    def __init__(self) -> None:
        self.forgotten = 0

    async def current(self) -> Credentials:
        await trio.lowlevel.checkpoint()
        return Credentials("id", *SECRETS)

    def forget(self) -> None:
        self.forgotten += 1


Answer = Callable[[bytes], bytes]


@asynccontextmanager
async def server(answer: Answer) -> AsyncIterator[tuple[str, list[bytes]]]:
    """A server that says `answer(head of the request)` and closes; its authority, and the heads it got."""
    asked: list[bytes] = []

    async def handle(stream: trio.SocketStream) -> None:
        async with stream:
            with suppress(trio.BrokenResourceError, trio.ClosedResourceError):
                request = await request_head(stream)
                if request:
                    asked.append(request)
                    await stream.send_all(answer(request))
                    await stream.send_eof()
                    while await stream.receive_some():  # a body on its way; closing before would reset the answer
                        pass

    async with trio.open_nursery() as nursery:
        (listener,) = await nursery.start(partial(trio.serve_tcp, handle, 0, host="127.0.0.1"))
        yield f"127.0.0.1:{listener.socket.getsockname()[1]}", asked
        nursery.cancel_scope.cancel()


def s3_store(authority: str, held: Held | None = None) -> Store:
    return S3Store("far", S3Site(f"http://{authority}/bkt", "p/", "r"), held or Held())


def whole(status: str, body: bytes, *headers: str) -> bytes:
    return head(status, f"Content-Length: {len(body)}", "Connection: close", *headers) + body


def error(status: str, code: str, message: str = "m", *headers: str) -> bytes:
    body = f"<?xml version='1.0'?><Error><Code>{code}</Code><Message>{message}</Message></Error>".encode()
    return whole(status, body, *headers)


ERRORS = {
    # what the server says to anything: error, and what its message tells
    "denied": (error("403 F", "AccessDenied", "Access Denied."), Denied, "AccessDenied: Access Denied."),
    "unknown key": (error("403 F", "InvalidAccessKeyId"), Denied, "InvalidAccessKeyId"),
    "wrong secret": (error("403 F", "SignatureDoesNotMatch"), Denied, "SignatureDoesNotMatch"),
    "without a word": (whole("403 F", b""), Denied, "the credentials are refused"),
    "not signed in": (whole("401 U", b"<html>"), Denied, "the credentials are refused"),
    "clock": (
        error("403 F", "RequestTimeTooSkewed", "too far", "Date: Fri, 24 May 2013 00:00:00 GMT"),
        Denied,
        "the clocks differ too much, the server's says Fri, 24 May 2013 00:00:00 GMT",
    ),
    "expired": (error("400 B", "ExpiredToken"), Denied, "ExpiredToken"),
    "wrong region": (
        whole("400 B", b"<Error><Code>AuthorizationHeaderMalformed</Code><Region>eu-1</Region></Error>"),
        Denied,
        "the bucket is in region eu-1",
    ),
    "other region": (
        whole("301 M", b"<Error><Code>PermanentRedirect</Code></Error>", "x-amz-bucket-region: eu-2"),
        Unavailable,
        "the bucket is in region eu-2; redirects are not followed",
    ),
    "no bucket": (error("404 N", "NoSuchBucket"), Unavailable, "there is no such bucket: http://127.0.0.1"),
    "slow down": (error("503 S", "SlowDown"), Unavailable, "throttled: .*SlowDown"),
    "too many": (whole("429 T", b""), Unavailable, "throttled: .*HTTP 429"),
    "inside": (error("500 I", "InternalError", "try again"), Unavailable, "HTTP 500, InternalError: try again"),
    "full": (error("507 F", "InsufficientStorage"), NoSpace, "InsufficientStorage"),
    "quota": (error("403 F", "QuotaExceeded"), NoSpace, "QuotaExceeded"),
    "a page for people": (whole("500 I", b"<html><h1>Oops</h1></html>"), Unavailable, "HTTP 500"),
    "no XML": (whole("500 I", b"\x00\xff<<<"), Unavailable, "HTTP 500"),
    "entities": (
        whole("500 I", b'<!DOCTYPE a [<!ENTITY b "bbb">]><Error><Code>&b;</Code></Error>'),
        Unavailable,
        "HTTP 500",
    ),
    "endless depth": (whole("500 I", b"<a>" * 10_000), Unavailable, "HTTP 500"),
    "endless message": (error("500 I", "X", "y" * 50_000), Unavailable, "HTTP 500, X: y{160}$"),
    "endless body": (whole("500 I", b"z" * 100_000), Unavailable, "HTTP 500"),
    "control characters": (error("500 I", "X", "a\n\tb\x7f"), Unavailable, "X: a b\\?"),
}


@pytest.mark.parametrize("case", ERRORS)
async def test_s3_errors(case: str) -> None:
    answer, kind, message = ERRORS[case]
    async with server(lambda _: answer) as (authority, asked):
        store = s3_store(authority)
        calls = [
            store.stat,
            lambda: store.list("chunks/"),
            lambda: store.get(SAMPLE.key, memoryview(bytearray(10))),
            lambda: store.read(SAMPLE.key, limit=10),
        ]
        for call in calls:
            with pytest.raises(kind, match=message) as caught:
                await call()
            text = str(caught.value)
            assert text.startswith("node far: ")
            assert "\n" not in text
            assert len(text) < 500
            assert not any(secret in text for secret in SECRETS)
        assert len(asked) == len(calls), "an error is not retried here"
        await store.aclose()


@pytest.mark.parametrize("status", ["301 Moved", "302 Found", "307 Temporary", "308 Permanent"])
@pytest.mark.parametrize("method", ["get", "put", "stat", "size", "delete", "list"])
async def test_redirects_are_not_followed_and_the_token_goes_nowhere(status: str, method: str) -> None:
    async with server(lambda _: whole("200 OK", b"x" * 10)) as (other, stolen):
        location = f"Location: http://{other}/bkt/p/{SAMPLE.key}"
        async with server(lambda _: whole(status, b"", location)) as (authority, _):
            store = s3_store(authority)
            calls: dict[str, Callable[[], Awaitable[object]]] = {
                "get": lambda: store.get(SAMPLE.key, memoryview(bytearray(10))),
                "put": lambda: store.put(SAMPLE.key, [SAMPLE.data]),
                "stat": store.stat,
                "size": lambda: store.size(SAMPLE.key),
                "delete": lambda: store.delete(SAMPLE.key),
                "list": lambda: store.list("chunks/"),
            }
            with pytest.raises(Unavailable, match=f"node far: .*HTTP {status[:3]}; redirects are not followed"):
                await calls[method]()
            await store.aclose()
    assert stolen == []


@pytest.mark.parametrize(
    ("wish", "seconds"),
    [("2", 2.0), ("3600", RETRY_AFTER_SECONDS_MAX), ("Fri, 24 May 2113 00:00:00 GMT", RETRY_AFTER_SECONDS_MAX)],
)
@pytest.mark.parametrize("status", ["429 T", "503 S"])
@pytest.mark.parametrize("make", [s3_store, lambda authority: DavStore("far", f"dav://{authority}/d")])
async def test_retry_after_is_obeyed(make, status: str, wish: str, seconds: float) -> None:
    busy = True
    async with server(lambda _: whole(status, b"", f"Retry-After: {wish}") if busy else listing()) as (
        authority,
        asked,
    ):
        store = make(authority)
        began = trio.current_time()
        with pytest.raises(Unavailable, match=f"node far: .*HTTP {status[:3]}"):
            await store.stat()
        busy = False
        client = store._client._client if isinstance(store, S3Store) else store._client
        assert began + seconds <= client._quiet_until <= trio.current_time() + seconds
        client._quiet_until += 60  # however slow this machine is
        with pytest.raises(Unavailable, match=r"node far: .*throttled, it asked to be left alone for \d\d\.\d s more"):
            await store.stat()
        assert len(asked) == 1
        client._quiet_until = began  # as if that time had passed
        await store.stat()
        assert len(asked) == 2
        await store.aclose()


async def test_nonsense_in_retry_after_is_nothing() -> None:
    for text in ("soon", "-1", "1e9", "", "9" * 400):
        async with server(lambda _, text=text: whole("503 S", b"", f"Retry-After: {text}")) as (authority, asked):
            store = s3_store(authority)
            for _ in range(2):
                with pytest.raises(Unavailable, match=r"HTTP 503|left alone for [0-5]"):
                    await store.stat()
            assert len(asked) == (1 if text.isdigit() else 2)
            await store.aclose()


async def test_expired_credentials_are_looked_for_again() -> None:
    held = Held()
    async with server(lambda _: error("400 B", "ExpiredToken")) as (authority, _):
        store = s3_store(authority, held)
        with pytest.raises(Denied):
            await store.stat()
    assert held.forgotten == 1


def listing(*keys: str, more: str = "false", prefix: str = "p/") -> bytes:
    rows = "".join(f"<Contents><Key>{prefix}{key}</Key></Contents>" for key in keys)
    xml = f"<ListBucketResult xmlns='urn:x'><IsTruncated>{more}</IsTruncated>{rows}</ListBucketResult>"
    return whole("200 OK", xml.encode())


KEYS = sorted(sample_chunk(seed).key for seed in range(4))
WRONG_LISTINGS = {
    "not sorted": (listing(*reversed(KEYS)), "not sorted"),
    "twice": (listing(KEYS[0], KEYS[0]), "not sorted"),
    "another folder": (listing(*KEYS, prefix="q/"), "other names than were asked for"),
    "another document": (whole("200 OK", b"<ListAllMyBucketsResult/>"), "not a listing"),
    "no XML": (whole("200 OK", b"hello"), "not valid XML"),
    "half": (whole("200 OK", b"<ListBucketResult><Contents>"), "not valid XML"),
    "without end": (listing(more="true"), "empty page before the end"),
    "entities": (whole("200 OK", b'<!DOCTYPE a [<!ENTITY b "b">]><ListBucketResult/>'), "document type"),
}


@pytest.mark.parametrize("case", WRONG_LISTINGS)
async def test_wrong_listings(case: str) -> None:
    answer, message = WRONG_LISTINGS[case]
    async with server(lambda _: answer) as (authority, _):
        store = s3_store(authority)
        with pytest.raises(Unavailable, match=f"node far: list chunks/.*{message}"):
            await store.list("chunks/")
        await store.aclose()


async def test_a_listing_passes_over_the_objects_of_others() -> None:
    async with server(lambda _: listing("chunks/README", KEYS[0], "chunks/zz/x%2Fy", KEYS[1])) as (authority, _):
        store = s3_store(authority)
        assert await store.list("chunks/") == KEYS[:2]
        await store.aclose()


@pytest.mark.parametrize("make", [s3_store, lambda authority: DavStore("far", f"dav://{authority}/d")])
async def test_a_put_that_arrives_short_is_found_out(make) -> None:
    there = False

    def answer(request: bytes) -> bytes:
        nonlocal there
        if request.startswith(b"PUT"):
            there = True
            return whole("201 Created", b"")
        if request.startswith(b"HEAD"):
            return head("200 OK", "Content-Length: 5", "Connection: close") if there else whole("404 N", b"")
        return listing()

    async with server(answer) as (authority, _):
        store = make(authority)
        with pytest.raises(Unavailable, match=f"node far: PUT .*of {len(SAMPLE.data)} bytes 5 are there"):
            await store.put(SAMPLE.key, [SAMPLE.data])
        await store.aclose()


async def test_head_404_of_a_bucket_that_is_not_there_is_not_a_missing_object() -> None:
    def answer(request: bytes) -> bytes:
        return whole("404 N", b"") if request.startswith(b"HEAD") else error("404 N", "NoSuchBucket")

    async with server(answer) as (authority, _):
        store = s3_store(authority)
        with pytest.raises(Unavailable, match="there is no such bucket"):
            await store.size(SAMPLE.key)
        await store.aclose()


async def test_a_missing_object() -> None:
    async with server(lambda _: error("404 N", "NoSuchKey")) as (authority, _):
        store = s3_store(authority)
        with pytest.raises(NotFound, match="node far has no chunks/"):
            await store.read(SAMPLE.key, limit=10)
        await store.aclose()


def multistatus(*rows: str) -> bytes:
    return whole("207 M", f"<D:multistatus xmlns:D='DAV:'>{''.join(rows)}</D:multistatus>".encode())


def row(href: str, *, folder: bool = False, status: str = "HTTP/1.1 200 OK") -> str:
    kind = "<D:collection/>" if folder else ""
    return (
        f"<D:response><D:href>{href}</D:href><D:propstat><D:prop><D:resourcetype>{kind}</D:resourcetype></D:prop>"
        f"<D:status>{status}</D:status></D:propstat></D:response>"
    )


DAV_LISTINGS = {
    # what PROPFIND brings for the folder of a chunk: keys, or the message of Unavailable
    "paths": (multistatus(row("/d/{folder}/", folder=True), row("/d/{key}")), None),
    "urls": (multistatus(row("http://h/d/{folder}/", folder=True), row("http://h/d/{key}")), None),
    "self without a slash": (multistatus(row("/d/{folder}"), row("/d/{key}")), None),
    "others' files": (multistatus(row("/d/{folder}/x"), row("/d/{key}"), row("/d/{folder}/y/", folder=True)), None),
    "an entry that failed": (multistatus(row("/d/{key}", status="HTTP/1.1 500 No")), "an entry with the status"),
    "another folder": (multistatus(row("/e/x")), "a listing of another folder"),
    "no multi-status": (whole("207 M", b"<a/>"), "not a multi-status"),
    "no XML": (whole("207 M", b"hello"), "not valid XML"),
    "bomb": (whole("207 M", b'<!DOCTYPE a [<!ENTITY b "b">]><a/>'), "document type"),
    "refused": (whole("405 N", b""), "the server must list folders: PROPFIND, or for nginx"),
}


@pytest.mark.parametrize("case", DAV_LISTINGS)
async def test_dav_listings(case: str) -> None:
    said, message = DAV_LISTINGS[case]
    folder = SAMPLE.key.rpartition("/")[0]
    body = said.partition(b"\r\n\r\n")[2].replace(b"{folder}", folder.encode()).replace(b"{key}", SAMPLE.key.encode())

    def answer(request: bytes) -> bytes:
        if request.startswith(b"PROPFIND"):
            return whole(said[9:].partition(b"\r\n")[0].decode(), body)
        return whole("200 OK", b"<html>an index for people</html>")

    async with server(answer) as (authority, _):
        store = DavStore("far", f"dav://{authority}/d")
        if message is None:
            assert await store.list(f"{folder}/") == [SAMPLE.key]
        else:
            with pytest.raises(Unavailable, match=re.escape("node far: list ") + f".*{message}"):
                await store.list(f"{folder}/")
        await store.aclose()


# ------------------------------------------------------------------------------------- what a WebDAV path leads to


async def test_a_webdav_path_that_is_a_file() -> None:
    """nginx says 404 to the path with a slash, as it does where there is nothing."""
    beside: dict[str, bytes] = {
        "a file": head("200 OK", "Content-Length: 5", "Connection: close"),
        "nothing": whole("404 N", b""),
        "a folder": whole("301 M", b"", "Location: /d/e%20f/"),
    }
    for case, said in beside.items():

        def answer(request: bytes, said: bytes = said) -> bytes:
            return said if request.startswith(b"HEAD /d/e%20f HTTP") else whole("404 N", b"")

        async with server(answer) as (authority, _):
            store = DavStore("far", f"dav://{authority}/d/e%20f")
            if case == "a file":
                with pytest.raises(Unavailable, match=f"node far: dav://{authority}/d/e%20f is a file and no folder"):
                    await store.stat()
            else:
                await store.stat()
            await store.aclose()


async def test_a_webdav_server_that_cannot_be_reached_is_named() -> None:
    store = DavStore("far", "dav://127.0.0.1:1/d/")
    with pytest.raises(
        Unavailable, match=r"^node far: HEAD dav://127\.0\.0\.1:1/d: cannot connect: Connection refused"
    ):
        await store.stat()
    await store.aclose()


async def test_a_multi_status_that_nobody_asked_for_is_not_shown() -> None:
    async with server(lambda _: multistatus(row("/d/x"))) as (authority, _):
        store = DavStore("far", f"dav://{authority}/d")
        for call in (lambda: store.list("chunks/"), lambda: store.read(SAMPLE.key, limit=10)):
            with pytest.raises(Unavailable, match=r"node far: .*: HTTP 207, a multi-status that was not asked for$"):
                await call()
        await store.aclose()
