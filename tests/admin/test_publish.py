"""A whole publish over nodes in memory, from real files: what is stored, sent again, resumed, refused."""

import os
from pathlib import Path

import pytest
import trio

from shardfs.admin.source import scan
from shardfs.admin.target import CopyOptions
from shardfs.core.chunk import BLOCK_SIZE
from shardfs.core.keys import chunk_key
from shardfs.core.manifest import MANIFEST_BYTES_MAX
from shardfs.errors import Conflict, InvalidName, NotEnoughNodes, SourceError, UsageError
from shardfs.testing.memory_store import Fault, MemoryStore
from tests.admin.test_cutting import open_files

IMPATIENT = CopyOptions(pause_first=0.001, pause_max=0.002, patience=0.01)


def dense(root: Path) -> dict[str, bytes]:
    return {
        str(path.relative_to(root)): path.read_bytes()
        for path in root.rglob("*")
        if path.is_file() and path.name != "sparse"
    }


async def test_what_is_read_back_is_what_was_published(rig, model: Path) -> None:
    (model / "sparse").unlink()
    done = await rig.publish(model, "team/model")
    assert await rig.content("team/model") == dense(model)
    manifest = await rig.manifest("team/model")
    assert manifest.folders == ("void",)
    assert manifest.created == 1700000000
    assert (done.name, done.generation, done.files) == ("team/model", 1, 3)
    assert (done.bytes_sent, done.bytes_present, done.bytes_zero) == (done.size, 0, 0)
    assert (done.chunks, done.unchanged, done.raced, done.replaced_nodes) == (12, False, False, {})
    assert rig.manifests() == {done.digest}


async def test_holes_cost_nothing(rig, model: Path) -> None:
    done = await rig.publish(model)
    assert done.size == (1 << 32) + 10 * BLOCK_SIZE + 17 + 2
    assert done.bytes_zero == 1 << 32
    assert done.bytes_sent == 10 * BLOCK_SIZE + 17 + 2
    assert sum(len(rig.chunks(node)) for node in rig.stores) == 2 * 12
    assert done.chunks == (1 << 32) // BLOCK_SIZE + 12


async def test_a_single_file(rig, tmp_path: Path) -> None:
    (tmp_path / "bert.pt").write_bytes(b"weights")
    await rig.publish(tmp_path / "bert.pt", "bert.pt")
    assert await rig.content("bert.pt") == {"": b"weights"}
    assert (await rig.manifest("bert.pt")).single


@pytest.mark.parametrize("size", [0, 1, BLOCK_SIZE - 1, BLOCK_SIZE, BLOCK_SIZE + 1, 3 * BLOCK_SIZE])
async def test_sizes_around_the_chunk(rig, tmp_path: Path, size: int) -> None:
    (tmp_path / "file").write_bytes(b"\1" * size)
    done = await rig.publish(tmp_path / "file")
    assert await rig.content() == {"": b"\1" * size}
    assert done.chunks == -(-size // BLOCK_SIZE)


async def test_nothing_is_visible_before_everything_is_stored(rig, model: Path) -> None:
    """The ref is the last object, the manifest the last but one, and every chunk has its copies before."""
    await rig.publish(model)
    for store in rig.stores.values():
        puts = [key.partition("/")[0] for op, key in store.calls if op == "put"]
        assert puts == ["chunks"] * (len(puts) - 2) + ["manifests", "refs"]


async def test_the_second_time_nothing_is_sent(rig, model: Path) -> None:
    first = await rig.publish(model)
    second = await rig.publish(model)
    assert (second.generation, second.digest, second.unchanged) == (1, first.digest, True)
    assert (second.bytes_sent, second.bytes_present) == (0, first.bytes_sent)


async def test_only_what_changed_is_sent(rig, model: Path) -> None:
    await rig.publish(model)
    with (model / "weights.bin").open("r+b") as file:
        file.write(b"different")
    done = await rig.publish(model)
    assert (done.generation, done.bytes_sent) == (2, BLOCK_SIZE)
    assert (await rig.content("m@2"))["weights.bin"] == (model / "weights.bin").read_bytes()


async def test_equal_chunks_are_sent_once(rig, tmp_path: Path) -> None:
    (tmp_path / "file").write_bytes(os.urandom(BLOCK_SIZE) * 50)
    done = await rig.publish(tmp_path / "file")
    assert (done.bytes_sent, done.bytes_present) == (BLOCK_SIZE, 49 * BLOCK_SIZE)
    assert sum(op == "put" and key.startswith("chunks/") for s in rig.stores.values() for op, key in s.calls) == 2


async def test_a_lost_copy_is_sent_again(rig, model: Path) -> None:
    await rig.publish(model)
    lost = min(rig.chunks("a"))
    del rig.stores["a"].objects[lost]
    done = await rig.publish(model)
    assert done.unchanged
    assert 0 < done.bytes_sent <= BLOCK_SIZE
    assert lost in rig.stores["a"].objects


@pytest.mark.parametrize("after", [1, 5, 11, 17, 23])
async def test_a_run_that_was_cut_off_is_taken_up_again(rig, model: Path, after: int) -> None:
    count = 0

    def pause(op: str, key: str) -> float:
        nonlocal count
        count += op == "put"
        if count <= after:
            return 0.0
        scope.cancel()
        return 3600.0

    for store in rig.stores.values():
        store.pause = pause
    with trio.CancelScope() as scope:
        await rig.publish(model)
    assert scope.cancelled_caught
    assert rig.refs() == []
    assert sum(len(rig.chunks(node)) for node in rig.stores) == after
    for store in rig.stores.values():
        store.pause = None
        store.calls.clear()
    done = await rig.publish(model)
    assert done.bytes_sent + done.bytes_present == 10 * BLOCK_SIZE + 19
    assert done.bytes_present > 0 or after < 12
    assert await rig.content() == dense(model)
    puts = sum(key.startswith("chunks/") and op == "put" for s in rig.stores.values() for op, key in s.calls)
    assert puts == 24 - after


async def test_cancelling_publishes_nothing_and_leaves_nothing_open(rig, model: Path) -> None:
    def pause(op: str, key: str) -> float:
        if op != "put":
            return 0.0
        scope.cancel()
        return 3600.0

    for store in rig.stores.values():
        store.pause = pause
    with trio.CancelScope() as scope:
        await rig.publish(model)
    assert scope.cancelled_caught
    assert rig.refs() == []
    assert open_files(model) == 0


async def test_the_last_step_is_not_cut_short(rig, model: Path) -> None:
    async def stop_when_committing() -> None:
        while not rig.tally.committing:
            await trio.lowlevel.checkpoint()
        scope.cancel()

    for store in rig.stores.values():
        store.faults.append(Fault(op="put", key="manifests/", delay=0.05))
    async with trio.open_nursery() as nursery:
        scope = trio.CancelScope()
        nursery.start_soon(stop_when_committing)
        with scope:
            await rig.publish(model)
        nursery.cancel_scope.cancel()
    assert scope.cancel_called
    assert len(rig.refs()) == 3


# ----------------------------------------------------------------------------------------------------- failures


async def test_a_node_that_dies_on_the_way_is_replaced_and_told(make_rig, model: Path) -> None:
    rig = make_rig(nodes=4, options=IMPATIENT)
    fault = Fault(error="connection reset")
    rig.stores["b"].pause = lambda op, key: (
        (rig.stores["b"].faults.append(fault) if op == "put" and fault not in rig.stores["b"].faults else None) or 0.0
    )
    done = await rig.publish(model)
    assert fault.hits > 0
    assert set(done.replaced_nodes) == {"b"}
    assert done.replaced_nodes["b"].reason == "connection reset"
    assert await rig.content() == dense(model)


async def test_a_copy_too_few_is_no_publish(rig, model: Path) -> None:
    rig.options = IMPATIENT
    for node in "bc":
        rig.stores[node].faults.append(Fault(op="put", error="read-only file system"))
    with pytest.raises(NotEnoughNodes, match=r"chunk [0-9a-f]{64}: [01] of 2 copies stored .*read-only file system"):
        await rig.publish(model)
    assert rig.refs() == []


async def test_too_few_nodes_are_told_before_anything_is_sent(rig, model: Path) -> None:
    rig.options = IMPATIENT
    for node in "bc":
        rig.stores[node].faults.append(Fault(error="refused"))
    with pytest.raises(NotEnoughNodes, match="2 copies need 2 active nodes, 1 answer"):
        await rig.publish(model)
    assert all(rig.calls(node, "put") == 0 for node in rig.stores)


async def test_a_name_that_is_taken_is_told_before_anything_is_sent(rig, model: Path) -> None:
    await rig.publish(model, "team/model")
    before = {node: rig.calls(node, "put") for node in rig.stores}
    for name in ("team", "team/model/part"):
        with pytest.raises(Conflict, match=f"{name}: cannot exist beside the model team/model"):
            await rig.publish(model, name)
    assert {node: rig.calls(node, "put") for node in rig.stores} == before


@pytest.mark.parametrize("name", ["", "/abs", "a/../b", "a\\b", "a\0b", "x" * 256, "m@3", "\udcff", "a//b", "tab\t"])
async def test_names_that_cannot_be(rig, model: Path, name: str) -> None:
    with pytest.raises(InvalidName):
        await rig.publish(model, name)
    assert all(store.calls == [] for store in rig.stores.values())


async def test_more_chunks_than_a_manifest_can_name(rig, tmp_path: Path) -> None:
    with (tmp_path / "huge").open("wb") as file:
        file.truncate((MANIFEST_BYTES_MAX // 32 + 1) * BLOCK_SIZE)
    with pytest.raises(UsageError, match="raise chunk_size in the cluster file"):
        await rig.publish(tmp_path / "huge")
    assert all(store.calls == [] for store in rig.stores.values())


@pytest.mark.parametrize("when", ["before", "while", "after"])
async def test_a_source_that_changes_is_not_published(rig, model: Path, when: str) -> None:
    source = scan(str(model))
    target = model / "weights.bin"

    def touch() -> None:
        with target.open("r+b") as file:
            file.write(b"changed")

    if when == "before":
        touch()
    else:
        # The last chunk to be stored belongs to the last file: after it, weights.bin has been closed again.
        last = {"while": 2, "after": 22}[when]
        count = 0

        def pause(op: str, key: str) -> float:
            nonlocal count
            count += op == "put"
            if count == last:
                touch()
            return 0.0

        for store in rig.stores.values():
            store.pause = pause
    with pytest.raises(SourceError, match=r"weights\.bin changed while it was being published"):
        await rig.publish(source)
    assert rig.refs() == []


async def test_a_file_that_appears_is_not_left_out_silently(rig, model: Path) -> None:
    source = scan(str(model))
    (model / "new").touch()
    with pytest.raises(SourceError, match="new appeared while it was being published"):
        await rig.publish(source)
    assert rig.refs() == []


async def test_chunk_names_do_not_depend_on_the_path(rig, tmp_path: Path) -> None:
    data = os.urandom(1000)
    for name in ("one", "two"):
        (tmp_path / name).write_bytes(data)
        await rig.publish(tmp_path / name, name)
    one, two = await rig.manifest("one"), await rig.manifest("two")
    assert one.digests == two.digests
    assert isinstance(rig.stores["a"], MemoryStore)
    assert chunk_key(one.digest(one.files[0], 0)).startswith("chunks/")


@pytest.mark.parametrize("what", ["model", "file", "empty folder"])
async def test_names_with_controls_are_not_published(rig, tmp_path, what):
    source = tmp_path / "source"
    source.mkdir()
    (source / "f").write_bytes(b"x")
    if what == "file":
        (source / "a\x9b2J").touch()
    elif what == "empty folder":
        (source / "a\x9b2J").mkdir()
    with pytest.raises(InvalidName if what == "model" else SourceError, match=r"'a\\x9b2J' contains"):
        await rig.publish(source, "a\x9b2J" if what == "model" else "m")
    assert not any(store.objects for store in rig.stores.values())
