"""How long a download is patient, in virtual time: by what comes, not by the clock alone.

Files are written in threads, during which virtual time may jump: no test here measures how much of it has passed.
"""

import ctypes
import fcntl
import os
import resource
import stat
import tempfile
import threading
from pathlib import Path

import pytest
import trio

from shardfs.admin import download
from shardfs.admin.download import Download, DownloadOptions
from shardfs.admin.part import PART_SUFFIX, finish_part, open_part, part_path
from shardfs.admin.upload import Tally
from shardfs.api.get import patience
from shardfs.core.chunk import make_header
from shardfs.core.digest import DIGEST_BYTES
from shardfs.core.keys import chunk_key
from shardfs.core.manifest import make_manifest
from shardfs.errors import DeadlineExceeded, NoCopy, SourceError
from shardfs.testing.faults import Ask, Fault, Kind, well
from shardfs.wiring import reader
from tests.fetch.world import BLOCK, RUN, World

CHUNKS = 4
LIMIT = 60.0


class Rig:
    """A model of two files, `first` of one chunk and `second` of `CHUNKS`, on three nodes with two copies."""

    def __init__(self, dest):
        self.options = DownloadOptions(stall_seconds=LIMIT)
        self.world = World(sizes=[RUN] * (1 + CHUNKS), slots=16)
        self.dest = dest
        files = [("first", RUN, False), ("second", CHUNKS * RUN, False)]
        digests = b"".join(bytes(digest) for digest in self.world.digests)
        self.manifest = make_manifest(files, digests, created=1, chunk_size=RUN, block_size=BLOCK)

    async def download(self):
        """Download and compare; the tally."""
        tally = await self.run()
        world = self.world
        assert (self.dest / "first").read_bytes() == world.chunks[world.digests[0]]
        assert (self.dest / "second").read_bytes() == b"".join(world.chunks[name] for name in world.digests[1:])
        return tally

    async def run(self):
        tally = Tally()
        world = self.world
        job = Download(
            self.manifest,
            self.dest,
            world.engine,
            fleet=world.fleet,
            metrics=world.metrics,
            tally=tally,
            options=self.options,
        )
        await job.run()
        return tally

    def part(self, number):
        """Where file `number` of the manifest is written."""
        entry = self.manifest.files[number]
        return part_path(self.dest / entry.path, self.manifest, entry)

    def all(self, **state):
        for node in self.world.nodes.values():
            for name, value in state.items():
                setattr(node, name, value)

    async def after_first(self, **state):
        """As soon as the first file is there, this is how all nodes are."""
        while not (self.dest / "first").exists():  # noqa: ASYNC110 - a file tells nobody
            await trio.sleep(0.001)
        self.all(**state)


@pytest.fixture
def rig(tmp_path):
    return Rig(tmp_path / "dest")


@pytest.mark.parametrize("away", [{"hung": True}, {"up": False}], ids=["hung", "down"])
async def test_nodes_that_come_back_in_time_are_waited_for(rig, away, autojump_clock):
    rig.all(**away)

    async def back():
        await trio.sleep(LIMIT - 5)
        rig.all(up=True, hung=False)

    async with rig.world.running(), trio.open_nursery() as nursery:
        nursery.start_soon(back)
        await rig.download()


@pytest.mark.parametrize("away", [{"hung": True}, {"up": False}], ids=["hung", "down"])
async def test_when_nothing_comes_any_more_it_ends_and_what_is_whole_stays(rig, away, autojump_clock):
    async with rig.world.running():
        async with trio.open_nursery() as nursery:
            nursery.start_soon(lambda: rig.after_first(**away))
            rig.all(bandwidth=RUN / 1.0)  # the fault comes before the second file does
            with pytest.raises(DeadlineExceeded) as caught:
                await rig.download()
        said = str(caught.value)
        assert said.startswith("second: no block of 4.00 KiB has come for 60 s (chunk ")
        assert "node n0" in said
        assert (rig.dest / "first").exists()
        assert not (rig.dest / "second").exists()
        rig.all(up=True, hung=False)
        tally = await rig.download()
    assert tally.present >= RUN
    assert tally.present + tally.sent == (1 + CHUNKS) * RUN


async def test_an_outage_is_not_told_of_all_the_time(rig, autojump_clock):
    rig.all(up=False)
    async with rig.world.running():
        with pytest.raises(DeadlineExceeded):
            await rig.download()
    failed = rig.world.metrics.total(rig.world.metrics.reads_failed)
    assert 3 <= failed < LIMIT / 2


async def test_as_long_as_something_comes_it_goes_on(rig, autojump_clock):
    """Each chunk takes longer than the engine tries, and all of them more than the limit."""
    rig.all(bandwidth=BLOCK / 4.0, piece=512)
    async with rig.world.running():
        await rig.download()


@pytest.mark.parametrize("limit", [0.1, 3.0, 5.0, 10.0, 60.0])
def test_what_runs_out_of_time_is_not_what_nobody_has(limit):
    """What the engine gives up for want of time never counts as given up sooner, however short its time is."""
    reading, options = patience(limit, overwrite=False)
    assert reading.read_timeout_seconds <= options.stall_seconds == limit
    assert options.job_seconds < reading.read_timeout_seconds * reader._JOB_SHARE


async def test_bytes_that_never_become_a_block_are_nothing(rig, autojump_clock):
    """A drip feed: a byte now and then, a block in a week."""
    rig.all(bandwidth=BLOCK / 604800.0, piece=1)
    async with rig.world.running():
        with pytest.raises(DeadlineExceeded):
            await rig.download()


async def test_what_nobody_has_is_not_waited_for(rig, autojump_clock):
    lost = chunk_key(rig.world.digests[2])
    for node in rig.world.nodes.values():
        node.objects.pop(lost, None)
    async with rig.world.running():
        with pytest.raises(NoCopy, match="no node has a good copy"):
            await rig.download()


async def test_what_only_a_node_that_is_away_may_have_is_waited_for(rig, autojump_clock):
    """One copy is lost, the node with the other is down for a while."""
    here, away = rig.world.owners(2)
    del rig.world.nodes[here].objects[chunk_key(rig.world.digests[2])]
    rig.world.nodes[away].up = False

    async def back():
        while rig.world.metrics.total(rig.world.metrics.reads_failed) < 5:  # noqa: ASYNC110 - a counter tells nobody
            await trio.sleep(0.1)
        rig.world.nodes[away].up = True

    async with rig.world.running(), trio.open_nursery() as nursery:
        nursery.start_soon(back)
        await rig.download()


# --------------------------------------------------------------------------------------------- a file half-written


async def stopped_in_the_middle(rig):
    """A run that got the first file and two chunks of the second; what it left."""
    out_of_reach = {chunk_key(digest) for digest in rig.world.digests[3:]}

    def plan(ask: Ask) -> Fault | None:
        return Fault(Kind.HANG) if ask.key in out_of_reach else None

    rig.world.set_plan(plan)
    with pytest.raises(DeadlineExceeded):
        await rig.download()
    rig.world.set_plan(well)
    part = rig.part(1)
    assert sorted(os.listdir(rig.dest)) == ["first", part.name]
    return part


async def test_a_second_run_goes_on_within_a_file(rig, autojump_clock):
    async with rig.world.running():
        await stopped_in_the_middle(rig)
        tally = await rig.download()
    assert (tally.present, tally.sent) == (3 * RUN, 2 * RUN)
    assert sorted(os.listdir(rig.dest)) == ["first", "second"]


async def test_what_a_first_run_left_is_not_believed(rig, autojump_clock):
    async with rig.world.running():
        part = await stopped_in_the_middle(rig)
        with part.open("r+b") as file:
            file.seek(RUN + 5)
            byte = file.read(1)
            file.seek(RUN + 5)
            file.write(bytes([byte[0] ^ 1]))
        tally = await rig.download()
    assert (tally.present, tally.sent) == (2 * RUN, 3 * RUN)


async def test_a_file_of_another_generation_leaves_nothing_in_a_hole(rig, autojump_clock):
    digests = bytes(DIGEST_BYTES) + bytes(rig.world.digests[0]) + bytes(DIGEST_BYTES)
    rig.manifest = make_manifest([("f", 3 * RUN, False)], digests, created=1, chunk_size=RUN, block_size=BLOCK)
    rig.dest.mkdir()
    async with rig.world.running():
        for mode in (0o755, 0o644):
            rig.part(0).write_bytes(os.urandom(5 * RUN))
            rig.part(0).chmod(mode)
            tally = await rig.run()
            assert (rig.dest / "f").read_bytes() == bytes(RUN) + rig.world.chunks[rig.world.digests[0]] + bytes(RUN)
            assert not (rig.dest / "f").stat().st_mode & 0o111
            assert (tally.zero, tally.present, tally.sent) == (2 * RUN, 0, RUN)
            (rig.dest / "f").unlink()


async def test_two_downloads_do_not_write_one_file(rig, autojump_clock):
    rig.dest.mkdir()
    with rig.part(0).open("wb") as other:
        fcntl.flock(other, fcntl.LOCK_EX)
        async with rig.world.running():
            with pytest.raises(SourceError, match="another download"):
                await rig.download()
    assert os.listdir(rig.dest) == [rig.part(0).name]


def test_a_part_that_another_download_writes_is_left_to_it(tmp_path):
    """Also when the two want it with different modes."""
    part = tmp_path / "x"
    fd = open_part(part, executable=False)
    with pytest.raises(SourceError, match="another download"):
        open_part(part, executable=True)
    assert os.path.samestat(os.fstat(fd), part.lstat())
    assert not part.stat().st_mode & 0o111
    finish_part(part, fd, tmp_path / "whole")
    os.close(fd)
    assert os.listdir(tmp_path) == ["whole"]


@pytest.mark.parametrize("executable", [False, True])
def test_a_part_with_another_mode_is_gone_on_with(tmp_path, executable):
    part = tmp_path / "x"
    part.write_bytes(b"begun")
    part.chmod(0o640 if executable else 0o751)
    fd = open_part(part, executable=executable)
    assert os.pread(fd, 9, 0) == b"begun"
    os.close(fd)
    assert part.stat().st_mode & 0o777 == (0o750 if executable else 0o640)


def test_a_part_that_others_could_write_is_closed_to_them(tmp_path):
    part = tmp_path / "x"
    for mode, umask, wanted in [(0o666, 0o022, 0o644), (0o664, 0o002, 0o664), (0o4666, 0o077, 0o644)]:
        part.write_bytes(b"begun")
        part.chmod(mode)
        before = os.umask(umask)
        try:
            os.close(open_part(part, executable=False))
            assert os.umask(umask) == umask
        finally:
            os.umask(before)
        assert stat.S_IMODE(part.stat().st_mode) == wanted


def test_its_mode_is_made_without_a_change_of_the_umask(tmp_path, monkeypatch):
    """It is the whole process's: what another thread creates meanwhile would have another mode."""

    def changed(_mask):
        raise AssertionError("changed for all threads")

    part = tmp_path / "x"
    part.write_bytes(b"begun")
    part.chmod(0o666)
    before = os.umask(0o002)
    try:
        with monkeypatch.context() as patch:
            patch.setattr(os, "umask", changed)
            os.close(open_part(part, executable=False))
    finally:
        os.umask(before)
    assert stat.S_IMODE(part.stat().st_mode) == 0o664


@pytest.mark.skipif(os.geteuid() != 0, reason="only root creates files that are another user's")
def test_a_part_is_ours_where_the_filesystem_gives_what_we_create_to_another():
    """As NFS with root_squash, vfat with uid=, and others do. Here the kernel does it, for this thread."""
    libc = ctypes.CDLL(None)
    with tempfile.TemporaryDirectory() as folder:  # all above it may be entered by that other user
        os.chmod(folder, 0o777)
        part = Path(folder, "x")
        libc.setfsuid(65534)
        try:
            fd = open_part(part, executable=False)
            os.write(fd, b"begun")
            os.close(fd)
            fd = open_part(part, executable=False)
        finally:
            libc.setfsuid(os.geteuid())
        assert os.pread(fd, 9, 0) == b"begun"
        assert os.fstat(fd).st_uid == 65534
        os.close(fd)
        assert os.listdir(folder) == ["x"]


def plant(kind, part, tmp_path):
    """What somebody else may have put where a part is to be. Parts are in a folder of their own."""
    if kind == "hard link":
        (tmp_path / "precious").write_bytes(b"precious")
        os.link(tmp_path / "precious", part)
    elif kind == "symbolic link":
        (tmp_path / "precious").write_bytes(b"precious")
        part.symlink_to(tmp_path / "precious")
    elif kind == "fifo":
        os.mkfifo(part)
    elif kind == "folder":
        part.mkdir()
    else:
        part.write_bytes(b"of another user")
        os.chown(part, 65534, 65534)
        part.chmod(0o666)


@pytest.mark.parametrize(
    ("kind", "why"),
    [
        ("hard link", "another name"),
        ("symbolic link", "is a symbolic link"),
        ("fifo", "no regular file"),
        ("folder", "Is a directory"),
        pytest.param("other user", "another user", marks=pytest.mark.skipif(os.geteuid() != 0, reason="needs root")),
    ],
)
async def test_a_part_that_is_not_ours_is_refused_and_left_alone(rig, tmp_path, kind, why, autojump_clock):
    rig.dest.mkdir()
    part = rig.part(0)
    plant(kind, part, tmp_path)
    before = part.lstat()
    async with rig.world.running():
        with pytest.raises(SourceError, match=rf"{part.name}: .*{why}.*; delete it, and the same command begins"):
            await rig.download()
        assert part.lstat()[:8] == before[:8]
        assert os.listdir(rig.dest) == [part.name]
        if "link" in kind:
            assert (tmp_path / "precious").read_bytes() == b"precious"
        part.rmdir() if kind == "folder" else part.unlink()
        await rig.download()


@pytest.mark.parametrize("below", ["sub", "deep/er", "void"])
async def test_links_below_the_destination_are_not_followed(rig, tmp_path, below, autojump_clock):
    digests = b"".join(bytes(digest) for digest in rig.world.digests[:2])
    files = [("deep/er/f", RUN, False), ("sub/f", RUN, False)]
    rig.manifest = make_manifest(files, digests, created=1, folders=["void/x"], chunk_size=RUN, block_size=BLOCK)
    victim = tmp_path / "victim"
    victim.mkdir()
    link = rig.dest / below
    link.parent.mkdir(parents=True)
    link.symlink_to(victim)
    async with rig.world.running():
        with pytest.raises(SourceError, match=rf"dest/{below}: is a symbolic link"):
            await rig.run()
        assert os.listdir(victim) == []
        link.unlink()
        link.touch()
        with pytest.raises(SourceError, match=rf"dest/{below}: is in the way"):
            await rig.run()


async def test_the_destination_itself_may_be_a_link(rig, tmp_path, autojump_clock):
    (tmp_path / "elsewhere").mkdir()
    rig.dest.symlink_to(tmp_path / "elsewhere")
    async with rig.world.running():
        await rig.download()
    assert sorted(os.listdir(tmp_path / "elsewhere")) == ["first", "second"]


@pytest.mark.parametrize("taken", ["removed", "replaced"])
def test_only_what_was_written_gets_the_name(tmp_path, taken):
    part = tmp_path / "x"
    fd = open_part(part, executable=False)
    part.unlink()
    if taken == "replaced":
        part.write_bytes(b"half of somebody else's")
    with pytest.raises(SourceError, match="removed or replaced"):
        finish_part(part, fd, tmp_path / "whole")
    os.close(fd)
    assert not (tmp_path / "whole").exists()


async def test_different_contents_do_not_share_a_part(rig):
    before = rig.part(0)
    digests = b"".join(bytes(digest) for digest in reversed(rig.world.digests))
    files = [("first", RUN, False), ("second", CHUNKS * RUN, False)]
    rig.manifest = make_manifest(files, digests, created=1, chunk_size=RUN, block_size=BLOCK)
    assert rig.part(0) != before
    assert rig.part(0).name.startswith("first.")
    assert rig.part(0).name.endswith(PART_SUFFIX)


async def test_a_local_failure_keeps_what_has_come(rig, autojump_clock):
    """Nothing may be written beyond some place: a disk that is full says so with another number."""
    limits = resource.getrlimit(resource.RLIMIT_FSIZE)
    async with rig.world.running():
        part = await stopped_in_the_middle(rig)
        resource.setrlimit(resource.RLIMIT_FSIZE, (3 * RUN - 1, limits[1]))
        try:
            with pytest.raises(SourceError, match=rf"{part.name}: File too large; it is kept .*KiB\), .* goes on"):
                await rig.download()
        finally:
            resource.setrlimit(resource.RLIMIT_FSIZE, limits)
        tally = await rig.download()
    assert (tally.present, tally.sent) == (3 * RUN, 2 * RUN)


async def test_comparing_what_is_there_does_not_hold_up_an_end(rig, monkeypatch):
    digest = rig.world.digests[0]
    rig.manifest = make_manifest([("f", RUN, False)], bytes(digest), created=1, chunk_size=RUN, block_size=BLOCK)
    rig.dest.mkdir()
    (rig.dest / "f").write_bytes(rig.world.chunks[digest])
    begun, go = threading.Event(), threading.Event()

    def slowly(*arguments):
        begun.set()
        assert go.wait(60), "it was waited for"
        return make_header(*arguments)

    monkeypatch.setattr(download, "make_header", slowly)
    async with rig.world.running(), trio.open_nursery() as nursery:
        nursery.start_soon(rig.run)
        assert await trio.to_thread.run_sync(begun.wait, 60)
        nursery.cancel_scope.cancel()
    assert not go.is_set()
    go.set()


async def test_the_longest_name(rig, autojump_clock):
    name = "é" * 100 + "x" * 55  # 255 bytes
    digest = rig.world.digests[0]
    rig.manifest = make_manifest([(name, RUN, False)], bytes(digest), created=1, chunk_size=RUN, block_size=BLOCK)
    async with rig.world.running():
        await rig.run()
    assert (rig.dest / name).read_bytes() == rig.world.chunks[digest]
