"""How long a download is patient, in virtual time: by what comes, not by the clock alone.

Files are written in threads, during which virtual time may jump: no test here measures how much of it has passed.
"""

import os

import pytest
import trio

from shardfs.admin.download import Download, DownloadOptions
from shardfs.admin.upload import Tally
from shardfs.core.keys import chunk_key
from shardfs.core.manifest import make_manifest
from shardfs.errors import DeadlineExceeded, NoCopy
from tests.fetch.world import BLOCK, RUN, World

CHUNKS = 4
LIMIT = 60.0


class Rig:
    """A model of two files, `first` of one chunk and `second` of `CHUNKS`, on three nodes with two copies."""

    def __init__(self, dest):
        self.world = World(sizes=[RUN] * (1 + CHUNKS), slots=16)
        self.dest = dest
        files = [("first", RUN, False), ("second", CHUNKS * RUN, False)]
        digests = b"".join(bytes(digest) for digest in self.world.digests)
        self.manifest = make_manifest(files, digests, created=1, chunk_size=RUN, block_size=BLOCK)

    async def download(self):
        tally = Tally()
        world = self.world
        options = DownloadOptions(stall_seconds=LIMIT)
        job = Download(
            self.manifest,
            self.dest,
            world.engine,
            fleet=world.fleet,
            metrics=world.metrics,
            tally=tally,
            options=options,
        )
        await job.run()
        assert (self.dest / "first").read_bytes() == world.chunks[world.digests[0]]
        assert (self.dest / "second").read_bytes() == b"".join(world.chunks[name] for name in world.digests[1:])
        return tally

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
        assert said.startswith("second: nothing has come for 60 s (chunk ")
        assert "node n0" in said
        assert sorted(os.listdir(rig.dest)) == ["first"]
        rig.all(up=True, hung=False)
        tally = await rig.download()
    assert (tally.present, tally.sent) == (RUN, CHUNKS * RUN)


async def test_as_long_as_something_comes_it_goes_on(rig, autojump_clock):
    """Each chunk takes longer than the engine tries, and all of them more than the limit."""
    rig.all(bandwidth=BLOCK / 4.0, piece=512)
    async with rig.world.running():
        await rig.download()


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
