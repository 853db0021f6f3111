"""SIGKILL at any point: after the restart every block that reads back is right, and the limit holds."""

import random
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from tests.cache.fill import LIMIT, SAMPLES
from tests.cache.samples import METADATA_SLACK, disk_bytes, open_cache

SYSCALLS = ("pwrite64", "fallocate", "ftruncate", "unlink", "utimensat", "openat")


def check_after_crash(folder: Path) -> tuple[int, int]:
    """Reopen; return how many blocks were there, and how many bytes the crash had left without a word."""
    before = disk_bytes(folder)
    cache = open_cache(folder, LIMIT)
    cache.check()
    left = before - disk_bytes(folder)
    assert disk_bytes(folder) <= LIMIT + METADATA_SLACK
    assert disk_bytes(folder) <= cache.statistics().used_bytes + METADATA_SLACK
    files = [cache.file(one.content) for one in SAMPLES]
    held = sum(len(one.held(file)) for one, file in zip(SAMPLES, files, strict=True))
    assert cache.statistics().corrupt_blocks == 0  # program order is enough for SIGKILL
    # And it goes on working.
    assert SAMPLES[2].store(files[2])
    assert SAMPLES[2].holds(files[2])
    cache.close()
    return held, left


def test_killed_at_random_moments(tmp_path: Path) -> None:
    held = 0
    chance = random.Random(11)
    for seed in range(6):
        with subprocess.Popen(
            [sys.executable, "-m", "tests.cache.fill", tmp_path, str(seed)], stdout=subprocess.PIPE, text=True
        ) as filler:
            try:
                assert filler.stdout is not None
                assert filler.stdout.readline() == "open\n"
                time.sleep(chance.uniform(0, 0.3))  # the moment is what is being drawn, nobody waits for anything
                assert filler.poll() is None
            finally:
                filler.kill()  # it would go on for ever
        held += check_after_crash(tmp_path)[0]
    assert held, "nothing was at risk"


def kill_at(folder: Path, syscall: str, when: int) -> bool:
    """Fill, and kill at the `when`-th `syscall` that touches the cache folder; False when there were not so many."""
    inject = ["-e", f"inject={syscall}:signal=KILL:when={when}", "-e", f"trace={syscall}"]
    paths = ["-P", folder, "-P", folder / "files", *_paths(folder)]
    filler = [sys.executable, "-m", "tests.cache.fill", folder, "1", "12"]
    done = subprocess.run(
        ["strace", "-o", "/dev/null", *paths, *inject, *filler],
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode in {0, -signal.SIGKILL}, done.stderr
    return done.returncode != 0


def _paths(folder: Path) -> list[str]:
    paths = [
        folder / "files" / str(s.content.digest)[:2] / f"{s.content.digest}.{k}"
        for s in SAMPLES
        for k in ("data", "map")
    ]
    return [word for path in paths for word in ("-P", str(path))]


@pytest.mark.skipif(shutil.which("strace") is None, reason="needs strace")
@pytest.mark.slow
@pytest.mark.timeout(300)
def test_killed_at_each_kind_of_system_call(tmp_path: Path) -> None:
    held = left = 0
    killed: dict[str, int] = dict.fromkeys(SYSCALLS, 0)
    for syscall in SYSCALLS:
        when = 1
        while when < 100 and kill_at(tmp_path / "cache", syscall, when):
            found = check_after_crash(tmp_path / "cache")
            held, left = held + found[0], left + found[1]
            killed[syscall] += 1
            shutil.rmtree(tmp_path / "cache")
            when += max(1, when // 2)
    assert all(killed.values()), killed
    assert held, "nothing was at risk"
    assert left, "no crash came between data and word"
