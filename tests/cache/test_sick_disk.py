"""Real disks that are full, read-only, failing, or that cannot punch holes: a miss, never an exception."""

import json
import logging
import os
import shutil
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from shardfs.errors import CacheError
from tests.cache.samples import BLOCK, KIB, MIB, Clock, data_path, disk_bytes, map_path, open_cache, sample

ONE, TWO, SMALL = sample(1, 8 * MIB), sample(2, 8 * MIB), sample(3, MIB)

needs_root = pytest.mark.skipif(os.geteuid() != 0, reason="mounts")
needs_strace = pytest.mark.skipif(shutil.which("strace") is None, reason="needs strace")


@pytest.fixture
def mount(tmp_path: Path) -> Iterator[Callable[..., Path]]:
    """Mounts a filesystem in memory and returns where."""
    mounted: list[Path] = []

    def make(kind: str, *options: str) -> Path:
        at = tmp_path / "disk"
        at.mkdir()
        subprocess.run(["mount", "-t", kind, *options, "none", at], check=True)
        mounted.append(at)
        return at

    yield make
    for at in mounted:
        subprocess.run(["umount", "--lazy", at], check=True)  # a failed test may have left descriptors


def used_on(folder: Path) -> int:
    """All that the filesystem holds, at one instant."""
    state = os.statvfs(folder)
    return (state.f_blocks - state.f_bfree) * state.f_frsize


@needs_root
def test_a_full_disk_is_a_cache_that_stores_less(mount: Callable[..., Path], caplog: pytest.LogCaptureFixture) -> None:
    folder = mount("tmpfs", "-o", "size=6m")
    cache = open_cache(folder / "c", 64 * MIB)
    file = cache.file(ONE.content)
    answers = [ONE.store(file, first, first + 8) for first in range(0, 128, 8)]
    assert True in answers
    assert False in answers
    assert [record.message for record in caplog.records] == [
        f"cache folder {folder / 'c'}: the disk is full; going on with less"
    ]
    held = ONE.held(file)
    assert len(held) * BLOCK > 3 * MIB
    assert cache.statistics().write_errors == answers.count(False)
    assert not cache.statistics().bypassed
    cache.check()
    # Room was made each time, so the next write succeeds though the disk is no larger.
    other = cache.file(SMALL.content)
    assert SMALL.store(other) or SMALL.store(other)
    assert SMALL.holds(other)
    file.close()
    cache.close()


@needs_root
def test_a_disk_that_others_have_filled(mount: Callable[..., Path]) -> None:
    folder = mount("tmpfs", "-o", "size=6m")
    cache = open_cache(folder / "c")
    file = cache.file(SMALL.content)
    assert SMALL.store(file)
    with (folder / "others").open("wb", buffering=0) as others:
        try:
            while others.write(bytes(64 * KIB)):
                pass
        except OSError:
            pass
    assert SMALL.holds(file)
    assert not ONE.store(cache.file(ONE.content), 0, 32)
    assert not cache.statistics().bypassed
    cache.check()
    cache.close()
    open_cache(folder / "c").close()  # full as it is
    (folder / "others").unlink()
    cache = open_cache(folder / "c")
    file = cache.file(ONE.content)
    assert ONE.store(file, 0, 32)
    assert ONE.holds(file, 0, 32)
    cache.close()


@needs_root
def test_the_limit_as_the_disk_sees_it(mount: Callable[..., Path]) -> None:
    """A filesystem of its own shows the sum at one instant; lock, format and folders are the slack."""
    folder = mount("tmpfs", "-o", "size=100m")
    cache = open_cache(folder, 5 * MIB)
    for one in (ONE, TWO, SMALL, ONE):
        file = cache.file(one.content)
        for first in range(0, one.content.blocks, 8):
            assert one.store(file, first, first + 8)
            assert used_on(folder) <= 5 * MIB + 16 * KIB
        file.close()
    assert used_on(folder) >= 4 * MIB
    cache.close()


@needs_root
def test_without_hole_punching_whole_files_go(mount: Callable[..., Path]) -> None:
    folder = mount("ramfs")
    cache = open_cache(folder, 12 * MIB)
    one, two, small = (cache.file(s.content) for s in (ONE, TWO, SMALL))
    assert ONE.store(one)
    assert SMALL.store(small)
    assert SMALL.holds(small)
    assert TWO.store(two, 0, 90)
    assert one.missing(0, 1) == 0
    assert SMALL.holds(small)
    assert TWO.holds(two, 0, 90)
    assert disk_bytes(folder) <= cache.statistics().used_bytes <= 12 * MIB
    cache.check()
    cache.close()
    cache = open_cache(folder, 12 * MIB)
    file = cache.file(TWO.content)
    assert TWO.holds(file, 0, 90)
    # A damaged block keeps its space and is written in place.
    with data_path(folder, TWO.content).open("r+b") as data:
        data.write(b"damage")
    used = cache.statistics().used_bytes
    assert not TWO.holds(file, 0, 1)
    assert cache.statistics().used_bytes == used
    assert TWO.store(file, 0, 1)
    assert TWO.holds(file, 0, 90)
    assert cache.statistics().used_bytes == used
    cache.check()
    cache.close()
    cache = open_cache(folder, 3 * MIB)
    assert disk_bytes(folder) <= 3 * MIB
    cache.check()
    cache.close()


@needs_root
def test_a_disk_that_becomes_read_only_and_comes_back(
    mount: Callable[..., Path], caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.INFO)
    folder = mount("tmpfs", "-o", "size=100m")
    clock = Clock()
    cache = open_cache(folder, clock=clock)
    file = cache.file(ONE.content)
    assert ONE.store(file, 0, 64)
    cache._pool.close()  # a descriptor that is open for writing keeps a tmpfs from being remounted
    lock = cache._folder._lock_fd
    cache._folder._lock_fd = -1
    os.close(lock)
    subprocess.run(["mount", "-o", "remount,ro", folder], check=True)
    assert [ONE.store(file, first, first + 1) for first in range(64, 70)] == [False] * 6
    assert cache.statistics().write_errors == 3
    assert cache.statistics().bypassed
    assert file.missing(0, 128) == 0
    assert file.present_bytes() == 0
    assert not ONE.holds(file, 0, 1)
    with pytest.raises(CacheError, match="Read-only file system"):
        open_cache(folder)
    clock.now += 60
    assert not ONE.store(file, 70, 71)
    assert cache.statistics().bypassed
    subprocess.run(["mount", "-o", "remount,rw", folder], check=True)
    clock.now += 59
    assert not ONE.store(file, 70, 71)
    clock.now += 1
    assert ONE.store(file, 70, 71)
    assert not cache.statistics().bypassed
    assert ONE.held(file) == [*range(64), 70]
    assert [record.message.removeprefix(f"cache folder {folder}: ") for record in caplog.records] == [
        "Read-only file system; going on without it, next try in 60 s",
        "in use again",
    ]
    cache.check()
    cache.close()


CHILD = """
import json, pathlib, sys
from tests.cache.samples import Clock, MIB, open_cache, sample
one, clock = sample(1, 8 * MIB), Clock()
cache = open_cache(pathlib.Path(sys.argv[1]), clock=clock)
file = cache.file(one.content)
did = []
for first in range(0, 128, 4):
    clock.now += 7
    did.append([one.store(file, first, first + 4), one.holds(file, first, first + 4), cache.statistics().bypassed])
cache.check()
end = cache.statistics()
print(json.dumps([did, end.write_errors, end.read_errors, len(one.held(file)), end.corrupt_blocks]))
cache.close()
"""


def with_errors(folder: Path, inject: str) -> tuple[list[list[bool]], int, int, int, int]:
    paths = [word for path in (data_path, map_path) for word in ("-P", str(path(folder, ONE.content)))]
    done = subprocess.run(
        ["strace", "-o", "/dev/null", *paths, "-e", f"inject={inject}", sys.executable, "-c", CHILD, folder],
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    answer: tuple[list[list[bool]], int, int, int, int] = json.loads(done.stdout)
    return answer


@needs_strace
def test_a_disk_that_fails_to_write(tmp_path: Path) -> None:
    did, write_errors, read_errors, held, corrupt = with_errors(tmp_path, "pwrite64:error=EIO:when=8..19")
    stored = [step[0] for step in did]
    assert stored == [step[1] for step in did]
    assert stored[0]
    assert stored[-1]
    assert [step[2] for step in did].count(True) >= 8  # a minute in steps of 7 s
    assert write_errors >= 3
    assert (read_errors, corrupt) == (0, 0)
    assert held == 4 * stored.count(True)


@needs_strace
def test_a_disk_that_fails_now_and_then_is_kept(tmp_path: Path) -> None:
    did, write_errors, _, held, _ = with_errors(tmp_path, "pwrite64:error=EIO:when=10+10")
    assert write_errors > 3
    assert not any(step[2] for step in did)
    assert held > 64


@needs_strace
def test_a_disk_that_fails_to_read(tmp_path: Path) -> None:
    did, _, read_errors, _, corrupt = with_errors(tmp_path, "preadv,preadv2:error=EIO:when=5..9")
    assert [step[1] for step in did[:5]] == [True] * 4 + [False]
    assert [step[0] for step in did] == [True] * len(did)
    assert read_errors == 5
    assert corrupt == 0


@needs_strace
def test_a_disk_that_answers_short(tmp_path: Path) -> None:
    """A hole punch that does nothing and reads that return nothing: misses, never lies."""
    did, _, _, _, _ = with_errors(tmp_path, "preadv,preadv2:retval=0:when=3+3")
    assert [step[1] for step in did].count(False) > 5


@needs_strace
@pytest.mark.parametrize("inject", ["pwrite64:error=EINVAL:when=2", "preadv,preadv2:error=EINVAL:when=1"])
def test_a_disk_that_wants_no_direct_io_after_all(tmp_path: Path, inject: str) -> None:
    did, write_errors, read_errors, held, corrupt = with_errors(tmp_path, inject)
    assert did == [[True, True, False]] * 32
    assert (write_errors, read_errors, held, corrupt) == (0, 0, 128, 0)


@needs_strace
def test_a_disk_that_does_not_give_space_back(tmp_path: Path) -> None:
    cache = open_cache(tmp_path, 4 * MIB)
    assert TWO.store(cache.file(TWO.content), 0, 60)
    cache.close()
    paths = [word for path in (data_path, map_path) for word in ("-P", str(path(tmp_path, TWO.content)))]
    child = CHILD.replace("clock=clock", "4 * MIB, clock=clock")
    done = subprocess.run(
        [
            "strace",
            "-o",
            "/dev/null",
            *paths,
            "-e",
            "inject=fallocate:error=EIO",
            sys.executable,
            "-c",
            child,
            tmp_path,
        ],
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    assert disk_bytes(tmp_path) <= 4 * MIB + 64 * KIB
    assert json.loads(done.stdout)[1]
    assert any(step[2] for step in json.loads(done.stdout)[0])
