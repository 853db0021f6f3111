"""What a mount shows while models are published, published over and deleted; what is open never changes.

That names are never older than two seconds is proven in virtual time, in tests/vfs.
"""

import errno
import hashlib
import mmap
import os
import random
import subprocess
import sys

import pytest

from tests.mount.kit import MiB, forget_pages, until

pytestmark = pytest.mark.fuse
OLD, NEW = (random.Random(seed).randbytes(6 * MiB + seed) for seed in (1, 2))


def test_a_new_generation_appears_and_open_files_keep_the_old_one(publish, appears):
    publish("gen.bin", OLD)
    path = appears("gen.bin")
    with path.open("rb") as file, mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ) as mapped:
        assert file.read(100) == OLD[:100]
        publish("gen.bin", NEW)
        until(lambda: os.getxattr(path, "user.shardfs.generation") == b"2", what="generation 2")
        assert path.read_bytes() == NEW
        assert os.stat(path).st_size == len(NEW)
        assert os.fstat(file.fileno()).st_size == len(OLD)
        assert os.stat(path).st_ino != os.fstat(file.fileno()).st_ino
        forget_pages(path)
        os.posix_fadvise(file.fileno(), 0, 0, os.POSIX_FADV_DONTNEED)
        assert os.pread(file.fileno(), len(OLD) + 1, 0) == OLD
        assert mapped[:] == OLD
    old = path.with_name("gen.bin@1")
    assert old.read_bytes() == OLD
    assert path.with_name("gen.bin@2").read_bytes() == path.read_bytes() == NEW
    assert not path.with_name("gen.bin@3").exists()


def test_an_open_folder_keeps_its_generation(cluster, mounted, tmp_path, appears):
    """A program that works inside of a model's folder finds all files of one generation there, old or new."""
    folder = tmp_path / "folder"
    folder.mkdir()
    (folder / "a").write_bytes(b"one")
    (folder / "b").write_bytes(b"one")
    cluster.put(folder, "folder")
    try:
        seen = appears("folder")
        inside = os.open(seen, os.O_RDONLY)
        (folder / "a").write_bytes(b"two")
        (folder / "c").write_bytes(b"two")
        (folder / "b").unlink()
        cluster.put(folder, "folder")
        until((seen / "c").exists, what="the new file")
        assert sorted(os.listdir(seen)) == ["a", "c"]
        assert (seen / "a").read_bytes() == b"two"
        assert sorted(os.listdir(inside)) == ["a", "b"]
        for name in ("a", "b"):
            fd = os.open(name, os.O_RDONLY, dir_fd=inside)
            assert os.read(fd, 9) == b"one"
            os.close(fd)
        os.close(inside)
    finally:
        cluster.run("rm", "folder")


def test_a_deleted_model_disappears_and_an_open_file_reads_on(cluster, publish, appears):
    publish("gone.bin", OLD)
    path = appears("gone.bin")
    with path.open("rb") as file:
        assert cluster.run("rm", "gone.bin").returncode == 0
        until(lambda: not path.exists(), what="its end")
        assert "gone.bin" not in os.listdir(path.parent)
        with pytest.raises(FileNotFoundError):
            path.open("rb")
        assert file.read() == OLD
    publish("gone.bin", NEW)
    assert appears("gone.bin").read_bytes() == NEW


def test_readers_never_see_a_mix(publish, appears):
    """Programs that open, read and close all the time get one generation or another, whole."""
    contents = [random.Random(seed).randbytes(MiB + seed) for seed in range(4)]
    publish("mix.bin", contents[0])
    path = appears("mix.bin")
    code = (
        "import hashlib, sys\n"
        "seen = set()\n"
        "while sys.argv[2] not in seen:\n"
        "    seen.add(hashlib.sha256(open(sys.argv[1], 'rb').read()).hexdigest())\n"
        "print(*seen)\n"
    )
    digests = [hashlib.sha256(content).hexdigest() for content in contents]
    readers = [
        subprocess.Popen([sys.executable, "-c", code, path, digests[-1]], stdout=subprocess.PIPE, text=True)
        for _ in range(2)
    ]
    try:
        for content in contents[1:]:
            publish("mix.bin", content)
        for reader in readers:
            assert set(reader.communicate(timeout=60)[0].split()) <= set(digests)
    finally:
        for reader in readers:
            reader.kill()


def test_a_model_may_turn_from_a_file_into_a_folder(cluster, publish, appears, tmp_path):
    publish("turn", OLD)
    path = appears("turn")
    assert path.is_file()
    folder = tmp_path / "turn"
    folder.mkdir()
    (folder / "f").write_bytes(b"now a folder")
    cluster.put(folder, "turn")
    until(path.is_dir, what="the folder")
    assert (path / "f").read_bytes() == b"now a folder"
    assert path.with_name("turn@1").read_bytes() == OLD
    publish("turn", NEW)
    until(path.is_file, what="the file")
    with pytest.raises(OSError, match=f"Errno {errno.ENOTDIR}"):
        (path / "f").read_bytes()
