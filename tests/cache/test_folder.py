"""Whose folder it is: lock, version, strangers, rights."""

import os
import signal
import stat
import subprocess
import sys
import tempfile
from pathlib import Path

import pytest

from shardfs.errors import CacheError
from tests.cache.samples import MIB, data_path, open_cache, sample

OWNER = """
import sys, pathlib
from shardfs.cache import DiskCache
cache = DiskCache.open(pathlib.Path(sys.argv[1]), limit_bytes=1 << 20)
print("open", flush=True)
sys.stdin.read()
"""


def test_a_second_owner_is_told_who_has_it(tmp_path: Path) -> None:
    with subprocess.Popen(
        [sys.executable, "-c", OWNER, tmp_path / "c"], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    ) as owner:
        assert owner.stdout is not None
        assert owner.stdout.readline() == "open\n"
        with pytest.raises(CacheError, match=f"cache folder {tmp_path / 'c'} is in use by process {owner.pid}$"):
            open_cache(tmp_path / "c")
        owner.send_signal(signal.SIGKILL)
        owner.wait()
    open_cache(tmp_path / "c").close()


def test_the_same_process_cannot_open_it_twice_but_again(tmp_path: Path) -> None:
    cache = open_cache(tmp_path)
    with pytest.raises(CacheError, match=f"in use by process {os.getpid()}"):
        open_cache(tmp_path)
    cache.close()
    open_cache(tmp_path).close()


def test_rights_are_the_owners_alone(tmp_path: Path) -> None:
    one = sample(1, MIB)
    folder = tmp_path / "a" / "b"
    old = os.umask(0)
    try:
        cache = open_cache(folder)
        one.store(cache.file(one.content))
        cache.close()
    finally:
        os.umask(old)
    for path in [folder, *folder.rglob("*")]:
        expected = 0o700 if path.is_dir() else 0o600
        assert stat.S_IMODE(path.stat().st_mode) == expected, path


@pytest.mark.parametrize("text", ["shardfs cache 2\n", "bla", "", "shardfs cache 1", None])
def test_another_version_is_cleared_with_care(tmp_path: Path, text: str | None) -> None:
    one = sample(1, MIB)
    cache = open_cache(tmp_path)
    one.store(cache.file(one.content))
    cache.close()
    (tmp_path / "format").unlink()
    if text is not None:
        (tmp_path / "format").write_text(text)
    (tmp_path / "files" / "notes.txt").write_text("not ours")
    cache = open_cache(tmp_path)
    assert cache.file(one.content).missing(0, 1) == 0
    assert not data_path(tmp_path, one.content).exists()
    assert (tmp_path / "files" / "notes.txt").exists()
    assert (tmp_path / "format").read_text() == "shardfs cache 1\n"
    cache.close()


def test_a_folder_that_is_not_ours_is_refused_and_left_alone(tmp_path: Path) -> None:
    (tmp_path / "thesis.tex").write_text("ten years of work")
    (tmp_path / "files").mkdir()
    before = sorted(tmp_path.rglob("*"))
    with pytest.raises(CacheError, match=r"not empty and no shardfs cache \(there is 'thesis.tex'\)"):
        open_cache(tmp_path)
    assert sorted(tmp_path.rglob("*")) == before


def test_an_empty_disk_may_be_the_folder(tmp_path: Path) -> None:
    (tmp_path / "lost+found").mkdir()
    open_cache(tmp_path).close()
    assert (tmp_path / "format").is_file()


def test_what_is_no_folder_is_refused(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    for path in (tmp_path / "file", tmp_path / "file" / "below"):
        with pytest.raises(CacheError, match=f"cache folder {path}: "):
            open_cache(path)
    (tmp_path / "c").mkdir()
    (tmp_path / "c" / "lock").symlink_to(tmp_path / "elsewhere")
    with pytest.raises(CacheError, match="cache folder"):
        open_cache(tmp_path / "c")
    assert not (tmp_path / "elsewhere").exists()


def test_a_folder_without_rights_is_refused() -> None:
    with tempfile.TemporaryDirectory() as made:
        folder = Path(made)
        own = os.geteuid()
        folder.chmod(0o555)
        if own == 0:
            os.seteuid(65534)  # rights do not bind root
        try:
            with pytest.raises(CacheError, match=f"cache folder {folder}: Permission denied"):
                open_cache(folder)
        finally:
            os.seteuid(own)


def test_a_refused_folder_is_not_left_locked(tmp_path: Path) -> None:
    cache = open_cache(tmp_path)
    cache.close()
    (tmp_path / "files").rmdir()
    (tmp_path / "files").write_text("")
    for _ in range(2):
        with pytest.raises(CacheError, match=r"cache folder .*: "):
            open_cache(tmp_path)
    (tmp_path / "files").unlink()
    open_cache(tmp_path).close()
