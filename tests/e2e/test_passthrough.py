"""Files handed to the kernel while the cache is short of room, is meddled with, restarts, or cannot do it."""

import hashlib
import os
import random
import signal
import subprocess
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path

import pytest

from tests.e2e.conftest import BIG_BYTES
from tests.e2e.rig import flip, read
from tests.mount.kit import MiB, Place, forget_pages, runs, until
from tests.mount.opener import Opener, cached, data_file, fill, handed_over, kernel_reads, stopped

KERNEL = tuple(int(part) for part in os.uname().release.split("-")[0].split(".")[:2])
CAN = KERNEL >= (6, 9) and os.geteuid() == 0
pytestmark = [
    pytest.mark.skipif(not CAN, reason="left out: takes root and Linux 6.9"),
    *([pytest.mark.fuse] if CAN else []),
]
SIZE = 6 * MiB + 777
LITTLE = ("--memory", "16MiB")
"""Three chunks: what is read then comes from the disk cache."""


def mount(place: Place, *options: str) -> int:
    """The process id."""
    return int(place.mount("--passthrough", *options)["pid"])


def digest(content: bytes) -> str:
    return hashlib.sha256(content).hexdigest()


@pytest.fixture
def filler(publish, place) -> Callable[[], None]:
    """Fills a little memory with something else."""
    content = publish("filler", 17 * MiB)

    def read_all() -> None:
        forget_pages(place.path / "filler")
        assert (place.path / "filler").read_bytes() == content

    return read_all


# ----------------------------------------------------------------------------------------------------- no nodes


def test_without_nodes_and_without_a_daemon(cluster, big, place):
    """Handed over, a file needs nobody any more: all nodes dead, the daemon first stopped, then killed."""
    pid = mount(place, "--cache-size", "1GiB")
    path = place.path / "big.bin"
    fill(path)
    with ExitStack() as stack:
        opener = stack.enter_context(handed_over(place, pid, path))
        for node in cluster.node_ids:
            cluster.kill(node)
        for way in ("read", "mmap", "direct"):
            result = read(path, way)
            assert (result.error, result.size, result.sha256) == (None, BIG_BYTES, big), way
        with stopped(pid):
            assert opener("read") == big
        assert opener("map", "shared") is None
        os.kill(pid, signal.SIGKILL)
        until(lambda: not runs(pid), what="its end")
        assert opener("mapped", "shared") == big


# ---------------------------------------------------------------------------------------------- maps that are left


def unmounted(place: Place, pid: int) -> None:
    assert place.umount().returncode == 0
    place.gone(pid)


def killed(place: Place, pid: int) -> None:
    os.kill(pid, signal.SIGKILL)
    until(lambda: not runs(pid), what="its end")


@pytest.mark.parametrize("end", [unmounted, killed])
@pytest.mark.parametrize("closed", [True, False], ids=["closed", "open"])
def test_a_map_outlives_the_daemon(publish, place, end, closed):
    """And with less room afterwards, the next daemon lets what is still mapped be."""
    content = {name: publish(f"outlive-{name}", SIZE) for name in ("a", "b", "c")}
    pid = mount(place, "--cache-size", "1GiB")
    path = place.path / "outlive-a"
    fill(path)
    data = data_file(place, SIZE)
    with handed_over(place, pid, path) as opener:
        assert opener("map", "shared") is None
        if closed:
            assert opener("close") is None
        assert opener("mapped", "shared") == digest(content["a"])
        end(place, pid)
        assert opener("mapped", "shared") == digest(content["a"])
        mount(place, "--cache-size", "8MiB", *LITTLE)
        for name in ("b", "c", "b", "c"):
            forget_pages(place.path / f"outlive-{name}")
            assert (place.path / f"outlive-{name}").read_bytes() == content[name]
        forget_pages(data)
        assert opener("mapped", "shared") == digest(content["a"])
        assert path.read_bytes() == content["a"]


def test_what_is_mapped_stays_while_others_need_the_room(publish, place):
    """Once it is let go, it goes."""
    names = [f"pressure-{number}" for number in range(5)]
    content = {name: publish(name, SIZE) for name in names}
    pid = mount(place, "--cache-size", "16MiB", *LITTLE)
    kept, *others = (place.path / name for name in names)

    def pressure() -> None:
        for path in others:
            forget_pages(path)
            assert path.read_bytes() == content[path.name]

    assert fill(kept) == content[kept.name]
    with handed_over(place, pid, kept) as opener:
        for number in range(4):
            pressure()
            assert cached(kept) == SIZE
            if number == 1:
                assert opener("map", "shared") is None
                assert opener("close") is None
            if number > 1:
                assert opener("mapped", "shared") == digest(content[kept.name])

    def gone() -> bool:
        pressure()
        return cached(kept) < SIZE

    until(gone, 60, "the end of what nobody uses")
    assert kept.read_bytes() == content[kept.name]


# ------------------------------------------------------------------------------------------------------ restarts


@pytest.mark.parametrize("end", [unmounted, killed])
def test_after_a_restart_the_daemon_looks_first(publish, place, filler, end):
    """A byte decays while nobody runs: the first to read is served, gets the right byte, and the file is mended."""
    content = publish("restarted", SIZE)
    path = place.path / "restarted"
    pid = mount(place)
    fill(path)
    handed_over(place, pid, path).end()
    end(place, pid)
    data = data_file(place, SIZE)
    assert data.read_bytes() == content
    flip(data, SIZE // 2)
    pid = mount(place, *LITTLE)
    with Opener(path) as first:
        assert not kernel_reads(place, pid, first)
        assert first("read") == digest(content)

    def read_again() -> None:
        filler()
        forget_pages(path)
        assert path.read_bytes() == content

    with handed_over(place, pid, path, between=read_again) as second, stopped(pid):
        assert second("read") == digest(content)
    assert data.read_bytes() == content


# ---------------------------------------------------------------------------------------------------- meddling


def delete(data: Path) -> None:
    data.unlink()


def delete_both(data: Path) -> None:
    data.unlink()
    data.with_suffix(".map").unlink()


def cut(data: Path) -> None:
    os.truncate(data, SIZE // 2)


def replace(data: Path) -> None:
    data.rename(data.with_suffix(".old"))
    data.write_bytes(random.Random(1).randbytes(SIZE))


def link(data: Path) -> None:
    data.rename(data.with_suffix(".old"))
    data.symlink_to(data.with_suffix(".old"))


@pytest.mark.parametrize("meddle", [delete, delete_both, cut, replace, link])
def test_somebody_meddles_with_the_cache(publish, place, filler, meddle):
    """What is not the file that was verified is not handed over: the daemon reads, and notices."""
    content = publish("meddled", SIZE)
    path = place.path / "meddled"
    pid = mount(place, *LITTLE)
    fill(path)
    handed_over(place, pid, path).end()
    filler()
    meddle(data_file(place, SIZE))

    def read_again() -> None:
        filler()
        forget_pages(path)
        assert path.read_bytes() == content

    with Opener(path) as opener:
        assert not kernel_reads(place, pid, opener)
        assert opener("read") == digest(content)
    read_again()
    if meddle not in (replace, link):  # which have to wait for the next daemon, or until the disk is tried again
        with handed_over(place, pid, path, between=read_again) as again, stopped(pid):
            assert again("read") == digest(content)


@pytest.mark.parametrize("meddle", [delete, delete_both, replace, link])
def test_somebody_meddles_with_what_is_handed_over(publish, place, meddle):
    """Whoever has it open goes on reading the file that was there."""
    content = publish("moved", SIZE)
    path = place.path / "moved"
    pid = mount(place)
    fill(path)
    with handed_over(place, pid, path) as opener:
        meddle(data_file(place, SIZE))
        assert opener("map", "private") is None
        with Opener(path) as other:
            assert kernel_reads(place, pid, other)
            with stopped(pid):
                for reader in (opener, other):
                    assert reader("read") == digest(content)
        assert opener("mapped", "private") == digest(content)
    with Opener(path) as later:
        assert later("read") == digest(content)
    assert place.umount().returncode == 0
    assert "Traceback" not in place.log.read_text()


# ------------------------------------------------------------------------------------------------ where it cannot


@contextmanager
def stacked(folder: Path) -> Iterator[Path]:
    """An overlayfs over a tmpfs."""
    base, merged = folder / "base", folder / "merged"
    for path in (base, merged):
        path.mkdir()
    subprocess.run(["mount", "-t", "tmpfs", "none", base], check=True)
    try:
        for name in ("lower", "upper", "work"):
            (base / name).mkdir()
        options = f"lowerdir={base}/lower,upperdir={base}/upper,workdir={base}/work"
        subprocess.run(["mount", "-t", "overlay", "overlay", "-o", options, merged], check=True)
        try:
            yield merged
        finally:
            subprocess.run(["umount", "-l", merged], check=True)
    finally:
        subprocess.run(["umount", "-l", base], check=True)


def test_a_cache_on_a_stacked_filesystem(publish, place):
    """The kernel refuses; that is said once, and everything is served."""
    content: dict[str, bytes] = {name: publish(f"stacked-{name}", SIZE) for name in ("a", "b")}
    with stacked(place.folder) as merged:
        pid = mount(place, "--cache", str(merged / "cache"))
        for name, expected in [*content.items()] * 2:
            path = place.path / f"stacked-{name}"
            assert fill(path) == expected
            with Opener(path) as opener:
                assert opener("read") == digest(expected)
                assert not kernel_reads(place, pid, opener)
        log = place.log.read_text()
        assert log.count("stacked filesystem") == 1
        assert "Traceback" not in log
        assert place.umount().returncode == 0


def test_a_cache_in_memory(publish, place):
    content = publish("tmpfs", SIZE)
    place.cache.mkdir()
    subprocess.run(["mount", "-t", "tmpfs", "-o", "mode=700", "none", place.cache], check=True)
    try:
        pid = mount(place, "--cache-size", "64MiB")
        path = place.path / "tmpfs"
        fill(path)
        with handed_over(place, pid, path) as opener, stopped(pid):
            assert opener("read") == digest(content)
        assert place.umount().returncode == 0
    finally:
        place.clean()
        subprocess.run(["umount", "-l", place.cache], check=True)
