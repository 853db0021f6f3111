"""Manifests: whichever node delivers a verified one, as soon as one does.

With a folder `mock_clock` stands still unless it is told to jump: no thread is late because the machine is slow.
"""

import os
import threading
from contextlib import asynccontextmanager, suppress
from types import SimpleNamespace

import pytest
import trio
import trio.testing

from shardfs.catalog.manifest_folder import _sweep
from shardfs.catalog.manifests import LARGE_BYTES
from shardfs.core.digest import digest_of
from shardfs.core.keys import manifest_key
from shardfs.core.manifest import Manifest, make_manifest
from shardfs.errors import AllDenied, Denied, NoCopy
from shardfs.testing.memory_store import Fault


def reads(world):
    return "".join(store.node for store in world.stores for op, _ in store.calls if op in ("get", "read"))


def first_asked(world, digest):
    """The store that is asked first, and the others in the order in which they follow."""
    begin = digest[0] % len(world.stores)
    return (world.stores[begin:] + world.stores[:begin])[0], (world.stores[begin:] + world.stores[:begin])[1:]


async def test_one_node_is_asked_and_memory_answers_from_then_on(world, content, autojump_clock):
    manifest = content("x")
    digest = world.plant_manifest(manifest)
    catalog = world.client()
    assert await catalog.manifest(digest) == manifest
    assert await catalog.manifest(digest) is await catalog.manifest(digest)
    assert len(reads(world)) == 1


@pytest.mark.parametrize("damage", [b"", b"<html>", "flip", "long", "other"])
async def test_wrong_bytes_cost_no_time_and_are_counted(world, content, autojump_clock, damage):
    manifest = content("x")
    digest = world.plant_manifest(manifest)
    store, _ = first_asked(world, digest)
    right = store.objects[manifest_key(digest)]
    wrong = {
        "flip": right[:40] + bytes([right[40] ^ 1]) + right[41:],
        "long": right + b"\0",
        "other": content("y").encode(),
    }
    store.objects[manifest_key(digest)] = wrong.get(damage, damage)
    fleet = world.fleet()
    assert await world.client(fleet).manifest(digest) == manifest
    assert trio.current_time() == 0
    assert fleet[store.node].health.corruptions == 1


async def test_a_failing_node_is_followed_by_the_next_at_once(world, content, autojump_clock):
    digest = world.plant_manifest(content("x"))
    store, _ = first_asked(world, digest)
    store.faults.append(Fault(error="reset"))
    await world.client().manifest(digest)
    assert trio.current_time() == 0


async def test_a_late_node_is_overtaken_after_the_hedge_delay(world, content, autojump_clock):
    digest = world.plant_manifest(content("x"))
    store, others = first_asked(world, digest)
    store.faults.append(Fault(hang=True))
    await world.client().manifest(digest)
    assert trio.current_time() == pytest.approx(0.25)
    assert reads(world).count(others[1].node) == 0


async def test_a_suspect_is_asked_last(world, content, autojump_clock):
    digest = world.plant_manifest(content("x"))
    store, _ = first_asked(world, digest)
    fleet = world.fleet()
    fleet[store.node].late("was late")
    await world.client(fleet).manifest(digest)
    assert store.node not in reads(world)


async def test_any_node_may_be_the_one_that_has_it(make_world, content, autojump_clock):
    world = make_world(nodes=7)
    manifest = content("x")
    digest = digest_of(manifest.encode())
    _, others = first_asked(world, digest)
    world.plant_manifest(manifest, [world.stores.index(others[-1])])
    assert await world.client().manifest(digest) == manifest


async def test_without_a_copy_each_node_has_its_reason(world, content, autojump_clock):
    digest = world.plant_manifest(content("x"), [1])
    world.stores[1].objects[manifest_key(digest)] = b"garbage"
    world.stores[2].faults.append(Fault(hang=True))
    with pytest.raises(NoCopy) as caught:
        await world.client().manifest(digest)
    for reason in ("a: not there", "b: wrong bytes", "c: no answer in time"):
        assert reason in str(caught.value)
    assert trio.current_time() <= 30.5


async def test_not_more_than_three_are_asked_at_the_same_time(make_world, content, autojump_clock):
    world = make_world(nodes=8)
    digest = world.plant_manifest(content("x"), range(8))
    for store in world.stores:
        store.faults.append(Fault(hang=True))
    with trio.move_on_after(20):
        await world.client().manifest(digest)
    assert len(reads(world)) == 3


async def test_those_who_want_the_same_one_share_one_read_even_when_the_first_is_cancelled(
    world, content, autojump_clock
):
    manifest = content("x")
    digest = world.plant_manifest(manifest)
    for store in world.stores:
        store.faults.append(Fault(delay=0.1))
    catalog = world.client()
    found = []

    async def want():
        found.append(await catalog.manifest(digest))

    async with trio.open_nursery() as nursery:
        for _ in range(5):
            nursery.start_soon(want)
    assert found == [manifest] * 5
    assert len(reads(world)) == 1

    catalog, found = world.client(), []
    async with trio.open_nursery() as nursery:
        with trio.move_on_after(0.05):
            nursery.start_soon(want)
            await catalog.manifest(digest)
    assert found == [manifest]


async def test_memory_has_a_limit_and_the_longest_unused_goes_first(world, content, autojump_clock):
    manifests = [content(str(i)) for i in range(3)]
    digests = [world.plant_manifest(manifest) for manifest in manifests]
    cost = len(manifests[0].encode()) + 250
    catalog = world.client(memory_bytes=2 * cost)
    for digest in (digests[0], digests[1], digests[0], digests[2]):
        await catalog.manifest(digest)
    before = len(reads(world))
    await catalog.manifest(digests[0])
    await catalog.manifest(digests[2])
    assert len(reads(world)) == before
    await catalog.manifest(digests[1])
    assert len(reads(world)) == before + 1


async def test_the_folder_answers_without_any_node(world, content, tmp_path, mock_clock):
    manifest = content("x")
    digest = world.plant_manifest(manifest)
    await world.client(manifests=tmp_path / "m").manifest(digest)
    assert os.listdir(tmp_path / "m") == [str(digest)]
    for store in world.stores:
        store.faults.append(Fault(error="refused"))
    assert await world.client(manifests=tmp_path / "m").manifest(digest) == manifest


@pytest.mark.parametrize("damage", [b"", b"bla", None])
async def test_what_the_folder_holds_is_verified_and_replaced(world, content, tmp_path, mock_clock, damage, caplog):
    manifest = content("x")
    digest = world.plant_manifest(manifest)
    path = tmp_path / str(digest)
    path.write_bytes(content("y").encode() if damage is None else damage)
    assert await world.client(manifests=tmp_path).manifest(digest) == manifest
    assert "local copy removed" in caplog.text
    assert path.read_bytes() == manifest.encode()
    assert len(os.listdir(tmp_path)) == 1


async def test_the_folder_has_a_limit(world, content, tmp_path, mock_clock):
    manifests = [content(str(i)) for i in range(4)]
    catalog = world.client(manifests=tmp_path, folder_bytes=2 * 4096)  # each takes a page
    digests = [world.plant_manifest(manifest) for manifest in manifests]
    for age, digest in enumerate(digests):
        await catalog.manifest(digest)
        os.utime(tmp_path / str(digest), (age, age))
    assert sorted(os.listdir(tmp_path)) == sorted(map(str, digests[2:]))


async def test_a_folder_that_cannot_be_written_is_warned_about_once(world, content, tmp_path, mock_clock, caplog):
    (tmp_path / "file").write_bytes(b"")
    catalog = world.client(manifests=tmp_path / "file")
    for text in "xy":
        await catalog.manifest(world.plant_manifest(content(text)))
    assert caplog.text.count("are not kept in") == 1


async def test_a_large_manifest_decodes_without_stopping_the_others(world, autojump_clock):
    files = [(f"{i:06}", 0, False) for i in range(40_000)]
    manifest = make_manifest(files, b"", created=1)
    digest = world.plant_manifest(manifest)
    assert len(manifest.encode()) > 256 * 1024
    assert await world.client().manifest(digest) == manifest


def large_manifest(number: int) -> Manifest:
    manifest = make_manifest([(f"{i:06}", 0, False) for i in range(110_000)], b"", created=number)
    assert len(manifest.encode()) > LARGE_BYTES
    return manifest


async def test_a_large_manifest_that_hangs_does_not_hold_up_the_others(world, autojump_clock):
    stuck, good = (world.plant_manifest(large_manifest(n)) for n in range(2))
    asked: list[float] = []

    def pause(op, key):
        if (op, key) == ("read", manifest_key(good)):
            asked.append(trio.current_time())
        return 0.0

    for store in world.stores:
        store.faults.append(Fault(op="read", key=manifest_key(stuck), hang=True))
        store.pause = pause
    catalog = world.client()

    async def wait_for_it() -> None:
        with suppress(NoCopy):
            await catalog.manifest(stuck)

    async with trio.open_nursery() as nursery:
        nursery.start_soon(wait_for_it)
        await trio.sleep(0.1)
        began = trio.current_time()
        await catalog.manifest(good)
        nursery.cancel_scope.cancel()
    assert asked[0] - began < 3


async def test_large_manifests_take_turns(world, autojump_clock):
    """Each is in memory several times while it is fetched."""
    digests = [world.plant_manifest(large_manifest(n)) for n in range(3)]
    at_first: set[str] = set()

    def pause(op, key):
        if op == "read" and trio.current_time() < 1:
            at_first.add(key)
        return 1.0 if op == "read" else 0.0

    for store in world.stores:
        store.pause = pause
    catalog = world.client()
    async with trio.open_nursery() as nursery:
        for digest in digests:
            nursery.start_soon(catalog.manifest, digest)
    assert len(at_first) == 1


async def test_the_folder_is_within_its_limit_at_every_instant(world, content, tmp_path, mock_clock, monkeypatch):
    """Also before the first copy is written there, when somebody else left more."""
    for number in range(5):
        (tmp_path / f"left-{number}").write_bytes(b"x")
    catalog = world.client(manifests=tmp_path, folder_bytes=3 * 4096)
    await catalog.tidy()
    assert len(os.listdir(tmp_path)) <= 3
    replace, seen = os.replace, []

    def counted(old, new):
        replace(old, new)
        seen.append(len(os.listdir(tmp_path)))

    monkeypatch.setattr(os, "replace", counted)
    async with trio.open_nursery() as nursery:
        for text in "tuvwxyz":
            nursery.start_soon(catalog.manifest, world.plant_manifest(content(text)))
    assert seen
    assert max(seen) <= 3


# ------------------------------------------------------------------ a folder that hangs


class HangingDisk:
    """Threads that come to `os.replace` stay there until they may go on."""

    def __init__(self, monkeypatch):
        self.come = threading.Semaphore(0)
        self.go_on = threading.Event()
        self.names = []
        self._replace = os.replace
        monkeypatch.setattr(os, "replace", self._hang)

    def _hang(self, old, new):
        self.names.append(os.path.basename(new))
        self.come.release()
        self.go_on.wait()
        self._replace(old, new)


@pytest.fixture
def hanging_disk(monkeypatch):
    disk = HangingDisk(monkeypatch)
    yield disk
    disk.go_on.set()


@asynccontextmanager
async def hanging_copy(path, catalog, digest, clock):
    """A read of the copy at `path` hangs, is late, and still hangs while the body runs. The manifest that was got."""
    os.mkfifo(path)
    found = []

    async def want():
        found.append(await catalog.manifest(digest))

    async with trio.open_nursery() as nursery:
        nursery.start_soon(want)
        writing = await trio.to_thread.run_sync(os.open, path, os.O_WRONLY)  # as soon as somebody reads
        clock.jump(0.5)
    try:
        yield found[0]
    finally:
        os.close(writing)  # the end of the file: its reader goes on


async def test_a_folder_that_hangs_is_left_for_the_nodes_and_not_asked_again_for_a_while(
    world, content, tmp_path, mock_clock, caplog
):
    manifests = [content(text) for text in "xyz"]
    digests = [world.plant_manifest(manifest) for manifest in manifests]
    catalog = world.client(manifests=tmp_path)
    async with hanging_copy(tmp_path / str(digests[0]), catalog, digests[0], mock_clock) as found:
        assert found == manifests[0]
        (tmp_path / str(digests[1])).write_bytes(b"would be removed")
        mock_clock.jump(29)
        assert await catalog.manifest(digests[1]) == manifests[1]
        assert (tmp_path / str(digests[1])).read_bytes() == b"would be removed"
        assert caplog.text.count("the disk does not answer") == 1
    mock_clock.jump(2)
    assert await catalog.manifest(digests[2]) == manifests[2]
    assert (tmp_path / str(digests[2])).read_bytes() == manifests[2].encode()


async def test_nobody_waits_long_for_a_copy_that_cannot_be_written(
    world, content, tmp_path, mock_clock, hanging_disk, caplog
):
    manifests = [content(text) for text in "xyz"]
    digests = [world.plant_manifest(manifest) for manifest in manifests]
    catalog = world.client(manifests=tmp_path)
    async with trio.open_nursery() as nursery:
        nursery.start_soon(catalog.manifest, digests[0])
        await trio.to_thread.run_sync(hanging_disk.come.acquire)
        assert await catalog.manifest(digests[0]) == manifests[0]  # others have it while it is written
        mock_clock.jump(0.5)
    assert await catalog.manifest(digests[1]) == manifests[1]
    assert hanging_disk.names == [str(digests[0])]
    async with trio.open_nursery() as nursery:
        mock_clock.jump(31)
        nursery.start_soon(catalog.manifest, digests[2])
        await trio.to_thread.run_sync(hanging_disk.come.acquire)
        mock_clock.jump(0.5)
    assert hanging_disk.names == [str(digests[0]), str(digests[2])]
    assert caplog.text.count("the disk does not answer") == 1


async def test_a_slow_folder_is_waited_for_when_no_node_answers(world, content, tmp_path, mock_clock):
    manifest = content("x")
    digest = world.plant_manifest(manifest)
    path = tmp_path / str(digest)
    for store in world.stores:
        store.faults.append(Fault(hang=True))
    os.mkfifo(path)
    catalog, found = world.client(manifests=tmp_path), []

    async def want():
        found.append(await catalog.manifest(digest))

    async with trio.open_nursery() as nursery:
        nursery.start_soon(want)
        writing = await trio.to_thread.run_sync(os.open, path, os.O_WRONLY)  # as soon as somebody reads
        path.unlink()
        path.write_bytes(manifest.encode())
        mock_clock.jump(0.5)  # the folder is late
        for _ in world.stores:
            await trio.testing.wait_all_tasks_blocked()
            mock_clock.jump(0.25)  # and one node after the other
        await trio.testing.wait_all_tasks_blocked()
        mock_clock.jump(30)
    os.close(writing)
    assert found == [manifest]


async def test_waiting_for_a_thread_is_no_late_answer(world, content, tmp_path, mock_clock, hanging_disk, caplog):
    """Three copies one after the other, each almost late: the last has its time from the moment on when it begins."""
    digests = [world.plant_manifest(content(text)) for text in "xyz"]
    catalog = world.client(manifests=tmp_path, folder_threads=1)
    go = threading.Semaphore(0)
    hanging_disk.go_on = SimpleNamespace(wait=go.acquire, set=lambda: go.release(len(digests)))
    async with trio.open_nursery() as nursery:
        for digest in digests:
            nursery.start_soon(catalog.manifest, digest)
        for _ in digests:
            await trio.to_thread.run_sync(hanging_disk.come.acquire)
            await trio.testing.wait_all_tasks_blocked()
            mock_clock.jump(0.4)
            await trio.testing.wait_all_tasks_blocked()
            go.release()
    assert sorted(hanging_disk.names) == sorted(map(str, digests))
    assert "does not answer" not in caplog.text


async def test_threads_that_hang_are_few(world, content, tmp_path, mock_clock, hanging_disk):
    digests = [world.plant_manifest(content(text)) for text in "vwxyz"]
    catalog = world.client(manifests=tmp_path, folder_threads=2)
    async with trio.open_nursery() as nursery:
        for digest in digests:
            nursery.start_soon(catalog.manifest, digest)
        for _ in range(2):
            await trio.to_thread.run_sync(hanging_disk.come.acquire)
        await trio.testing.wait_all_tasks_blocked()
        mock_clock.jump(0.5)
    assert len(hanging_disk.names) == 2


async def test_a_folder_that_hangs_takes_no_thread_from_the_others(world, content, tmp_path, mock_clock):
    trio.to_thread.current_default_thread_limiter().total_tokens = 2  # the one of `hanging_copy`, and one more
    large = make_manifest([(f"{i:06}", 0, False) for i in range(40_000)], b"", created=1)
    catalog = world.client(manifests=tmp_path)
    digest = world.plant_manifest(content("x"))
    async with hanging_copy(tmp_path / str(digest), catalog, digest, mock_clock):
        trio.to_thread.current_default_thread_limiter().total_tokens = 1
        assert await catalog.manifest(world.plant_manifest(large)) == large


async def test_refused_by_all_is_not_the_same_as_nowhere(world, content, autojump_clock):
    digest = world.plant_manifest(content("x"))
    for store in world.stores:
        store.faults.append(Fault(error=Denied(store.node, "HTTP 401")))
    with pytest.raises(AllDenied) as caught:
        await world.client().manifest(digest)
    for node in "abc":
        assert f"{node}: HTTP 401" in str(caught.value)
    world.stores[1].faults[:] = [Fault(error="reset")]  # which may have it
    with pytest.raises(NoCopy, match="b: reset") as caught:
        await world.client().manifest(digest)
    assert not isinstance(caught.value, Denied)


async def test_what_nodes_refuse_is_read_from_the_folder(world, content, tmp_path, mock_clock):
    manifest = content("x")
    digest = world.plant_manifest(manifest)
    await world.client(manifests=tmp_path).manifest(digest)
    for store in world.stores:
        store.faults.append(Fault(error=Denied(store.node, "HTTP 401")))
    assert await world.client(manifests=tmp_path).manifest(digest) == manifest


def test_making_room_leaves_alone_what_is_being_written(tmp_path):
    """It is counted apart, so it would be the first to go."""
    coming, old = tmp_path / ".abc.new", tmp_path / ".old.new"
    for path in (coming, old, tmp_path / "whole"):
        path.write_bytes(b"x" * 5000)
    os.utime(old, (1, 1))
    assert _sweep(tmp_path, 8192) == 8192
    assert sorted(path.name for path in tmp_path.iterdir()) == [".abc.new", "whole"]
