"""Hundreds of requests at once, of all kinds, and long answers.

What is not a read goes through a socket to libfuse and back: nothing may get lost there, since whoever waits for a lost
answer waits for ever.
"""

import ctypes
import errno
import os
import random
import sys
import threading
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor

import pytest

from tests.mount.kit import MiB, until
from tests.mount.opener import stopped, waiting

pytestmark = pytest.mark.fuse
ROOT_ONLY = pytest.mark.skipif(os.geteuid() != 0, reason="left out: takes root")
THREADS = 48
LIBC = ctypes.CDLL(None, use_errno=True)
FILES = 2500


@pytest.fixture(scope="module")
def crowd(cluster, tmp_path_factory) -> Iterator[dict[str, bytes]]:
    """The model `crowd`: thousands of files in one folder, with long names so that a listing takes many answers."""
    folder = tmp_path_factory.mktemp("crowd")
    chance = random.Random(5)
    content = {f"{number:05d}-{'n' * (number % 160)}": chance.randbytes(number % 50) for number in range(FILES)}
    content["big"] = chance.randbytes(6 * MiB + 1)
    for name, data in content.items():
        (folder / name).write_bytes(data)
    cluster.put(folder, "crowd")
    yield content
    cluster.run("rm", "crowd")


def test_many_threads_ask_all_kinds_of_things_at_once(place, crowd):
    """Each thread goes its own way through the same files; all answers are right."""
    place.mount("--cache-size", "256MiB")
    folder = place.path / "crowd"
    names = sorted(crowd)
    start = threading.Barrier(THREADS, timeout=60)

    def ask(number: int) -> None:
        chance = random.Random(number)
        fd = os.open(folder / "big", os.O_RDONLY)
        start.wait()
        try:
            for _ in range(40):
                name = chance.choice(names)
                path, expected = folder / name, crowd[name]
                kind = chance.randrange(6)
                if kind == 0:
                    assert os.stat(path).st_size == len(expected)
                elif kind == 1:
                    assert path.read_bytes() == expected
                elif kind == 2:
                    assert os.getxattr(path, "user.shardfs.model") == b"crowd"
                    assert len(os.listxattr(path)) == 5
                elif kind == 3:
                    with pytest.raises(FileNotFoundError):
                        os.stat(folder / f"no-{chance.random()}")
                elif kind == 4:
                    at = chance.randrange(len(crowd["big"]))
                    os.posix_fadvise(fd, 0, 0, os.POSIX_FADV_DONTNEED)
                    assert os.pread(fd, 300_000, at) == crowd["big"][at : at + 300_000]
                elif chance.randrange(8) == 0:
                    assert sorted(os.listdir(folder)) == names
        finally:
            os.close(fd)

    with ThreadPoolExecutor(THREADS) as pool:
        list(pool.map(ask, range(THREADS)))
    assert "Traceback" not in place.log.read_text()


@ROOT_ONLY
def test_a_stopped_daemon_finds_hundreds_of_questions(place, crowd):
    """They all go to the socket in one turn, and come back."""
    pid = place.mount("--no-cache")["pid"]
    folder = place.path / "crowd"
    names = sorted(crowd)
    os.listdir(place.path)
    os.stat(folder)
    many = 300

    def look(number: int) -> int:
        """A lookup, a question that the kernel cannot answer from what it knows."""
        return os.stat(folder / names[number]).st_size

    with ThreadPoolExecutor(many) as pool:
        with stopped(pid):
            # How many lookups in one folder wait at once is for the kernel to say; of the others all do.
            answers = [pool.submit(look, number) for number in range(many // 3)]
            answers += [pool.submit(os.statvfs, place.path) for _ in range(many // 3)]
            answers += [pool.submit(os.getxattr, folder, "user.shardfs.model") for _ in range(many // 3)]
            until(lambda: waiting(place) >= 2 * (many // 3), what="the questions")
        found = [answer.result(timeout=60) for answer in answers]
    assert found[: many // 3] == [len(crowd[names[number]]) for number in range(many // 3)]
    assert {space.f_namemax for space in found[many // 3 : 2 * (many // 3)]} == {255}
    assert set(found[2 * (many // 3) :]) == {b"crowd"}
    until(lambda: waiting(place) == 0, what="the end of all questions")


@ROOT_ONLY
def test_hundreds_of_listings_at_once(place, crowd):
    """The longest answers there are, all waiting at once: none is lost on the way back."""
    pid = place.mount("--no-cache")["pid"]
    folder = place.path / "crowd"
    many = 200
    folders = [os.open(folder, os.O_RDONLY | os.O_DIRECTORY) for _ in range(many)]
    try:
        with ThreadPoolExecutor(many) as pool:
            with stopped(pid):
                answers = [pool.submit(entries, fd) for fd in folders]
                until(lambda: waiting(place) > 0, what="a question")  # how many is for the kernel to say
            for answer in answers:
                assert answer.result(timeout=200) == len(crowd)
    finally:
        for fd in folders:
            os.close(fd)


def entries(fd: int) -> int:
    """How many entries the folder has, asked for with a large buffer."""
    buffer = ctypes.create_string_buffer(MiB)
    count = 0
    while True:
        length = LIBC.getdents64(fd, buffer, len(buffer))
        assert length >= 0, os.strerror(ctypes.get_errno())
        if not length:
            return count
        at = 0
        while at < length:
            at += int.from_bytes(buffer[at + 16 : at + 18], sys.byteorder)  # d_reclen
            count += 1


def test_a_listing_in_large_pieces(place, crowd):
    """The kernel asks for more at a time than an answer on the socket may have."""
    place.mount("--no-cache")
    for _ in range(2):
        fd = os.open(place.path / "crowd", os.O_RDONLY | os.O_DIRECTORY)
        try:
            assert entries(fd) == len(crowd)
        finally:
            os.close(fd)
    with os.scandir(place.path / "crowd") as found:
        assert {entry.name: entry.stat().st_size for entry in found} == {n: len(d) for n, d in crowd.items()}


def test_the_largest_question_about_an_attribute(mounted):
    """A buffer of 64 KiB, the most that there can be."""
    path = os.fsencode(mounted / "m" / "weights")
    buffer = ctypes.create_string_buffer(65536)
    assert LIBC.getxattr(path, b"user.shardfs.model", buffer, len(buffer)) == 1
    assert buffer.value == b"m"
    length = LIBC.listxattr(path, buffer, len(buffer))
    assert sorted(buffer.raw[:length].split(b"\0")[:-1]) == sorted(name.encode() for name in os.listxattr(path))
    assert LIBC.getxattr(path, b"user.shardfs.digest", buffer, 3) == -1
    assert ctypes.get_errno() == errno.ERANGE
    assert LIBC.getxattr(path, b"user." + b"x" * 250, buffer, len(buffer)) == -1
    assert ctypes.get_errno() == errno.ENODATA
