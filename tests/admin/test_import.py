"""Importing from folders: what is published, what is refused, what stands already, and what changes meanwhile."""

import os
import random
import shutil
from collections import Counter
from collections.abc import Callable
from pathlib import Path

import pytest
import trio

from shardfs.admin.asking import Asking, AskingOptions
from shardfs.admin.copies import Copies
from shardfs.admin.external import find_external
from shardfs.admin.origin import LocalOrigin
from shardfs.admin.publish import Put, publish
from shardfs.admin.source import scan
from shardfs.admin.target import CopyOptions
from shardfs.admin.upload import Tally, UploadOptions
from shardfs.catalog import Catalog
from shardfs.core.chunk import BLOCK_SIZE, EXTERNAL, parse_header, parse_pointer, verify_chunk
from shardfs.core.cluster import Cluster, Node
from shardfs.core.digest import Digest
from shardfs.core.keys import CHUNKS, chunk_key, parse_key
from shardfs.core.manifest import Manifest
from shardfs.core.names import ModelName
from shardfs.core.placement import Placement
from shardfs.core.pointer import Pointer
from shardfs.errors import InvalidName, NotFound, ShardfsError, SourceError, Unavailable, UsageError
from shardfs.store.file import FileStore
from shardfs.store.fleet import Fleet
from shardfs.store.watched import WatchedStore
from shardfs.testing.memory_store import Fault, MemoryStore

PLACE = "models/llama"
SIZE = 5 * BLOCK_SIZE + 1000


class Meddled(FileStore):
    """Calls `meddle` when so many reads of others' files have ended. Several go on at a time."""

    reads = 0
    ended = 0
    after = -1
    failures = 0
    meddle: Callable[[], object] = staticmethod(lambda: None)

    async def get_external(self, path, into, *, offset, arrived=None):
        self.reads += 1
        if self.failures:
            self.failures -= 1
            raise Unavailable(self.node, "a bad moment")
        count = await super().get_external(path, into, offset=offset, arrived=arrived)
        self.ended += 1
        if self.ended == self.after:
            self.meddle()
        return count


class Rig:
    """Node a is a folder with other people's files in it; b, c, d are in memory."""

    def __init__(self, root: Path) -> None:
        self.root = root / "a"
        self.folder = self.root / PLACE
        self.folder.mkdir(parents=True)
        self.a = Meddled("a", self.root)
        self.memory = {name: MemoryStore(name) for name in "bcd"}
        urls = {"a": f"file://{self.root}", **{name: f"http://{name}" for name in "bcd"}}
        self.cluster = Cluster(tuple(Node(name, url) for name, url in urls.items()), 2, BLOCK_SIZE)
        self.fleet = Fleet([WatchedStore(store) for store in (self.a, *self.memory.values())])
        self.catalog = Catalog(self.fleet, self.cluster)
        self.tally = Tally()

    def copies(self) -> Copies:
        options = CopyOptions(pause_first=0.001, pause_max=0.001)
        return Copies(self.fleet, Placement(self.cluster), options=options, chance=lambda: 0.5)

    def asking(self, node: str = "a") -> Asking:
        return Asking(self.fleet[node], options=AskingOptions(pause_first=0.001, pause_max=0.001))

    async def run(self, place: str = PLACE, name: str = "llama") -> Put:
        self.tally = Tally()
        origin = await find_external(self.asking(), place)
        return await publish(
            origin, name, copies=self.copies(), catalog=self.catalog, created=1700000000, tally=self.tally
        )

    async def put(self, name: str = "llama") -> Put:
        self.tally = Tally()
        return await publish(
            LocalOrigin(scan(str(self.folder))),
            name,
            copies=self.copies(),
            catalog=self.catalog,
            created=1700000000,
            tally=self.tally,
        )

    async def manifest(self, name: str = "llama") -> Manifest:
        return await self.catalog.manifest((await self.catalog.resolve(ModelName.parse(name))).manifest)

    def stored(self) -> dict[str, dict[Digest, bytes]]:
        """All chunks of each node, verified."""
        found: dict[str, dict[Digest, bytes]] = {}
        for name, store in self.memory.items():
            found[name] = {Digest.parse(key[-64:]): data for key, data in store.objects.items() if key.kind == CHUNKS}
        found["a"] = {Digest.parse(path.name): path.read_bytes() for path in (self.root / "chunks").glob("??/*")}
        for chunks in found.values():
            for digest, data in chunks.items():
                verify_chunk(data, digest)
        return found

    def copies_of(self, digest: Digest) -> list[bytes]:
        return [chunks[digest] for chunks in self.stored().values() if digest in chunks]

    def pointers(self) -> list[Pointer]:
        """Of all chunks that have one."""
        found = []
        for chunks in self.stored().values():
            for digest, data in chunks.items():
                header = parse_header(data, digest)
                if header.codec == EXTERNAL:
                    found.append(parse_pointer(header, data, digest))
        return found

    async def visible(self) -> bool:
        return bool(await self.catalog.models())


@pytest.fixture
def rig(tmp_path: Path) -> Rig:
    return Rig(tmp_path)


@pytest.fixture
def weights(rig: Rig) -> Path:
    path = rig.folder / "weights.bin"
    path.write_bytes(random.Random(1).randbytes(SIZE))  # on the same nodes each time
    os.utime(path, (1000, 1000))  # of long ago: the next write may fall into the same tick of the kernel's clock
    return path


async def test_what_is_stored_are_pointers(rig: Rig, weights: Path) -> None:
    (rig.folder / "deep").mkdir()
    (rig.folder / "deep" / "zeros").write_bytes(bytes(3 * BLOCK_SIZE) + b"x")
    (rig.folder / "nothing").touch()
    (rig.folder / ".cache" / "huggingface").mkdir(parents=True)
    (rig.folder / ".cache" / "huggingface" / "books").write_text("kept by the downloader")
    done = await rig.run()
    assert (done.name, done.generation, done.files, done.chunks) == ("llama", 1, 3, 10)
    assert (done.bytes_sent, done.bytes_zero) == (5 * BLOCK_SIZE + 1001, 3 * BLOCK_SIZE)
    manifest = await rig.manifest()
    assert [(file.path, file.size) for file in manifest.files] == [
        ("deep/zeros", 3 * BLOCK_SIZE + 1),
        ("nothing", 0),
        ("weights.bin", 5 * BLOCK_SIZE + 1000),
    ]
    tag = f"mtime {os.stat(weights).st_mtime_ns}"
    assert sorted(rig.pointers(), key=lambda pointer: pointer.offset) == [
        Pointer("a", f"{PLACE}/weights.bin", offset, SIZE, tag)
        for offset in range(0, SIZE, BLOCK_SIZE)
        for _ in range(2)
    ]
    for digest, length in manifest.chunk_lengths().items():
        held = rig.copies_of(digest)
        assert len(held) == 2
        assert all(len(data) < 300 for data in held), "the one byte of `zeros` is shorter than a pointer"
        assert (parse_header(held[0], digest).codec == EXTERNAL) == (length > 1)


async def test_it_is_the_same_generation_as_an_upload_would_make(rig: Rig, weights: Path) -> None:
    imported = await rig.run()
    digests = set((await rig.manifest()).chunk_lengths())
    put = await rig.put("other")
    assert set((await rig.manifest("other")).chunk_lengths()) == digests
    assert imported.digest == put.digest


async def test_one_file_is_a_model_of_one_file(rig: Rig, weights: Path) -> None:
    done = await rig.run(f"{PLACE}/weights.bin", "w")
    assert (await rig.manifest("w")).single
    assert done.files == 1


async def test_a_second_import_finds_everything(rig: Rig, weights: Path) -> None:
    await rig.run()
    before = rig.stored()
    again = await rig.run()
    assert (again.unchanged, again.bytes_sent, again.bytes_present) == (True, 0, SIZE)
    assert rig.stored() == before


async def test_a_pointer_is_stored_without_a_question(rig: Rig, weights: Path) -> None:
    await rig.run()
    calls = [op for store in rig.memory.values() for op, key in store.calls if key.startswith(CHUNKS)]
    assert set(calls) == {"put"}


async def test_pointers_wait_beside_the_reading_and_are_bounded(rig: Rig, weights: Path) -> None:
    """More of them than there are workers are on their way at a time, and no more than allowed."""
    options = UploadOptions(buffer_bytes_max=1, workers_min=1, pointers_max=4)
    coming, most = Counter[str](), 0
    full = trio.Event()

    class Slow(MemoryStore):
        async def put(self, key, parts):
            nonlocal most
            coming[key] += 1
            most = max(most, len(+coming))
            if len(+coming) == options.pointers_max or key.kind != CHUNKS:
                full.set()
            await full.wait()
            created = await super().put(key, parts)
            coming[key] -= 1
            return created

    stores = [Slow(name) for name in "bcd"]
    fleet = Fleet([WatchedStore(store) for store in (rig.a, *stores)])
    nodes = [Node("a", f"file://{rig.root}", state="draining"), *(Node(name, f"http://{name}") for name in "bcd")]
    cluster = Cluster(tuple(nodes), 2, BLOCK_SIZE)
    origin = await find_external(Asking(fleet["a"]), PLACE)
    with trio.fail_after(30):
        done = await publish(
            origin,
            "llama",
            copies=Copies(fleet, Placement(cluster)),
            catalog=Catalog(fleet, cluster),
            created=1700000000,
            tally=Tally(),
            options=options,
        )
    assert done.bytes_sent == SIZE
    assert most == options.pointers_max


@pytest.mark.parametrize("what", ["external_stat", "list_external", "get_external"])
async def test_an_engine_that_says_nothing_ends_an_import_by_its_deadline(
    rig, autojump_clock, monkeypatch: pytest.MonkeyPatch, what: str
) -> None:
    """Once. From the first question, with the listing, or in the middle of a file."""
    asked = 0

    async def hang(*args: object, **options: object) -> object:
        nonlocal asked
        asked += 1
        return await trio.sleep_forever()

    async def is_folder(path: str) -> object:
        raise NotFound(path)

    monkeypatch.setattr(rig.a, "external_stat", is_folder)
    monkeypatch.setattr(rig.a, what, hang)
    options = AskingOptions()
    began = trio.current_time()
    if what == "get_external":
        asking = rig.asking().read(f"{PLACE}/x", memoryview(bytearray(BLOCK_SIZE)), 0)
    else:
        asking = find_external(rig.asking(), PLACE)
    with pytest.raises(Unavailable, match="no answer within"):
        await asking
    assert asked == 1
    limit = {"external_stat": options.question, "list_external": options.listing, "get_external": options.question + 1}
    assert trio.current_time() - began == pytest.approx(limit[what])


# ------------------------------------------------------------------------------------------------ what stands there


async def test_an_upload_stores_the_bytes_in_place_of_the_pointers(rig: Rig, weights: Path) -> None:
    """Or somebody would delete the objects, in the belief that the model is stored."""
    await rig.run()
    done = await rig.put()
    assert (done.unchanged, done.bytes_sent, done.bytes_present) == (True, SIZE, 0)
    assert rig.pointers() == []
    for digest in (await rig.manifest()).chunk_lengths():
        assert len(rig.copies_of(digest)) == 2


async def test_an_import_leaves_the_bytes_where_they_are(rig: Rig, weights: Path) -> None:
    await rig.put()
    before = rig.stored()
    done = await rig.run()
    assert (done.bytes_sent, done.bytes_present) == (0, SIZE)
    assert rig.stored() == before


async def test_pointers_to_what_is_gone_are_replaced(rig: Rig, weights: Path) -> None:
    await rig.run()
    rig.folder.rename(rig.root / "moved")
    done = await rig.run("moved")
    assert done.bytes_sent == 5 * BLOCK_SIZE + 1000
    assert {pointer.path for pointer in rig.pointers()} == {"moved/weights.bin"}


async def test_pointers_that_still_lead_there_are_kept(rig: Rig, weights: Path) -> None:
    await rig.run()
    twin = rig.root / "twin"
    twin.mkdir()
    shutil.copyfile(weights, twin / "weights.bin")
    done = await rig.run("twin", "twin")
    assert (done.bytes_sent, done.bytes_present) == (0, SIZE)
    assert {pointer.path for pointer in rig.pointers()} == {f"{PLACE}/weights.bin"}


async def test_a_pointer_comes_back_when_the_bytes_cannot_be_stored(rig: Rig, weights: Path) -> None:
    await rig.run()
    before = {node: dict(store.objects) for node, store in rig.memory.items()}
    faults = [Fault(op="put", key=CHUNKS, error="disk on fire", times=3) for _ in rig.memory]
    for store, fault in zip(rig.memory.values(), faults, strict=True):
        store.faults.append(fault)
    await rig.put()
    assert any(fault.hits for fault in faults)
    for node, objects in before.items():
        assert objects.keys() <= rig.memory[node].objects.keys()


async def test_rubbish_under_the_name_of_a_chunk_is_not_taken_for_a_pointer(rig: Rig, weights: Path) -> None:
    await rig.run()
    digest = next(iter((await rig.manifest()).chunk_lengths()))
    for store in rig.memory.values():
        held = store.objects.get(chunk_key(digest))
        if held is not None:
            store.objects[chunk_key(digest)] = held[:-1] + b"\xff"
    hurt = [node for node, store in rig.memory.items() if chunk_key(digest) in store.objects]
    done = await rig.put()
    assert set(done.replaced_nodes) == set(hurt)
    assert all("bytes instead of" in replaced.reason for replaced in done.replaced_nodes.values())


# ------------------------------------------------------------------------------------------- changed in the meantime

CHANGES: dict[str, tuple[Callable[[Path], object], str]] = {
    "written": (lambda path: path.write_bytes(os.urandom(path.stat().st_size)), "changed"),
    "longer": (lambda path: path.write_bytes(path.read_bytes() + b"x"), "changed"),
    "shorter": (lambda path: os.truncate(path, BLOCK_SIZE), "changed"),
    "touched": (lambda path: os.utime(path, (1, 1)), "changed"),
    "removed": (lambda path: path.unlink(), "changed|disappeared"),
    "another": (lambda path: (path.parent / "a new one").write_text("x"), "appeared"),
    "another later": (lambda path: (path.parent / "z new one").write_text("x"), "appeared"),
}


@pytest.mark.parametrize("change", CHANGES)
@pytest.mark.parametrize("after", [1, 6])
async def test_what_changes_while_it_is_read_is_not_published(rig: Rig, weights: Path, change: str, after: int) -> None:
    meddle, said = CHANGES[change]
    rig.a.after, rig.a.meddle = after, lambda: meddle(weights)
    with pytest.raises(SourceError, match=rf"node a: {PLACE}.* ({said}) while it was being imported"):
        await rig.run()
    assert not await rig.visible()


async def test_a_file_that_goes_away_is_missed_at_the_end(rig: Rig, weights: Path) -> None:
    (rig.folder / "tiny").write_text("x" * 200)
    rig.a.after, rig.a.meddle = 7, (rig.folder / "tiny").unlink
    with pytest.raises(SourceError, match=f"node a: {PLACE}/tiny disappeared while"):
        await rig.run()


async def test_a_bad_moment_is_waited_for(rig: Rig, weights: Path) -> None:
    rig.a.failures = 3
    await rig.run()
    assert rig.a.reads == 6 + 3
    rig.a.failures = 1000
    with pytest.raises(Unavailable, match="a bad moment"):
        await rig.run()


# ----------------------------------------------------------------------------------------------------- what is refused


@pytest.mark.parametrize(
    ("make", "error", "said"),
    [
        (
            lambda folder: (folder / "link").symlink_to("/etc/passwd"),
            SourceError,
            "link is a link, which is not followed",
        ),
        (lambda folder: (folder / "links").symlink_to("/etc"), SourceError, "links is a link"),
        (lambda folder: os.mkfifo(folder / "pipe"), SourceError, "pipe is not a regular file"),
        (lambda folder: (folder / "a\\b").touch(), SourceError, "node a: file name"),
        (lambda folder: (folder / "a\nb").touch(), SourceError, "node a: file name"),
    ],
    ids=["link", "link to a folder", "pipe", "backslash", "newline"],
)
async def test_what_cannot_be_imported_is_named(
    rig: Rig, weights: Path, make: Callable[[Path], object], error: type[ShardfsError], said: str
) -> None:
    make(rig.folder)
    with pytest.raises(error, match=said):
        await rig.run()
    assert rig.a.reads == 0


async def test_a_link_on_the_way_is_not_followed(rig: Rig, weights: Path) -> None:
    (rig.root / "shortcut").symlink_to(rig.folder)
    with pytest.raises(NotFound):
        await rig.run("shortcut")
    with pytest.raises(NotFound):
        await rig.run("shortcut/weights.bin")
    with pytest.raises(NotFound):
        await rig.run(f"{PLACE}/weights.bin/more")


@pytest.mark.parametrize("place", ["..", "a/../../b", "/etc/passwd", "", "a//b", "a\0b"])
async def test_paths_out_of_the_engine_are_refused(rig: Rig, place: str) -> None:
    with pytest.raises(InvalidName, match="PATH"):
        await rig.run(place)


async def test_its_own_objects_are_no_model(rig: Rig, weights: Path) -> None:
    await rig.put()
    assert any(parse_key(str(path.relative_to(rig.root))) for path in (rig.root / "chunks").glob("??/*"))
    for place in ("chunks", "manifests"):
        with pytest.raises(UsageError, match="is shardfs's own"):
            await rig.run(place)


async def test_a_node_without_other_files_says_so(rig: Rig) -> None:
    with pytest.raises(UsageError, match="node b is no place of other people's files"):
        await find_external(rig.asking("b"), PLACE)
