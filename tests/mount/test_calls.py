"""Every call a program can make on the mount: what it gives, or how it is refused."""

import ctypes
import errno
import mmap
import os
import socket
import stat
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from tests.mount.conftest import LONG, SIZES
from tests.mount.kit import MiB, forget_pages, sha256, until

pytestmark = pytest.mark.fuse


def refused(number: int, call: Callable[[], object]) -> None:
    with pytest.raises(OSError, match=r"\[Errno") as caught:
        call()
    assert errno.errorcode[caught.value.errno] == errno.errorcode[number]


# ------------------------------------------------------------------------------------------------------- looking


def test_the_tree_is_the_published_one(model, mounted):
    until(lambda: sorted(os.listdir(mounted)) == ["m", "team"], what="the end of what other tests have deleted")
    assert os.listdir(mounted / "team") == ["single.bin"]
    for path in [model, *model.rglob("*")]:
        seen = mounted / "m" / path.relative_to(model)
        assert seen.is_dir() == path.is_dir()
        if path.is_dir():
            assert sorted(os.listdir(seen)) == sorted(os.listdir(path))
        else:
            assert seen.read_bytes() == path.read_bytes()


def test_stat(model, mounted):
    info = os.stat(mounted / "m" / "weights")
    assert stat.filemode(info.st_mode) == "-r--r--r--"
    assert (info.st_size, info.st_nlink, info.st_uid, info.st_gid) == (9 * MiB + 12345, 1, os.getuid(), os.getgid())
    assert info.st_blocks == -(-info.st_size // 512)
    assert info.st_mtime == info.st_ctime == os.stat(mounted / "m").st_mtime > os.stat(model).st_mtime - 60
    assert stat.filemode(os.stat(mounted / "m" / "tool").st_mode) == "-r-xr-xr-x"
    assert stat.filemode(os.stat(mounted / "m").st_mode) == "dr-xr-xr-x"
    assert subprocess.check_output([mounted / "m" / "tool"]) == b"it runs\n"
    with (mounted / "m" / "weights").open("rb") as file:
        assert os.fstat(file.fileno()).st_ino == info.st_ino


def test_inode_numbers_of_listings_are_those_of_stat(mounted):
    for folder in (mounted, mounted / "m", mounted / "m" / "deep"):
        with os.scandir(folder) as entries:
            for entry in entries:
                assert entry.inode() == os.stat(entry.path).st_ino
                assert entry.is_dir() == os.path.isdir(entry.path)


def test_statfs(cluster, mounted):
    space = os.statvfs(mounted)
    disk = os.statvfs(cluster.root)
    assert space.f_namemax == 255
    assert space.f_flag & (os.ST_RDONLY | os.ST_NOSUID | os.ST_NODEV) == os.ST_RDONLY | os.ST_NOSUID | os.ST_NODEV
    # Three nodes on one disk, two copies of everything. Who was too slow to answer is asked again after half a minute.
    expected = pytest.approx(disk.f_blocks * disk.f_frsize * 3 / 2, rel=0.01)
    until(lambda: os.statvfs(mounted).f_blocks * space.f_frsize == expected, what="the space of all nodes")
    assert 0 < space.f_bavail <= space.f_blocks


def test_extended_attributes(mounted):
    path = mounted / "m" / "weights"
    names = {f"user.shardfs.{name}" for name in ("model", "generation", "digest", "chunks", "cached")}
    assert set(os.listxattr(path)) == names
    values = {name.rpartition(".")[2]: os.getxattr(path, name).decode() for name in names}
    assert (values["model"], values["generation"], values["chunks"]) == ("m", "1", "3")
    assert len(bytes.fromhex(values["digest"])) == 32
    assert 0 <= int(values["cached"]) <= 9 * MiB + 12345
    assert os.getxattr(mounted / "m", "user.shardfs.digest").decode() == values["digest"]
    assert os.getxattr(mounted / "team" / "single.bin", "user.shardfs.model") == b"team/single.bin"
    for name in ("user.other", "security.capability", "user.shardfs.nothing", "trusted.x"):
        refused(errno.ENODATA, lambda name=name: os.getxattr(path, name))


@pytest.mark.parametrize(
    ("path", "number"),
    [
        ("nothing", errno.ENOENT),
        ("m/nothing", errno.ENOENT),
        ("m@2", errno.ENOENT),
        ("team@1", errno.ENOENT),
        ("m/weights/x", errno.ENOTDIR),
        ("team/single.bin/x", errno.ENOTDIR),
        ("x" * 256, errno.ENAMETOOLONG),
        ("m/" + "é" * 128, errno.ENAMETOOLONG),
        ("x" * 1024, errno.ENAMETOOLONG),
        (b"m/\xff", errno.ENOENT),
        ("m/back\\slash", errno.ENOENT),
    ],
)
def test_names_that_are_not_there(mounted, path, number):
    place = os.path.join(os.fsencode(mounted), os.fsencode(path))
    for call in (os.stat, lambda p: os.open(p, os.O_RDONLY), os.listdir, lambda p: os.getxattr(p, "user.x")):
        refused(number, lambda call=call: call(place))


def test_the_wrong_kind(mounted):
    refused(errno.ENOTDIR, lambda: os.listdir(mounted / "m" / "weights"))
    refused(errno.ENOTDIR, lambda: os.open(mounted / "m" / "weights", os.O_DIRECTORY))
    refused(errno.EINVAL, lambda: os.readlink(mounted / "m" / "weights"))
    fd = os.open(mounted / "m", os.O_RDONLY)
    try:
        refused(errno.EISDIR, lambda: os.read(fd, 1))
    finally:
        os.close(fd)


def test_access(mounted):
    for path in (mounted, mounted / "m", mounted / "m" / "tool"):
        assert os.access(path, os.R_OK | os.X_OK)
        assert not os.access(path, os.W_OK)
    assert not os.access(mounted / "m" / "weights", os.X_OK)


def test_a_large_folder(cluster, mounted, tmp_path, appears):
    """More entries than one answer of readdir holds, listed by several programs at once."""
    folder = tmp_path / "large"
    folder.mkdir()
    names = sorted(f"{'n' * (i % 200)}{i:05d}" for i in range(1000))
    for name in names:
        (folder / name).write_bytes(name.encode() if name == names[-1] else b"")
    cluster.put(folder, "large")
    try:
        seen = appears("large")
        find = ["find", str(seen), "-type", "f", "-printf", "%f\n"]
        programs = [subprocess.Popen(find, stdout=subprocess.PIPE) for _ in range(4)]
        for program in programs:
            output = program.communicate(timeout=60)[0].decode()
            assert sorted(output.split("\n")[:-1]) == names
        assert (seen / names[-1]).read_text() == names[-1]
    finally:
        cluster.run("rm", "large")


# ------------------------------------------------------------------------------------------------------- reading


@pytest.mark.parametrize("name", [*SIZES, "weights", "holes", LONG])
@pytest.mark.parametrize("way", ["read", "pread", "readv", "direct", "shared", "private", "sendfile", "small"])
def test_ways_to_read(model, mounted, name, way):
    """Each gives exactly the file, cold and hot, and nothing at its end."""
    expected = (model / name).read_bytes()
    path = mounted / "m" / name
    for _ in range(2):
        assert WAYS[way](path, len(expected)) == expected
    forget_pages(path)
    assert WAYS[way](path, len(expected)) == expected


def by_read(path: Path, size: int) -> bytes:
    with path.open("rb", buffering=0) as file:
        data = b"".join(iter(lambda: file.read(3 * MiB + 1), b""))
        assert file.read(1) == b""
        return data


def by_pread(path: Path, size: int) -> bytes:
    fd = os.open(path, os.O_RDONLY)
    try:
        step = 777_777
        parts = {at: os.pread(fd, step, at) for at in reversed(range(0, size, step))}
        assert os.pread(fd, 10, size) == os.pread(fd, 10, size + 5 * MiB) == b""
        return b"".join(parts[at] for at in sorted(parts))
    finally:
        os.close(fd)


def by_readv(path: Path, size: int) -> bytes:
    buffers = [bytearray(1), bytearray(MiB), bytearray(size + 100)]
    with path.open("rb", buffering=0) as file:
        got = os.preadv(file.fileno(), buffers, 0)
    assert got == size
    return b"".join(buffers)[:size]


def by_direct(path: Path, size: int) -> bytes:
    fd = os.open(path, os.O_RDONLY | os.O_DIRECT)
    try:
        buffer = mmap.mmap(-1, 2 * MiB)
        data, at = b"", 0
        while got := os.preadv(fd, [buffer], at):
            data, at = data + buffer[:got], at + got
        return data
    finally:
        os.close(fd)


def by_map(path: Path, size: int, flags: int) -> bytes:
    if not size:
        return b""
    with path.open("rb") as file:
        protection = mmap.PROT_READ | (mmap.PROT_WRITE if flags == mmap.MAP_PRIVATE else 0)
        with mmap.mmap(file.fileno(), size, flags=flags, prot=protection) as mapped:
            tail = mapped[-1:]
            data = mapped[:]
            assert data[-1:] == tail
            if flags == mmap.MAP_PRIVATE:
                mapped[0:1] = b"!"  # ours alone
                assert os.pread(file.fileno(), 1, 0) == data[:1]
            return data


def by_sendfile(path: Path, size: int) -> bytes:
    ours, theirs = socket.socketpair()
    with ours, theirs, path.open("rb") as file:
        data, at = b"", 0
        while at < size:
            count = os.sendfile(ours.fileno(), file.fileno(), at, min(65536, size - at))
            while count:
                part = theirs.recv(count)
                data, at, count = data + part, at + len(part), count - len(part)
        return data


def by_small_steps(path: Path, size: int) -> bytes:
    with path.open("rb") as file:  # buffered, 8 KiB at a time at first
        return b"".join(iter(lambda: file.read(5000), b""))


WAYS = {
    "read": by_read,
    "pread": by_pread,
    "readv": by_readv,
    "direct": by_direct,
    "shared": lambda path, size: by_map(path, size, mmap.MAP_SHARED),
    "private": lambda path, size: by_map(path, size, mmap.MAP_PRIVATE),
    "sendfile": by_sendfile,
    "small": by_small_steps,
}


def test_a_shared_map_cannot_be_written(mounted):
    with (mounted / "m" / "weights").open("rb") as file:
        refused(errno.EACCES, lambda: mmap.mmap(file.fileno(), 10, flags=mmap.MAP_SHARED, prot=mmap.PROT_WRITE))


def test_four_processes_read_one_file(model, mounted):
    path = mounted / "m" / "weights"
    forget_pages(path)
    code = "import hashlib, sys; print(hashlib.file_digest(open(sys.argv[1], 'rb'), 'sha256').hexdigest())"
    readers = [
        subprocess.Popen([sys.executable, "-c", code, str(path)], stdout=subprocess.PIPE, text=True) for _ in range(4)
    ]
    assert {reader.communicate(timeout=60)[0].strip() for reader in readers} == {sha256(model / "weights")}


def test_cp_and_cmp(model, mounted, tmp_path):
    subprocess.run(["cp", "-r", str(mounted / "m"), str(tmp_path / "copy")], check=True)
    subprocess.run(["diff", "-r", str(model), str(tmp_path / "copy")], check=True)
    subprocess.run(["cmp", str(model / "weights"), str(mounted / "team" / "single.bin")], check=True)


def test_two_names_of_one_generation_at_once(model, mounted):
    """`m` and `m@1` are one folder; looking at both all the time confuses nobody."""
    expected = sha256(model / "block")
    code = (
        "import hashlib, os, sys\n"
        "for _ in range(150):\n"
        "    os.stat(sys.argv[1] + '/deep/er')\n"
        "    found = hashlib.file_digest(open(sys.argv[1] + '/block', 'rb'), 'sha256').hexdigest()\n"
        "    assert found == sys.argv[2]\n"
    )
    command = [sys.executable, "-c", code]
    both = [subprocess.Popen([*command, str(mounted / name), expected]) for name in ("m", "m@1", "m", "m@1")]
    assert [program.wait(60) for program in both] == [0, 0, 0, 0]


# ------------------------------------------------------------------------------------------------------- writing

WRITES: dict[str, Callable[[Path], object]] = {
    "open for writing": lambda m: os.open(m / "weights", os.O_WRONLY),
    "open for both": lambda m: os.open(m / "weights", os.O_RDWR),
    "append": lambda m: os.open(m / "weights", os.O_WRONLY | os.O_APPEND),
    "open and cut": lambda m: os.open(m / "weights", os.O_RDONLY | os.O_TRUNC),
    "create": lambda m: os.open(m / "new", os.O_WRONLY | os.O_CREAT),
    "create at the top": lambda m: os.open(m.parent / "new", os.O_WRONLY | os.O_CREAT),
    "create exclusively": lambda m: os.open(m / "new", os.O_WRONLY | os.O_CREAT | os.O_EXCL),
    "mkdir": lambda m: os.mkdir(m / "new"),
    "rmdir": lambda m: os.rmdir(m / "void"),
    "unlink": lambda m: os.unlink(m / "weights"),
    "rename": lambda m: os.rename(m / "weights", m / "other"),
    "rename over": lambda m: os.rename(m / "weights", m / "one"),
    "hard link": lambda m: os.link(m / "weights", m / "other"),
    "symlink": lambda m: os.symlink("weights", m / "other"),
    "mknod": lambda m: os.mknod(m / "new"),
    "mkfifo": lambda m: os.mkfifo(m / "new"),
    "chmod": lambda m: os.chmod(m / "weights", 0o600),
    "chown": lambda m: os.chown(m / "weights", 1, 1),
    "utime": lambda m: os.utime(m / "weights"),
    "truncate": lambda m: os.truncate(m / "weights", 0),
    "setxattr": lambda m: os.setxattr(m / "weights", "user.x", b"1"),
    "removexattr": lambda m: os.removexattr(m / "weights", "user.shardfs.model"),
}


@pytest.mark.parametrize("name", WRITES)
def test_writes_are_refused(mounted, name):
    refused(errno.EROFS, lambda: WRITES[name](mounted / "m"))


@pytest.mark.skipif(os.geteuid() != 0, reason="left out: remounting takes root")
def test_writes_are_refused_by_the_daemon_too(place, model):
    """Somebody remounts it for writing: the kernel then asks the daemon, which says no."""
    place.mount()
    libc = ctypes.CDLL(None, use_errno=True)
    remount, nosuid, nodev = 32, 2, 4
    assert libc.mount(b"shardfs", os.fsencode(place.path), None, remount | nosuid | nodev, None) == 0
    assert not os.statvfs(place.path).f_flag & os.ST_RDONLY
    for name, call in WRITES.items():
        with pytest.raises(OSError, match=r"\[Errno") as caught:
            call(place.path / "m")
        assert caught.value.errno == errno.EROFS, name
    assert sha256(place.path / "m" / "weights") == sha256(model / "weights")
