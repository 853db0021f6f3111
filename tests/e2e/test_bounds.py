"""What `--memory` and `--cache-size` promise, of a real mount, whatever is opened: see docs/SEMANTICS.md, Caching."""

import os
import random
from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path

import pytest

from shardfs.api.local import LocalCluster
from shardfs.core.chunk import CHUNK_SIZE
from shardfs.core.digest import DIGEST_BYTES, digest_of
from shardfs.core.keys import RefName, manifest_key
from shardfs.core.manifest import Manifest, make_manifest
from shardfs.core.ref import encode_ref
from tests.e2e.rig import Reader
from tests.mount.kit import MiB

TERABYTES, SMALLER = 10, 40
MEMORY_BYTES = 64 * MiB
BEYOND_BYTES = 120 * MiB
CACHE_BYTES = 80 * MiB
LITTLE_BYTES = MiB
"""For folders, lock and format of a cache folder, which are not counted."""


def described(size: int, created: int) -> Manifest:
    """A model of holes: its manifest is as large as any of that size, and no node stores a byte of it."""
    return make_manifest(
        [("", size, False)], bytes(DIGEST_BYTES * -(-size // CHUNK_SIZE)), created=created, single=True
    )


@pytest.fixture
def huge(cluster: LocalCluster) -> Iterator[list[str]]:
    """Models of 1 TiB, more than fit the memory by far, and many smaller ones, as they lie on the nodes."""
    sizes = {f"huge/tera{number}": 2**40 for number in range(TERABYTES)}
    sizes |= {f"huge/smaller{number:02}": 140 * 2**30 for number in range(SMALLER)}
    written: list[Path] = []

    def write(node: str, key: str, data: bytes) -> None:
        written.append(cluster.data(node) / key)
        written[-1].parent.mkdir(parents=True, exist_ok=True)
        written[-1].write_bytes(data)

    try:
        for number, (name, size) in enumerate(sizes.items()):
            data = described(size, number).encode()
            ref = RefName(name, 1, digest_of(data))
            write(cluster.node_ids[number % len(cluster.node_ids)], manifest_key(ref.manifest), data)
            for node in cluster.node_ids:
                write(node, ref.key, encode_ref(ref))
        yield list(sizes)
    finally:
        for path in written:
            path.unlink()


def memory_most(pid: int) -> int:
    """The most that the process has had in memory at once, bytes."""
    lines = Path(f"/proc/{pid}/status").read_text().splitlines()
    return int(next(line for line in lines if line.startswith("VmHWM:")).split()[1]) * 1024


def on_disk(folder: Path) -> int:
    """As `du`. What goes while it is looked at is not there."""
    total = 0
    for parent, _, files in os.walk(folder):
        for name in files:
            path = Path(parent) / name
            if path.exists():
                total += path.lstat().st_blocks * 512
    return total


def touch(path: Path, offset: int = 0) -> None:
    with path.open("rb", buffering=0) as file:
        file.seek(offset)
        assert file.read(1) == b"\0"


def test_memory_holds_whatever_is_opened(place, big, huge):
    """Whole readers, random readers, and models up to 1 TiB looked up, listed, opened and left, in turn."""
    pid = place.mount("--memory", "64MiB", "--no-cache")["pid"]
    chance = random.Random(3)
    file = place.path / "big.bin"
    with ExitStack() as stack:
        readers = [stack.enter_context(Reader(file, way)) for way in ("read", "direct", "mmap")]
        assert len(os.listdir(place.path / "huge")) == len(huge)
        names = [*huge, *huge[:TERABYTES]]
        chance.shuffle(names)
        with file.open("rb", buffering=0) as random_reader:
            for name in names:
                touch(place.path / name, chance.randrange(2**37))
                os.posix_fadvise(random_reader.fileno(), 0, 0, os.POSIX_FADV_DONTNEED)
                assert len(os.pread(random_reader.fileno(), 4096, chance.randrange(96 * MiB))) == 4096
        assert {reader.result().sha256 for reader in readers} == {big}
    assert memory_most(pid) <= MEMORY_BYTES + BEYOND_BYTES


def test_the_cache_folder_is_no_larger_than_said(place, big, huge):
    """Manifests and blocks together; also when what an earlier mount left there was more."""
    manifests = place.cache / "manifests"
    manifests.mkdir(parents=True)
    for number in range(CACHE_BYTES // MiB):
        (manifests / str(digest_of(b"%d" % number))).write_bytes(bytes(MiB))
    place.mount("--cache-size", f"{CACHE_BYTES // MiB}MiB", "--memory", "64MiB")
    sizes = []
    with (place.path / "big.bin").open("rb", buffering=0) as file:
        for name in huge[: TERABYTES + 20]:
            touch(place.path / name)
            assert len(os.pread(file.fileno(), 8 * MiB, len(sizes) * 6 * MiB)) > 0
            sizes.append(on_disk(place.cache))
    assert place.umount().returncode == 0
    sizes.append(on_disk(place.cache))
    assert max(sizes[1:]) <= CACHE_BYTES + LITTLE_BYTES
    assert max(sizes) > CACHE_BYTES // 2  # or nothing was tried
    assert any(manifests.iterdir())
