"""Nodes that die, hang, come back, lie or hold damaged copies while a program reads from the mount."""

import errno
import hashlib
import os
import time

import pytest

from shardfs.core.chunk import BLOCK_SIZE
from tests.e2e.conftest import BIG_BYTES
from tests.e2e.rig import (
    LIES,
    Reader,
    Result,
    chunk_copies,
    damage,
    flip_block,
    lying_node,
    manifest_copies,
    read,
)  # fmt: skip
from tests.mount.kit import MiB, forget_pages, runs, until

pytestmark = pytest.mark.fuse
DEADLINE_SECONDS = 10.0  # the default of --read-timeout
SLACK_SECONDS = 5.0  # less than the deadline, and no more a question of the machine's speed than need be


def assert_whole(result: Result, sha256: str, size: int = BIG_BYTES) -> None:
    assert (result.error, result.size, result.sha256) == (None, size, sha256)
    assert result.longest < DEADLINE_SECONDS


# ----------------------------------------------------------------------------------------- in the middle of a read


@pytest.mark.parametrize("way", ["read", "mmap", "direct"])
def test_a_node_is_killed_in_the_middle_of_a_read(cluster, big, place, way, logged):
    """The first bytes come with three nodes, the rest with two. No error, no wrong byte, no SIGBUS."""
    place.mount("--no-cache")
    with Reader(place.path / "big.bin", way, 16 * MiB) as reader:
        assert reader.paused_at() < BIG_BYTES // 2
        victim = cluster.pid("b")
        cluster.kill("b")
        assert not runs(victim)
        assert_whole(reader.result(), big)
    # It is back: used again without a new mount, and found to be well if anybody had noticed its death: all that was
    # still wanted may have been under way from the other two.
    cluster.start("b")
    until(lambda: logged("node b answers again") == logged("node b is suspect"), what="node b's return")
    forget_pages(place.path / "big.bin")
    cluster.kill("a")
    assert_whole(read(place.path / "big.bin", way), big)


def test_a_node_hangs_in_the_middle_of_a_read_and_comes_back(cluster, big, place, logged):
    """SIGSTOP, then SIGCONT while the read still goes on: late answers are never mixed in."""
    place.mount("--no-cache")
    with Reader(place.path / "big.bin", "read", 16 * MiB) as reader:
        reader.paused_at()
        cluster.pause("b")
        for _ in range(5):  # 20 chunks, of which b is asked for some
            reader.go_on()
            reader.paused_at()
        until(lambda: logged("node b is suspect: silent") > 0, what="the node that hangs being found out")
        cluster.resume("b")
        result = reader.result()
    assert_whole(result, big)
    assert result.longest < SLACK_SECONDS, "it waited for the node that hung"


def test_nodes_die_and_return_one_after_the_other(cluster, big, place, logged):
    """At every moment two of three are there, so that every chunk has a copy; the read never notices."""
    place.mount("--no-cache", "--memory", "64MiB")
    with Reader(place.path / "big.bin", "read", 16 * MiB) as reader:
        for step in range(BIG_BYTES // (16 * MiB)):
            reader.paused_at()
            node = "abc"[step // 2 % 3]
            if step % 2 == 0:
                cluster.kill(node)
            else:
                cluster.start(node)
            reader.go_on()
        assert_whole(reader.result(), big)
    assert logged("is suspect"), "nobody asked a node that was dead"


# ------------------------------------------------------------------------------------------------- all copies gone


@pytest.mark.parametrize("fault", ["killed", "hung"])
def test_without_any_node(cluster, publish, place, fault, logged):
    """An error within the deadline, then at once; names and sizes go on; and so do reads when the nodes are back."""
    content = publish("m.bin", 9 * MiB)
    place.mount("--no-cache")
    path = place.path / "m.bin"
    fd = os.open(path, os.O_RDONLY)
    try:
        for node in cluster.node_ids:
            (cluster.kill if fault == "killed" else cluster.pause)(node)
        assert seconds_until_eio(fd, 5 * MiB) < DEADLINE_SECONDS + SLACK_SECONDS
        for offset in (5 * MiB, 5 * MiB + 4096):
            assert seconds_until_eio(fd, offset) < SLACK_SECONDS
        assert os.stat(path).st_size == len(content)
        assert "m.bin" in os.listdir(place.path)
        for node in cluster.node_ids:
            (cluster.start if fault == "killed" else cluster.resume)(node)
        # Each chunk has other owners, and each node is found to be well in its own time.
        chunks = range(0, len(content), 4 * MiB)
        until(lambda: all(readable(fd, at) for at in chunks), what="reads that work")
        until(lambda: logged("answers again") == logged("is suspect") >= 2, what="the log of the nodes' return")
        assert os.pread(fd, 4096, 5 * MiB) == content[5 * MiB :][:4096]
    finally:
        os.close(fd)
    assert path.read_bytes() == content


def test_without_any_node_and_with_the_default_deadline(cluster, publish, place):
    publish("m.bin", 5 * MiB)
    place.mount("--no-cache")
    fd = os.open(place.path / "m.bin", os.O_RDONLY)
    try:
        for node in cluster.node_ids:
            cluster.pause(node)
        assert seconds_until_eio(fd, MiB) < DEADLINE_SECONDS + SLACK_SECONDS
    finally:
        os.close(fd)


def test_with_one_node_left(cluster, publish, place):
    """Two of three are gone: chunks with a copy on the third are read, the others fail, in one and the same file."""
    content = publish("m.bin", 48 * MiB)
    copies = chunk_copies(cluster, "m.bin")
    place.mount("--no-cache", "--read-timeout", "3")
    fd = os.open(place.path / "m.bin", os.O_RDONLY | os.O_DIRECT)
    cluster.kill("a")
    cluster.kill("b")
    try:
        alive = [any(path.is_relative_to(cluster.data("c")) for path in paths) for paths in copies]
        assert True in alive
        for chunk, there in enumerate(alive):
            offset = chunk * 4 * MiB
            if there:
                assert os.pread(fd, MiB, offset) == content[offset : offset + MiB], chunk
            else:
                assert seconds_until_eio(fd, offset) < 3 + SLACK_SECONDS
    finally:
        os.close(fd)


def seconds_until_eio(fd: int, offset: int) -> float:
    began = time.monotonic()
    with pytest.raises(OSError, match=f"Errno {errno.EIO}"):
        os.pread(fd, 4096, offset)
    return time.monotonic() - began


def readable(fd: int, offset: int) -> bool:
    try:
        return len(os.pread(fd, 4096, offset)) > 0
    except OSError as error:
        if error.errno != errno.EIO:
            raise
        return False


# -------------------------------------------------------------------------------------------------- damaged copies


@pytest.mark.parametrize("kind", ["flipped", "cut", "missing", "empty"])
def test_one_copy_of_every_chunk_is_damaged(cluster, publish, place, kind):
    content = publish(f"{kind}.bin", 14 * MiB)
    copies = chunk_copies(cluster, f"{kind}.bin")
    assert [len(paths) for paths in copies] == [2, 2, 2, 2]
    for number, paths in enumerate(copies):
        damage(paths[number % 2], kind)
    place.mount("--no-cache")
    assert_whole(read(place.path / f"{kind}.bin"), hashlib.sha256(content).hexdigest(), len(content))


def test_a_block_that_is_bad_everywhere_fails_alone(cluster, publish, place):
    """EIO for that range; the rest of the file is read, from before it, behind it and around it."""
    content = publish("bad.bin", 12 * MiB)
    block = 16 + 5  # block 5 of chunk 1
    for path in chunk_copies(cluster, "bad.bin")[1]:
        flip_block(path, 5)
    place.mount("--no-cache", "--read-timeout", "3")
    path = place.path / "bad.bin"
    result = read(path)
    assert result.error == "EIO"
    assert result.size <= block * BLOCK_SIZE
    assert result.sha256 == hashlib.sha256(content[: result.size]).hexdigest()
    fd = os.open(path, os.O_RDONLY | os.O_DIRECT)
    try:
        for number in range(len(content) // BLOCK_SIZE):
            offset = number * BLOCK_SIZE
            if number == block:
                assert seconds_until_eio(fd, offset) < 3 + SLACK_SECONDS
            else:
                assert os.pread(fd, BLOCK_SIZE, offset) == content[offset : offset + BLOCK_SIZE], number
    finally:
        os.close(fd)
    assert os.stat(path).st_size == len(content)


def test_copies_that_are_bad_in_different_places(cluster, publish, place):
    content = publish("halves.bin", 4 * MiB)
    (paths,) = chunk_copies(cluster, "halves.bin")
    flip_block(paths[0], 3)
    flip_block(paths[1], 9)
    place.mount("--no-cache")
    assert_whole(read(place.path / "halves.bin"), hashlib.sha256(content).hexdigest(), len(content))


@pytest.mark.parametrize("text", [b"", b"<html>404</html>", b"SHFM\x01\xff\xff\xff\xff"], ids=["empty", "html", "cut"])
def test_manifests_that_were_tampered_with(cluster, publish, place, text):
    """On one node: nobody notices. On all: that model fails, the others go on, and so does `ls`."""
    content, other = publish("tampered.bin", 5 * MiB), publish("other.bin", 3 * MiB)
    copies = manifest_copies(cluster, "tampered.bin")
    original = copies[0].read_bytes()
    assert len(copies) >= 2
    try:
        overwrite(copies[0], text)
        place.mount("--no-cache", "--read-timeout", "3")
        assert (place.path / "tampered.bin").read_bytes() == content
        assert place.umount().returncode == 0
        for path in copies:
            overwrite(path, text)
        place.mount("--no-cache", "--read-timeout", "3")
        with pytest.raises(OSError, match=f"Errno {errno.EIO}"):
            (place.path / "tampered.bin").read_bytes()
        assert (place.path / "other.bin").read_bytes() == other
        assert "other.bin" in os.listdir(place.path)
    finally:
        for path in copies:
            overwrite(path, original)


def overwrite(path, data: bytes) -> None:
    path.chmod(0o600)
    path.write_bytes(data)


# ----------------------------------------------------------------------------------------------------- lying nodes


@pytest.mark.parametrize("lie", LIES)
def test_a_node_that_lies(cluster, publish, place, lie):
    """What answers at the address of a node says anything but the truth: the others' bytes are read."""
    content = publish("truth.bin", 24 * MiB)
    with lying_node(cluster, "b", lie) as requests:
        place.mount("--no-cache")
        assert "truth.bin" in os.listdir(place.path)
        assert_whole(read(place.path / "truth.bin"), hashlib.sha256(content).hexdigest(), len(content))
        assert requests, "the liar was never asked"
