"""How many requests a small object costs: as few as are enough, whatever the server makes of `If-None-Match`."""

import hashlib
from collections.abc import Callable

import pytest

from shardfs.errors import Unavailable
from shardfs.store.base import Store
from shardfs.store.sending import SMALL_BYTES_MAX
from shardfs.testing.samples import sample_chunk
from tests.engines.test_evil_servers import error, listing, s3_store, server, whole
from tests.store.evil import head

SAMPLES = {sample.key: sample for sample in map(sample_chunk, range(1, 5))}


class Bucket:
    """Answers as an S3 server does; told what to make of conditions, and what an ETag is."""

    def __init__(
        self, *, keeps: bool, tag: Callable[[bytes], str] = lambda data: hashlib.md5(data).hexdigest()
    ) -> None:
        self.keeps = keeps
        self.tag = tag
        self.held: set[str] = set()
        self.asked: list[str] = []
        self.broken = False

    def __call__(self, request: bytes) -> bytes:
        method, target, _ = request.split(b" ", 2)
        key = target.decode().removeprefix("/bkt/p/")
        if key not in SAMPLES:
            return listing()
        self.asked.append(method.decode())
        data = SAMPLES[key].data
        if method == b"HEAD":
            there = key in self.held
            return head("200 OK", f"Content-Length: {len(data)}", "Connection: close") if there else whole("404 N", b"")
        assert b"if-none-match: *" in request.lower()
        if key in self.held and self.broken:
            return error("500 I", "InternalError")
        if key in self.held and self.keeps:
            return error("412 P", "PreconditionFailed")
        self.held.add(key)
        return whole("200 OK", b"", f'ETag: "{self.tag(data)}"')

    async def put(self, store: Store, number: int) -> tuple[bool, list[str]]:
        """What putting a sample says, and what it asked for."""
        self.asked.clear()
        sample = list(SAMPLES.values())[number]
        assert len(sample.data) <= SMALL_BYTES_MAX
        created = await store.put(sample.key, [sample.data])
        return created, list(self.asked)


async def test_a_server_that_keeps_the_condition_is_asked_once_for_all() -> None:
    bucket = Bucket(keeps=True)
    async with server(bucket) as (authority, _):
        store = s3_store(authority)
        assert await bucket.put(store, 0) == (True, ["HEAD", "PUT", "PUT"])
        assert await bucket.put(store, 1) == (True, ["PUT"])
        assert await bucket.put(store, 1) == (False, ["PUT"])
        await store.aclose()


async def test_a_server_that_ignores_it_is_asked_before_each() -> None:
    """Or a pointer would take the place of the bytes that stand under the same name."""
    bucket = Bucket(keeps=False)
    async with server(bucket) as (authority, _):
        store = s3_store(authority)
        assert await bucket.put(store, 0) == (True, ["HEAD", "PUT", "PUT"])
        assert await bucket.put(store, 1) == (True, ["HEAD", "PUT"])
        assert await bucket.put(store, 1) == (False, ["HEAD"])
        await store.aclose()


async def test_nothing_is_learned_from_an_object_that_was_there() -> None:
    bucket = Bucket(keeps=False)
    bucket.held.add(next(iter(SAMPLES)))
    async with server(bucket) as (authority, _):
        store = s3_store(authority)
        assert await bucket.put(store, 0) == (False, ["HEAD"])
        assert await bucket.put(store, 1) == (True, ["HEAD", "PUT", "PUT"])
        await store.aclose()


async def test_what_breaks_while_finding_out_is_no_failure_of_the_put() -> None:
    bucket = Bucket(keeps=True)
    async with server(bucket) as (authority, _):
        store = s3_store(authority)
        bucket.broken = True
        assert await bucket.put(store, 0) == (True, ["HEAD", "PUT", "PUT"])
        bucket.broken = False
        assert await bucket.put(store, 1) == (True, ["HEAD", "PUT", "PUT"])
        assert await bucket.put(store, 2) == (True, ["PUT"])
        await store.aclose()


@pytest.mark.parametrize("tag", ["0" * 32, "", "d41d8cd98f00b204e9800998ecf8427e-2"])
async def test_an_etag_that_is_no_md5_of_the_body_proves_nothing(tag: str) -> None:
    bucket = Bucket(keeps=True, tag=lambda _: tag)
    async with server(bucket) as (authority, _):
        store = s3_store(authority)
        assert await bucket.put(store, 0) == (True, ["HEAD", "PUT", "HEAD", "PUT"])
        assert await bucket.put(store, 1) == (True, ["PUT", "HEAD"])
        await store.aclose()


async def test_a_put_that_fails_leaves_the_next_one_to_find_out() -> None:
    bucket = Bucket(keeps=True)
    failing = [error("500 I", "InternalError")]

    def answer(request: bytes) -> bytes:
        return failing.pop() if failing and request.startswith(b"PUT") else bucket(request)

    async with server(answer) as (authority, _):
        store = s3_store(authority)
        with pytest.raises(Unavailable, match="InternalError"):
            await bucket.put(store, 0)
        assert await bucket.put(store, 0) == (True, ["HEAD", "PUT", "PUT"])
        await store.aclose()
