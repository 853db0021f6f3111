"""Models that lie on real engines: imported without a copy, read through `get`, and changed behind the import."""

import hashlib
import os
import random
import subprocess
import sys
import time
from pathlib import Path

import pytest
import trio

from shardfs.errors import NotFound
from shardfs.store.base import ExternalPath, ExternalSource, ExternalStat, Store
from shardfs.store.dav import DavStore
from shardfs.store.hdfs import HdfsStore
from shardfs.store.s3 import S3Store
from shardfs.store.webhdfs import WebHdfsStore
from tests.engines.kit import Engine, Mixed

pytestmark = pytest.mark.engines
ENGINES = ("s3", "hdfs", "webhdfs", "nginx")

MIB = 1024 * 1024
CHANCE = random.Random(5)
FILES = {
    "model.safetensors": CHANCE.randbytes(5 * MIB + 17),
    "deep/er/a b+ü&%41.json": CHANCE.randbytes(1000),
    "deep/empty": b"",
    "zeros": bytes(3 * MIB) + b"x",
}


def files_for(engine: Engine) -> dict[str, bytes]:
    """WebHDFS refuses names that its servers disagree about."""
    return {name.replace("+ü&%41", "ü&"): data for name, data in FILES.items()} if engine.name == "webhdfs" else FILES


async def write(store: Store, path: str, data: bytes) -> None:
    """A file as somebody else would write it, over what is there."""
    if isinstance(store, S3Store):
        digest, headers = hashlib.sha256(data).hexdigest(), {"content-length": str(len(data))}
        async with store._client.exchange("PUT", ExternalPath(path), headers, body=data, sha256=digest) as (_, answer):
            assert answer.status in (200, 201)
    elif isinstance(store, DavStore):
        length = [("Content-Length", str(len(data)))]
        async with store._exchange("PUT", ExternalPath(path), length, [data]) as (_, answer):
            assert answer.status in (201, 204)
    elif isinstance(store, WebHdfsStore):
        await store.stat()  # makes its folder, as the others do
        async with store._client.data("write", "PUT", f"/{path}", "CREATE", {"overwrite": "true"}, [data]):
            pass
    else:
        assert isinstance(store, HdfsStore)
        await store._run("write", lambda _: _write_hdfs(store, f"/{path}", data))


def _write_hdfs(store: HdfsStore, path: str, data: bytes) -> None:
    import hdfs_native

    writer = store._folder._client().create(path, hdfs_native.WriteOptions(overwrite=True, create_parent=True))
    writer.write(data)
    writer.close()


async def remove(store: Store, path: str) -> None:
    if isinstance(store, S3Store | DavStore):
        exchange = store._client.exchange if isinstance(store, S3Store) else store._exchange
        async with exchange("DELETE", ExternalPath(path)) as (_, answer):
            assert answer.status == 204
    elif isinstance(store, WebHdfsStore):
        await store._client.ask("delete", "DELETE", f"/{path}", "DELETE")
    else:
        assert isinstance(store, HdfsStore)
        await store._run("delete", lambda _: store._folder.delete(f"/{path}"))


@pytest.mark.parametrize("engine", ENGINES, indirect=True)
async def test_what_others_wrote_is_read_where_it_lies(engine: Engine, fresh: str) -> None:
    store, files = engine.store(fresh), files_for(engine)
    assert isinstance(store, ExternalSource)
    folder = f"others-{fresh}"
    try:
        for name, data in files.items():
            await write(store, f"{folder}/{name}", data)
        listed = await store.list_external(folder)
        assert sorted(listed) == sorted(f"{folder}/{name}" for name in files)
        stats: dict[str, ExternalStat] = {}
        for name, data in files.items():
            stats[name] = await store.external_stat(f"{folder}/{name}")
            assert stats[name].size == len(data)
        big = FILES["model.safetensors"]
        for offset, length in [(0, 10), (MIB - 3, 2 * MIB), (len(big) - 5, 5), (len(big) - 5, 100), (len(big), 10)]:
            arrived: list[int] = []
            into = memoryview(bytearray(length))
            count = await store.get_external(f"{folder}/model.safetensors", into, offset=offset, arrived=arrived.append)
            assert into[:count] == big[offset : offset + length]
            assert count == len(big[offset : offset + length])
            assert arrived == sorted(arrived)
            assert not count or arrived[-1] == count
        await write(store, f"{folder}/model.safetensors", big[:-1])
        assert await store.external_stat(f"{folder}/model.safetensors") != stats["model.safetensors"]
        for absent in (f"{folder}/absent", f"{folder}/deep", "absent/absent"):
            with pytest.raises(NotFound):
                await store.external_stat(absent)
        with pytest.raises(NotFound):
            await store.get_external(f"{folder}/absent", memoryview(bytearray(5)), offset=0)
        with pytest.raises(NotFound):
            await store.list_external(f"{folder}/absent")
    finally:
        await store.aclose()


@pytest.mark.parametrize("engine", ENGINES, indirect=True)
def test_a_model_is_imported_read_and_missed(engine: Engine, fresh: str, tmp_path: Path) -> None:
    folder, files = f"others-{fresh}/llama", files_for(engine)

    async def prepare() -> None:
        store = engine.store(fresh)
        for name, data in files.items():
            await write(store, f"{folder}/{name}", data)
        await store.aclose()

    async def change(data: bytes | None) -> None:
        store = engine.store(fresh)
        path = f"{folder}/model.safetensors"
        await (remove(store, path) if data is None else write(store, path, data))
        await store.aclose()

    trio.run(prepare)
    with Mixed(tmp_path / "cluster", {"far": engine.at(fresh)}) as cluster:
        done = cluster.run("import", "far", folder)
        assert (done["name"], done["generation"], done["files"]) == ("llama", 1, len(files))
        assert done["size"] == sum(map(len, files.values())) == done["bytes_new"] + done["bytes_zero"]
        assert cluster.run("import", "far", folder)["unchanged"]
        cluster.run("get", "llama", tmp_path / "got")
        for name, data in files.items():
            assert (tmp_path / "got" / name).read_bytes() == data
        assert cluster.run("info", "llama")["external_nodes"] == {"far": 6}
        plan = cluster.run("plan", "llama")
        assert (plan["external_chunks"], plan["undelivered"]) == (6, 0)
        delivered = {node["node"]: node["served_bytes"] for node in plan["nodes"]}
        assert delivered["far"] >= plan["external_bytes"] == 5 * MIB + 1000
        assert sum(delivered.values()) == plan["stored_bytes"]
        stored = sum(path.stat().st_size for path in (cluster.root / "near" / "chunks").rglob("*") if path.is_file())
        assert stored < 20_000
        for data, said in ((FILES["model.safetensors"][::-1], "was changed since"), (None, "is gone since")):
            trio.run(change, data)
            assert f"node far: {folder}/model.safetensors {said} it was imported" in failed_get(cluster, tmp_path)


@pytest.mark.fuse
@pytest.mark.skipif(not os.access("/dev/fuse", os.R_OK | os.W_OK), reason="left out: /dev/fuse cannot be opened")
@pytest.mark.parametrize(
    ("engine", "process"), [("s3", "proxy"), ("hdfs", "namenode"), ("nginx", "nginx")], indirect=["engine"]
)
def test_its_server_dies_under_a_mount_and_comes_back(engine: Engine, process: str, fresh: str, tmp_path: Path) -> None:
    """Nothing but the server has the bytes: an error within the deadline, and the right bytes once it is back."""
    folder, big = f"others-{fresh}", random.Random(1).randbytes(24 * MIB)

    async def prepare() -> None:
        store = engine.store(fresh)
        await write(store, f"{folder}/big", big)
        await store.aclose()

    trio.run(prepare)
    with Mixed(tmp_path / "cluster", {"far": engine.at(fresh), "other": f"file://{tmp_path}/other"}) as cluster:
        cluster.run("import", "far", f"{folder}/big", "big")
        mountpoint = cluster.mount("models", "--read-timeout", "3")
        fd = os.open(mountpoint / "big", os.O_RDONLY)
        try:
            assert patiently(fd, 0) == big[:MIB]
            engine.kill(process)
            started = time.monotonic()
            with pytest.raises(OSError, match="Input/output error"):
                os.pread(fd, MIB, 20 * MIB)
            assert time.monotonic() - started < 60
            assert engine.start() == ""
            assert patiently(fd, 20) == big[20 * MIB : 21 * MIB]
            assert b"".join(patiently(fd, at) for at in range(24)) == big
        finally:
            os.close(fd)
            cluster.umount(mountpoint)
            assert engine.start() == ""


def patiently(fd: int, at: int) -> bytes:
    """The MiB `at`. A server that has just been started may take longer than one read may."""
    deadline = time.monotonic() + 60
    while True:
        try:
            return os.pread(fd, MIB, at * MIB)
        except OSError:
            assert time.monotonic() < deadline
            time.sleep(0.2)


def failed_get(cluster: Mixed, tmp_path: Path) -> str:
    command = [sys.executable, "-m", "shardfs", "get", "llama", str(tmp_path / "no"), "--cluster"]
    done = subprocess.run(
        [*command, str(cluster.root / "cluster.toml")], capture_output=True, text=True, check=False, timeout=200
    )
    assert done.returncode == 1
    return done.stderr
