"""The folder of objects: nothing half, nothing through links, nothing left behind."""

import errno
import os
import subprocess
import sys
import threading
from collections.abc import Sequence
from contextlib import ExitStack
from pathlib import Path

import pytest
import trio

from shardfs.core.keys import ObjectKey
from shardfs.errors import Denied, InvalidFormat, NoSpace, NotFound, StoreError, Unavailable
from shardfs.store import folder_upload
from shardfs.store.base import SpanInto
from shardfs.store.file import FileStore, failure
from shardfs.store.folder import Folder
from shardfs.store.folder_upload import Upload, sweep
from shardfs.testing.samples import Sample, sample_chunk, sample_manifest, sample_ref

SAMPLE = sample_chunk(1, 100_000)


def put(folder: Folder, sample: Sample) -> bool:
    with Upload(folder, sample.key, len(sample.data)) as upload:
        upload.write(sample.data)
        return upload.publish()


def temps(root: Path) -> list[str]:
    return os.listdir(root / "tmp")


def test_order_of_a_put(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Content durable before the name, name durable before the answer, every new folder durable in its parent."""
    steps: list[str] = []

    def record(name: str) -> None:
        real = getattr(os, name)

        def call(*args, **kwargs):
            if name == "fsync":
                path = os.readlink(f"/proc/self/fd/{args[0]}")
                inside = path.removeprefix(str(tmp_path)).strip("/") or "."
                steps.append(f"fsync {'temp file' if inside.startswith('a/tmp/') else inside}")
            else:
                steps.append(name)
            return real(*args, **kwargs)

        monkeypatch.setattr(os, name, call)

    for name in ("fsync", "link", "rename", "unlink"):
        record(name)
    put(Folder(tmp_path / "a"), SAMPLE)
    two = SAMPLE.key.split("/")[1]
    assert steps == [
        "fsync .",
        "fsync a",
        "fsync temp file",
        "fsync a",
        "fsync a/chunks",
        "link",
        f"fsync a/chunks/{two}",
        "unlink",
    ]


PUT_ONCE = """
import sys
from pathlib import Path
from shardfs.store.folder import Folder
from shardfs.store.folder_upload import Upload
from shardfs.testing.samples import sample_chunk
sample = sample_chunk(1, 100_000)
print("ready", flush=True)
sys.stdin.readline()
with Upload(Folder(Path(sys.argv[1])), sample.key, len(sample.data)) as upload:
    upload.write(sample.data)
    print(upload.publish())
"""


def test_racing_processes_create_once(tmp_path: Path) -> None:
    command = [sys.executable, "-c", PUT_ONCE, str(tmp_path / "a")]
    with ExitStack() as stack:
        runs = [
            stack.enter_context(subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True))
            for _ in range(4)
        ]
        for run in runs:
            assert run.stdout.readline() == "ready\n"
        for run in runs:
            run.stdin.write("go\n")
            run.stdin.flush()
        assert sorted(run.communicate()[0] for run in runs) == ["False\n"] * 3 + ["True\n"]
    assert (tmp_path / "a" / SAMPLE.key).read_bytes() == SAMPLE.data
    assert temps(tmp_path / "a") == []


DAMAGES = {
    "shorter": lambda path: os.truncate(path, 1000),
    "empty": lambda path: os.truncate(path, 0),
    "longer": lambda path: os.truncate(path, 200_000),
    "a link": lambda path: (path.unlink(), path.symlink_to("/etc/passwd")),
    "a link to nothing": lambda path: (path.unlink(), path.symlink_to("nothing")),
    "a fifo": lambda path: (path.unlink(), os.mkfifo(path)),
}


@pytest.mark.parametrize("damage", DAMAGES)
def test_put_replaces_what_cannot_be_the_object(damage: str, tmp_path: Path) -> None:
    folder = Folder(tmp_path / "a")
    put(folder, SAMPLE)
    path = tmp_path / "a" / SAMPLE.key
    DAMAGES[damage](path)
    assert put(folder, SAMPLE) is True
    assert path.read_bytes() == SAMPLE.data
    assert not path.is_symlink()
    assert put(folder, SAMPLE) is False


def test_without_hard_links(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def link(*args: object, **kwargs: object) -> None:
        raise OSError(errno.EPERM, "no links here")

    monkeypatch.setattr(os, "link", link)
    folder = Folder(tmp_path / "a")
    assert put(folder, SAMPLE) is True
    assert put(folder, SAMPLE) is False
    os.truncate(tmp_path / "a" / SAMPLE.key, 5)
    assert put(folder, SAMPLE) is True
    assert (tmp_path / "a" / SAMPLE.key).read_bytes() == SAMPLE.data
    assert temps(tmp_path / "a") == []


FAILING = ["write", "fsync", "link", "preadv"]


@pytest.mark.parametrize("call", FAILING)
def test_a_failing_disk_leaves_nothing(call: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    folder = Folder(tmp_path / "a")
    put(folder, sample_chunk(2))

    def fail(*args: object, **kwargs: object) -> None:
        raise OSError(errno.EIO, "broken disk")

    with monkeypatch.context() as patch:
        patch.setattr(os, call, fail)
        with pytest.raises(OSError, match="broken disk"):
            put(folder, SAMPLE)
    assert folder.size(SAMPLE.key) is None
    assert temps(tmp_path / "a") == []
    assert put(folder, SAMPLE) is True


def test_a_disk_that_loses_what_was_written(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The bytes are right and the disk says it took them: the read-back finds out."""
    real = os.write

    def write(file: int, data: memoryview) -> int:
        return real(file, bytes([data[0] ^ 1]) + bytes(data[1:]))

    folder = Folder(tmp_path / "a")
    monkeypatch.setattr(os, "write", write)
    with pytest.raises(InvalidFormat, match="not a shardfs chunk"):
        put(folder, SAMPLE)
    assert folder.keys("", "", 10) == []


def test_sizes_of_an_upload(tmp_path: Path) -> None:
    folder = Folder(tmp_path / "a")
    with pytest.raises(InvalidFormat, match="more than"):
        Upload(folder, sample_ref("m", 1).key, 5000)
    with Upload(folder, SAMPLE.key, 10) as upload:
        upload.write(b"12345")
        with pytest.raises(InvalidFormat, match="more than the announced"):
            upload.write(b"123456")
        with pytest.raises(InvalidFormat, match="5 bytes instead of 10"):
            upload.publish()
    assert temps(tmp_path / "a") == []


def test_links_lead_nowhere(tmp_path: Path) -> None:
    """A link in the place of a folder is an error; in the place of an object there is no object."""
    folder = Folder(tmp_path / "a")
    outside = tmp_path / "outside"
    put(Folder(outside), SAMPLE)
    (tmp_path / "a").mkdir()
    (tmp_path / "a" / "chunks").symlink_to(outside / "chunks")
    for call in (folder.size, folder.delete, folder.open, lambda key: put(folder, SAMPLE)):
        with pytest.raises(NotADirectoryError):
            call(SAMPLE.key)
    with pytest.raises(NotADirectoryError):
        folder.keys("chunks/", "", 10)
    assert (outside / SAMPLE.key).read_bytes() == SAMPLE.data
    two = SAMPLE.key.split("/")[1]
    (tmp_path / "a" / "chunks").unlink()
    (tmp_path / "a" / "chunks" / two).mkdir(parents=True)
    (tmp_path / "a" / SAMPLE.key).symlink_to(outside / SAMPLE.key)
    assert folder.size(SAMPLE.key) is None
    assert folder.keys("chunks/", "", 10) == []


def test_list_skips_what_is_no_object(tmp_path: Path) -> None:
    root = tmp_path / "a"
    folder = Folder(root)
    samples = [SAMPLE, sample_manifest(1), sample_ref("m/n", 1)]
    for sample in samples:
        put(folder, sample)
    two = SAMPLE.key.split("/")[1]
    digest = "f" * 64
    for junk in (f"chunks/{two}/.hidden", f"chunks/{two}/{digest}x", f"chunks/ff/{two}{digest[2:]}", "chunks/zz/x",
                 f"chunks/{digest}", "manifests/x", f"manifests/{digest.upper()}", "refs/m/x", f"refs/m/{digest}",
                 f"refs/m%2Fn/{1:016d}-{digest}", f"refs/m~2fn/{1:016d}-{digest}", f"tmp/{digest}", "node.json",
                 f"other/{digest}", f"manifests/{digest[:-1]}\udcff"):  # fmt: skip
        path = root / junk
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(b"junk")
    (root / "chunks" / "ff" / digest).mkdir(parents=True)
    (root / "refs" / "file").write_bytes(b"")
    (root / "manifests" / digest).symlink_to(root / samples[1].key)
    assert folder.keys("", "", 100) == sorted(sample.key for sample in samples)


def test_sweep_takes_only_old_files(tmp_path: Path) -> None:
    folder = Folder(tmp_path / "a")
    assert sweep(folder) == 0
    put(folder, SAMPLE)
    old, young = tmp_path / "a" / "tmp" / "1-old", tmp_path / "a" / "tmp" / "1-young"
    for path in (old, young):
        path.write_bytes(b"x")
    os.utime(old, (0, 0))
    assert sweep(folder) == 1
    assert temps(tmp_path / "a") == ["1-young"]


async def test_a_sweep_that_fails_fails_no_put(tmp_path: Path) -> None:
    folder = tmp_path / "a" / "tmp" / "folder"
    folder.mkdir(parents=True)
    os.utime(folder, (0, 0))
    assert await FileStore("a", tmp_path / "a").put(SAMPLE.key, [SAMPLE.data]) is True


# ------------------------------------------------------------------------------------------------- FileStore

MEANINGS = [
    (errno.ENOSPC, NoSpace),
    (errno.EDQUOT, NoSpace),
    (errno.EACCES, Denied),
    (errno.EPERM, Denied),
    (errno.EROFS, Denied),
    (errno.EIO, Unavailable),
    (errno.ESTALE, Unavailable),
    (errno.EMFILE, Unavailable),
]


@pytest.mark.parametrize(("number", "kind"), MEANINGS, ids=str)
async def test_meaning_of_errors(
    number: int, kind: type[StoreError], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail(*args: object, **kwargs: object) -> None:
        raise OSError(number, os.strerror(number), "x")

    store = FileStore("a", tmp_path / "a")
    await store.put(SAMPLE.key, [SAMPLE.data])
    monkeypatch.setattr(Folder, "open_folder", fail)
    calls = [
        lambda: store.get(SAMPLE.key, memoryview(bytearray(5))),
        lambda: store.read(SAMPLE.key, limit=1_000_000),
        lambda: store.put(SAMPLE.key, [SAMPLE.data]),
        lambda: store.size(SAMPLE.key),
        lambda: store.list("chunks/"),
        lambda: store.delete(SAMPLE.key),
        store.stat,
    ]
    for call in calls:
        with pytest.raises(kind, match="node a: .*" + os.strerror(number)) as caught:
            await call()
        assert type(caught.value) is kind


def test_a_message_names_the_path() -> None:
    error = failure("a", "put x", OSError(errno.ENOSPC, "No space left on device", "/data/tmp/1"))
    assert str(error) == "node a: put x: No space left on device (/data/tmp/1)"


async def test_a_disk_that_is_not_there(tmp_path: Path) -> None:
    """Not an empty store: what it holds is unknown, and nothing is written beside it."""
    store = FileStore("a", tmp_path / "mnt" / "disk" / "a")
    for call in (store.size(SAMPLE.key), store.list("chunks/"), store.stat(), store.put(SAMPLE.key, [SAMPLE.data])):
        with pytest.raises(Unavailable, match="folder does not exist"):
            await call
    assert os.listdir(tmp_path) == []
    (tmp_path / "mnt" / "disk").mkdir(parents=True)
    assert await store.put(SAMPLE.key, [SAMPLE.data]) is True


@pytest.mark.skipif(os.geteuid() != 0, reason="mounting a tmpfs needs root")
async def test_full_and_read_only_disks(tmp_path: Path) -> None:
    root = tmp_path / "a"
    root.mkdir()
    await trio.run_process(["mount", "-t", "tmpfs", "-o", "size=1m", "tmpfs", str(root)])
    try:
        store, big = FileStore("a", root), sample_chunk(9, 2_000_000)
        with pytest.raises(NoSpace, match="No space left"):
            await store.put(big.key, [big.data])
        assert temps(root) == []
        assert await store.list("chunks/") == []
        assert await store.put(SAMPLE.key, [SAMPLE.data]) is True
        await trio.run_process(["mount", "-o", "remount,ro", str(root)])
        with pytest.raises(Denied, match="Read-only"):
            await store.put(big.key, [big.data])
        assert await store.read(SAMPLE.key, limit=1_000_000) == SAMPLE.data
    finally:
        await trio.run_process(["umount", str(root)])


async def test_a_hanging_disk_can_be_left(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The caller comes back at once, and what the disk says later never reaches its buffer."""
    entered, answer = trio.Event(), threading.Event()
    token = trio.lowlevel.current_trio_token()
    real = Folder.read_at

    def hang(self: Folder, key: ObjectKey, spans: Sequence[SpanInto]) -> Sequence[int]:
        token.run_sync_soon(entered.set)
        answer.wait()
        return real(self, key, spans)

    store = FileStore("a", tmp_path / "a")
    await store.put(SAMPLE.key, [SAMPLE.data])
    monkeypatch.setattr(Folder, "read_at", hang)
    memory = bytearray(len(SAMPLE.data))
    async with trio.open_nursery() as nursery:
        nursery.start_soon(store.get, SAMPLE.key, memoryview(memory))
        await entered.wait()
        nursery.cancel_scope.cancel()
    assert store._limiter.borrowed_tokens == 1
    answer.set()
    await idle(store)
    assert memory == bytes(len(SAMPLE.data))
    monkeypatch.undo()
    assert await store.read(SAMPLE.key, limit=1_000_000) == SAMPLE.data


async def idle(store: FileStore) -> None:
    """Until no thread is left."""
    while store._limiter.borrowed_tokens:
        await trio.lowlevel.checkpoint()


@pytest.mark.parametrize("step", ["write", "_verify_file", "fsync"])
async def test_a_put_cancelled_at_each_step(step: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Before the link it leaves neither object nor temp file, also when the caller's memory changes afterwards."""
    entered, answer = trio.Event(), threading.Event()
    token = trio.lowlevel.current_trio_token()
    where = folder_upload if step == "_verify_file" else os
    real = getattr(where, step)

    def hang(*args: object) -> object:
        token.run_sync_soon(entered.set)
        answer.wait()
        return real(*args)

    store, data = FileStore("a", tmp_path / "a"), bytearray(SAMPLE.data)
    await store.put(sample_chunk(2).key, [sample_chunk(2).data])  # so that the folders are there
    monkeypatch.setattr(where, step, hang)
    async with trio.open_nursery() as nursery:
        nursery.start_soon(store.put, SAMPLE.key, [data])
        await entered.wait()
        nursery.cancel_scope.cancel()
    data[:] = bytes(len(data))
    answer.set()
    await idle(store)
    monkeypatch.undo()
    assert temps(tmp_path / "a") == []
    with pytest.raises(NotFound):
        await store.get(SAMPLE.key, memoryview(bytearray(1)))
