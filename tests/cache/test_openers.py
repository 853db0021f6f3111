"""Who has a file open, by the kernel's word."""

import mmap
import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from shardfs.cache.openers import is_open
from tests.cache.samples import descriptors

CHILD = """
import ctypes, os, sys
fd = os.open(sys.argv[1], os.O_RDONLY)
libc = ctypes.CDLL(None)
libc.mmap.restype = ctypes.c_void_p
assert libc.mmap(None, ctypes.c_size_t(4096), 1, 2, fd, ctypes.c_long(0)) != ctypes.c_void_p(-1).value
if sys.argv[2] == "map":
    os.close(fd)
print("ready", flush=True)
sys.stdin.read()
"""


@pytest.fixture
def path(tmp_path: Path) -> Path:
    path = tmp_path / "file"
    path.write_bytes(bytes(8192))
    return path


def test_our_own_descriptors_and_maps(path: Path) -> None:
    assert not is_open(path)
    for flags in (os.O_RDONLY, os.O_WRONLY, os.O_RDWR):
        fd = os.open(path, flags)
        assert is_open(path)
        os.close(fd)
        assert not is_open(path)
    with path.open("rb") as file:
        memory = mmap.mmap(file.fileno(), 0, prot=mmap.PROT_READ)
    assert is_open(path)
    memory.close()
    assert not is_open(path)


@pytest.mark.parametrize("how", ["map", "descriptor"])
def test_another_process(path: Path, how: str) -> None:
    with subprocess.Popen(
        [sys.executable, "-c", CHILD, path, how], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    ) as child:
        assert child.stdout
        assert child.stdout.readline() == "ready\n"
        assert is_open(path)
        child.send_signal(signal.SIGKILL)
        child.wait()
    assert not is_open(path)


def test_what_is_no_file_is_not_open(path: Path) -> None:
    link = path.with_name("link")
    link.symlink_to(path)
    with path.open("rb"):
        assert not is_open(link)
        assert not is_open(path.with_name("nothing"))


def test_nothing_is_left_behind(path: Path) -> None:
    before = descriptors()
    for _ in range(20):
        assert not is_open(path)
    assert descriptors() == before
    path.write_bytes(b"a lease would hold this up for 45 seconds, and the signal end us")


def test_what_has_no_leases_is_an_error() -> None:
    with pytest.raises(OSError, match="Invalid argument"):
        is_open(Path("/dev/null"))
