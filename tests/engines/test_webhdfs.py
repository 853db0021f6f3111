"""WebHDFS of a real Hadoop: what is refused, what a dying or frozen server costs, and files that others wrote."""

import hashlib
import os
import pwd
import random
import re
import signal
import socket
import time
from collections.abc import Awaitable, Callable
from pathlib import Path

import pytest
import trio

from shardfs.core.cluster import Node
from shardfs.errors import Denied, NotFound, Unavailable, UsageError
from shardfs.store.base import ExternalPath, ExternalSource
from shardfs.store.hdfs_folder import TEMP_SECONDS_MAX
from shardfs.store.webhdfs import WebHdfsStore
from shardfs.testing.samples import sample_chunk, sample_ref
from shardfs.testing.store_exam import fetch
from shardfs.wiring.engines import open_store
from tests.engines.kit import Engine, Mixed
from tests.engines.test_refusals import refused

pytestmark = pytest.mark.engines

MIB = 1024 * 1024
SAMPLE = sample_chunk(1)
CHANCE = random.Random(7)
FILES = {
    "model.safetensors": CHANCE.randbytes(5 * MIB + 17),
    "deep/er/a b+&=;#?~'.json": CHANCE.randbytes(1000),
    "tief/ü 日本 😀.json": CHANCE.randbytes(1000),
    "deep/empty": b"",
    "zeros": bytes(3 * MIB) + b"x",
}


def webhdfs_store(webhdfs: Engine, name: str) -> WebHdfsStore:
    store = webhdfs.store(name)
    assert isinstance(store, WebHdfsStore)
    return store


async def write(store: WebHdfsStore, path: str, data: bytes) -> None:
    """A file as somebody else would write it, over what is there."""
    async with store._client.data("write", "PUT", path, "CREATE", {"overwrite": "true"}, [data]):
        pass


async def names_in(store: WebHdfsStore, path: str) -> list[str]:
    return [row.path_suffix for row in await store._folder.rows("list", path)]


# -------------------------------------------------------------------------------------------------------- refusals


async def test_servers_that_are_none(webhdfs: Engine, nginx: Engine) -> None:
    with socket.socket() as probe:
        probe.bind(("127.0.0.2", 0))  # connections begin at 127.0.0.1, so none can take the port meanwhile
        closed = probe.getsockname()[1]
    rpc = webhdfs.about["namenode"].replace("hdfs", "webhdfs")
    other = nginx.url.replace("dav", "webhdfs").rpartition("/")[0]
    for url in (rpc, other):
        hint = r"HTTP 404.*\(is WebHDFS there\? the port must be .* 9870, or 50070 before Hadoop 3\)"
        await refused(open_store(Node("far", f"{url}/p")), Unavailable, hint)
    await refused(open_store(Node("far", f"webhdfs://127.0.0.2:{closed}/p")), Unavailable, "Connection refused")
    lost = "cannot connect: Name or service not known"
    await refused(open_store(Node("far", "webhdfs://no-such-host.invalid/p")), Unavailable, lost)


async def test_a_folder_whose_parent_does_not_exist(webhdfs: Engine) -> None:
    store = open_store(Node("far", webhdfs.url.replace("/shardfs", "/no/such/p")))
    await refused(store, Unavailable, "folder /no/such does not exist in webhdfs://127.0.0.1:[0-9]+$")


async def test_a_user_who_may_not(webhdfs: Engine, fresh: str, monkeypatch) -> None:
    monkeypatch.setenv("HADOOP_USER_NAME", "stranger")
    await refused(webhdfs.store(fresh, "far"), Denied, "Permission denied: user=stranger, access=WRITE")


async def test_a_folder_that_was_closed(webhdfs: Engine, fresh: str, monkeypatch) -> None:
    owner = webhdfs_store(webhdfs, fresh)
    await owner.put(SAMPLE.key, [SAMPLE.data])
    folder = SAMPLE.key.rpartition("/")[0]
    await owner._client.ask("close", "PUT", f"/{fresh}/{folder}", "SETPERMISSION", {"permission": "700"})
    monkeypatch.setenv("HADOOP_USER_NAME", "stranger")
    store = webhdfs_store(webhdfs, fresh)
    for call in (
        lambda: store.get(SAMPLE.key, memoryview(bytearray(10))),
        lambda: store.size(SAMPLE.key),
        lambda: store.list("chunks/"),
        lambda: store.delete(SAMPLE.key),
        lambda: store.put(sample_ref("m", 1).key, [sample_ref("m", 1).data]),
    ):
        with pytest.raises(Denied, match=r"node a: .*AccessControlException: Permission denied: user=stranger"):
            await call()
    await store.aclose()
    await owner.aclose()


@pytest.mark.parametrize("user", ["", "ada", "svc-1.x$"])
async def test_whose_name_is_told(webhdfs: Engine, fresh: str, monkeypatch, user: str) -> None:
    root = webhdfs_store(webhdfs, fresh)
    await root.stat()
    await root._client.ask("open", "PUT", f"/{fresh}", "SETPERMISSION", {"permission": "777"})
    monkeypatch.setenv("HADOOP_USER_NAME", user)
    monkeypatch.setenv("LOGNAME", "somebody-else")
    store = webhdfs_store(webhdfs, f"{fresh}/x")
    await store.stat()
    said = await root._client.ask("ask", "GET", f"/{fresh}/x", "GETFILESTATUS")
    assert f'"owner":"{user or pwd.getpwuid(os.getuid()).pw_name}"' in said.decode()
    await store.aclose()
    await root.aclose()


# ------------------------------------------------------------------------------------------------- sick servers


async def test_frozen_servers_hold_nobody_up(webhdfs: Engine, fresh: str) -> None:
    """Every caller is free at its deadline, more of them than there are connections, and all is well afterwards."""
    store = webhdfs_store(webhdfs, fresh)
    await store.put(SAMPLE.key, [SAMPLE.data])
    for frozen in (["namenode"], ["datanode1", "datanode2"]):
        for name in frozen:
            webhdfs.send(name, signal.SIGSTOP)
        free = 0

        async def ask() -> None:
            nonlocal free
            with trio.move_on_after(1) as scope:
                await store.get(SAMPLE.key, memoryview(bytearray(10)))
            free += scope.cancelled_caught

        try:
            with trio.fail_after(60):
                async with trio.open_nursery() as nursery:
                    for _ in range(40):
                        nursery.start_soon(ask)
        finally:
            for name in frozen:
                webhdfs.send(name, signal.SIGCONT)
        assert free == 40, "the fault hit"
        assert await until_it_works(lambda: fetch(store, SAMPLE), "DataNode 127") == SAMPLE.data
    await store.aclose()


def until_dead(engine: Engine, *processes: str) -> None:
    """At once: after 14 s the NameNode calls a DataNode dead, and no longer sends anybody there."""
    while not all(map(engine.gone, processes)):
        pass


async def until_it_works(call: Callable[[], Awaitable[object]], message: str) -> object:
    """What `call` returns at last; every failure on the way is Unavailable with that message."""
    with trio.fail_after(60):
        while True:
            try:
                return await call()
            except Unavailable as error:
                if not re.search(message, str(error)):
                    raise
                await trio.sleep(0.02)


async def test_datanodes_die_in_the_middle_of_a_body(webhdfs: Engine, fresh: str) -> None:
    store = webhdfs_store(webhdfs, fresh)
    big = CHANCE.randbytes(48 * MIB)  # more than sockets hold when the first bytes arrive
    await write(store, f"/others-{fresh}", big)
    into = memoryview(bytearray(len(big)))
    killed = False

    def arrived(_: int) -> None:
        nonlocal killed
        if not killed:
            killed = True
            webhdfs.kill("datanode1")
            webhdfs.kill("datanode2")

    try:
        with pytest.raises(
            Unavailable, match=r"node a: get others-\S+: DataNode 127\.0\.0\.1:\d+: .* after \d+ of 50331648 bytes"
        ):
            await store.get_external(f"others-{fresh}", into, offset=0, arrived=arrived)
        until_dead(webhdfs, "datanode1", "datanode2")
        dead = r"node a: (get|put) \S+: DataNode 127\.0\.0\.1:\d+: cannot connect: Connection refused$"
        with pytest.raises(Unavailable, match=dead):
            await store.get_external(f"others-{fresh}", into, offset=0)
        with pytest.raises(Unavailable, match=dead):
            await store.put(SAMPLE.key, [SAMPLE.data])
        await store.stat()
    finally:
        assert webhdfs.start() == ""
    count = await until_it_works(lambda: store.get_external(f"others-{fresh}", into, offset=0), "DataNode 127")
    assert count == len(big)
    assert into == big
    assert await store.put(SAMPLE.key, [SAMPLE.data])
    await store.aclose()


async def test_one_datanode_of_two_is_dead(webhdfs: Engine, fresh: str) -> None:
    """A call may be sent to the dead one, and says so; the next one may be sent to the other."""
    store = webhdfs_store(webhdfs, fresh)
    await store.put(SAMPLE.key, [SAMPLE.data])
    webhdfs.kill("datanode1")
    until_dead(webhdfs, "datanode1")
    try:
        for _ in range(10):
            dead = r"node a: get \S+: DataNode 127\.0\.0\.1:\d+: .*(refused|reset by peer|closed)"
            assert await until_it_works(lambda: fetch(store, SAMPLE), dead) == SAMPLE.data
    finally:
        assert webhdfs.start() == ""
    await store.aclose()


# ------------------------------------------------------------------------------------------------------- writing


async def test_it_is_the_same_folder_as_by_rpc(webhdfs: Engine, hdfs: Engine, fresh: str) -> None:
    over_http, by_rpc = webhdfs.store(fresh), hdfs.store(fresh)
    other = sample_chunk(2)
    assert await over_http.put(SAMPLE.key, [SAMPLE.data])
    assert await by_rpc.put(other.key, [other.data])
    assert await by_rpc.put(SAMPLE.key, [SAMPLE.data]) is False
    assert await over_http.put(other.key, [other.data]) is False
    assert await fetch(by_rpc, SAMPLE) == SAMPLE.data
    assert await fetch(over_http, other) == other.data
    assert await by_rpc.list("chunks/") == await over_http.list("chunks/") == sorted([SAMPLE.key, other.key])
    for store in (over_http, by_rpc):
        assert isinstance(store, ExternalSource)
    place = f"{fresh}/{SAMPLE.key}"
    assert await over_http.external_stat(place) == await by_rpc.external_stat(place), "pointers are of the same kind"
    await over_http.aclose()
    await by_rpc.aclose()


async def test_two_processes_race(webhdfs: Engine, fresh: str) -> None:
    """Stores that do not take turns with each other: exactly one is told that it created the object."""
    stores = [webhdfs_store(webhdfs, fresh) for _ in range(6)]
    for seed in range(4):
        sample = sample_chunk(seed, 300_000)
        results: list[bool] = []

        async def put(store: WebHdfsStore, sample=sample, results=results) -> None:
            results.append(await store.put(sample.key, [sample.data]))

        async with trio.open_nursery() as nursery:
            for store in stores:
                nursery.start_soon(put, store)
        assert sorted(results) == [False] * 5 + [True]
        assert await fetch(stores[0], sample) == sample.data
    assert await names_in(stores[0], f"/{fresh}/tmp") == []
    for store in stores:
        await store.aclose()


async def test_a_folder_in_the_way_is_not_filled(webhdfs: Engine, fresh: str) -> None:
    store = webhdfs_store(webhdfs, fresh)
    await store._folder._make_folder("make", f"/{fresh}/{SAMPLE.key}")
    with pytest.raises(Unavailable, match=r"node a: put \S+: IOException: Source .* must both be directories"):
        await store.put(SAMPLE.key, [SAMPLE.data])
    assert await names_in(store, f"/{fresh}/{SAMPLE.key}") == []
    assert await store.size(SAMPLE.key) is None
    await store.aclose()


async def test_what_killed_puts_left_is_swept_up_after_a_day(webhdfs: Engine, fresh: str) -> None:
    store = webhdfs_store(webhdfs, fresh)
    now = time.time()
    ages = {"0" * 32: TEMP_SECONDS_MAX + 60, "1" * 32: TEMP_SECONDS_MAX - 60, "notes.txt": TEMP_SECONDS_MAX + 60}
    for name, age in ages.items():
        path, when = f"/{fresh}/tmp/{name}", {"modificationtime": str(int((now - age) * 1000))}
        await write(store, path, b"x")
        await store._client.ask("age", "PUT", path, "SETTIMES", when)
    await store.put(SAMPLE.key, [SAMPLE.data])
    assert sorted(await names_in(store, f"/{fresh}/tmp")) == ["1" * 32, "notes.txt"]
    await store.aclose()


# --------------------------------------------------------------------------------------------- what others wrote


async def test_what_others_wrote_is_read_where_it_lies(webhdfs: Engine, fresh: str) -> None:
    store = webhdfs_store(webhdfs, fresh)
    folder = f"others-{fresh}"
    for name, data in FILES.items():
        await write(store, f"/{folder}/{name}", data)
    assert sorted(await store.list_external(folder)) == sorted(f"{folder}/{name}" for name in FILES)
    for name, data in FILES.items():
        place = f"{folder}/{name}"
        assert (await store.external_stat(place)).size == len(data)
        into = memoryview(bytearray(len(data) + 5))
        assert await store.get_external(place, into, offset=0) == len(data)
        assert into[: len(data)] == data
    place, big = f"{folder}/model.safetensors", FILES["model.safetensors"]
    for offset, length in [(0, 10), (MIB - 3, 2 * MIB), (len(big) - 5, 100), (len(big), 10), (len(big) + 1, 10)]:
        arrived: list[int] = []
        into = memoryview(bytearray(length))
        count = await store.get_external(place, into, offset=offset, arrived=arrived.append)
        assert into[:count] == big[offset : offset + length]
        assert count == len(big[offset : offset + length])
        assert arrived[-1:] == ([count] if count else [])
    assert await store.get_external(f"{folder}/deep/empty", into, offset=3) == 0
    before = await store.external_stat(place)
    await write(store, f"/{place}", big[:-1])
    assert await store.external_stat(place) != before
    for absent in (f"{folder}/absent", f"{folder}/deep", "absent/absent", f"{place}/x"):
        with pytest.raises(NotFound, match=f"node a has no {absent}"):
            await store.external_stat(absent)
    for nothing in (f"{folder}/absent", place):
        with pytest.raises(NotFound):
            await store.list_external(nothing)
    with pytest.raises(NotFound):
        await store.get_external(f"{folder}/absent", memoryview(bytearray(5)), offset=0)
    with pytest.raises(NotFound):
        await store.get_external(f"{folder}/deep", memoryview(bytearray(5)), offset=0)
    await store.aclose()


@pytest.mark.parametrize(("name", "opened"), [("a%41", "aA"), ("+Ł", "+A")])
async def test_names_that_datanodes_take_for_others(webhdfs: Engine, fresh: str, name: str, opened: str) -> None:
    """If the first half fails, this Hadoop has been cured: docs/adr/0016-webhdfs.md."""
    store = webhdfs_store(webhdfs, fresh)
    folder = f"others-{fresh}"
    await write(store, f"/{folder}/{opened}", b"wrong")
    await write(store, f"/{folder}/b", b"right")
    await store._client.ask("move", "PUT", f"/{folder}/b", "RENAME", {"destination": f"/{folder}/{name}"})
    asked = {"offset": "0", "length": "5"}
    async with store._client.data("get", "GET", f"/{folder}/{name}", "OPEN", asked) as (connection, answer):
        assert await connection.body(answer, 10) == b"wrong"
    for call in (
        lambda: store.get_external(f"{folder}/{name}", memoryview(bytearray(5)), offset=0),
        lambda: store.external_stat(f"{folder}/{name}"),
        lambda: store.list_external(folder),
    ):
        with pytest.raises(UsageError, match=r"node a: WebHDFS servers disagree about the name others-.*; use hdfs://"):
            await call()
    await store.aclose()


def test_a_model_is_imported_and_read(webhdfs: Engine, fresh: str, tmp_path: Path) -> None:
    folder = f"others-{fresh}/llama"

    async def prepare() -> None:
        store = webhdfs_store(webhdfs, fresh)
        for name, data in FILES.items():
            await write(store, f"/{folder}/{name}", data)
        await store.aclose()

    trio.run(prepare)
    with Mixed(tmp_path / "cluster", {"far": webhdfs.at(fresh)}) as cluster:
        done = cluster.run("import", "far", folder)
        assert (done["name"], done["files"], done["size"]) == ("llama", len(FILES), sum(map(len, FILES.values())))
        assert cluster.run("import", "far", folder)["unchanged"]
        assert cluster.run("info", "llama")["external_nodes"] == {"far": 7}
        cluster.run("get", "llama", tmp_path / "got")
        for name, data in FILES.items():
            got = (tmp_path / "got" / name).read_bytes()
            assert hashlib.sha256(got).digest() == hashlib.sha256(data).digest()


async def test_an_external_path_is_one_of_the_root(webhdfs: Engine, fresh: str) -> None:
    store = webhdfs_store(webhdfs, fresh)
    await store.put(SAMPLE.key, [SAMPLE.data])
    place = ExternalPath(f"{fresh}/{SAMPLE.key}")
    into = memoryview(bytearray(len(SAMPLE.data)))
    assert await store.get(place, into) == len(SAMPLE.data)
    assert into == SAMPLE.data
    await store.aclose()
