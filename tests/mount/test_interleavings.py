"""Openers of several files in any order, in a cache that never has room for all of them: bytes are right at all times.

Files are served or handed over, opened by many, mapped, closed while mapped, evicted by reading others; each read is
compared with what was published.
"""

import mmap
import os
import random
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

import pytest
from hypothesis import HealthCheck, Phase, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, precondition, rule, run_state_machine_as_test

from tests.mount.kit import MiB, Place, scratch
from tests.mount.test_passthrough import CAN

pytestmark = pytest.mark.fuse
SIZES = [1, 4096, 300_001, 2 * MiB, 5 * MiB + 777, 6 * MiB]


class Mounted(NamedTuple):
    folder: Path
    content: list[bytes]


@pytest.fixture(scope="module", params=["served", *(["passthrough"] if CAN else [])])
def mounted_little(request, cluster, tmp_path_factory) -> Iterator[Mounted]:
    """A mount with room for half of its model on the disk, and for three chunks in memory."""
    source = tmp_path_factory.mktemp("mixed")
    content = [random.Random(size).randbytes(size) for size in SIZES]
    for number, data in enumerate(content):
        (source / str(number)).write_bytes(data)
    cluster.put(source, "mixed")
    options = ["--passthrough"] if request.param == "passthrough" else []
    with scratch() as folder:
        place = Place(folder, cluster.cluster_file)
        try:
            place.mount("--cache-size", "9MiB", "--memory", "16MiB", *options)
            yield Mounted(place.path / "mixed", content)
            assert place.umount().returncode == 0
            log = place.log.read_text()
            assert "Traceback" not in log, log
            assert "error" not in log, log
        finally:
            place.clean()
    cluster.run("rm", "mixed")


FILES = st.integers(0, len(SIZES) - 1)
PART = st.floats(0, 1)


class Openers(RuleBasedStateMachine):
    """At most a few descriptors and maps at a time; `folder` and `content` are set before it runs."""

    folder: Path
    content: list[bytes]

    def __init__(self) -> None:
        super().__init__()
        self.open: list[tuple[int, int]] = []  # file, descriptor
        self.maps: list[tuple[int, mmap.mmap]] = []

    def teardown(self) -> None:
        for _, mapped in self.maps:
            mapped.close()
        for _, fd in self.open:
            os.close(fd)

    @precondition(lambda self: len(self.open) < 8)
    @rule(file=FILES)
    def open_file(self, file: int) -> None:
        self.open.append((file, os.open(self.folder / str(file), os.O_RDONLY)))

    @precondition(lambda self: self.open)
    @rule(data=st.data())
    def close_file(self, data: st.DataObject) -> None:
        os.close(self.open.pop(data.draw(st.integers(0, len(self.open) - 1)))[1])

    @precondition(lambda self: self.open)
    @rule(data=st.data(), start=PART, length=PART, forget=st.booleans())
    def read(self, data: st.DataObject, start: float, length: float, forget: bool) -> None:
        file, fd = data.draw(st.sampled_from(self.open))
        if forget:
            os.posix_fadvise(fd, 0, 0, os.POSIX_FADV_DONTNEED)
        at, size = int(start * SIZES[file]), int(length * SIZES[file]) + 1
        found = bytearray(size)
        count = os.preadv(fd, [found], at)
        assert found[:count] == self.content[file][at : at + size]

    @precondition(lambda self: self.open and len(self.maps) < 8)
    @rule(data=st.data(), private=st.booleans())
    def map_file(self, data: st.DataObject, private: bool) -> None:
        file, fd = data.draw(st.sampled_from(self.open))
        flags = mmap.MAP_PRIVATE if private else mmap.MAP_SHARED
        self.maps.append((file, mmap.mmap(fd, SIZES[file], flags=flags, prot=mmap.PROT_READ)))

    @precondition(lambda self: self.maps)
    @rule(data=st.data(), anew=st.booleans())
    def look_at_map(self, data: st.DataObject, anew: bool) -> None:
        file, mapped = data.draw(st.sampled_from(self.maps))
        if anew:
            mapped.madvise(mmap.MADV_DONTNEED)
        assert mapped[:] == self.content[file]

    @precondition(lambda self: self.maps)
    @rule(data=st.data())
    def unmap(self, data: st.DataObject) -> None:
        self.maps.pop(data.draw(st.integers(0, len(self.maps) - 1)))[1].close()

    @rule(file=FILES)
    def read_whole(self, file: int) -> None:
        """As loaders do: open, read, close. It makes a file whole in the cache and takes the room of others."""
        fd = os.open(self.folder / str(file), os.O_RDONLY)
        try:
            os.posix_fadvise(fd, 0, 0, os.POSIX_FADV_DONTNEED)
            with os.fdopen(os.dup(fd), "rb", buffering=0) as source:
                assert source.read() == self.content[file]
        finally:
            os.close(fd)


def test_any_order(mounted_little):
    """The same sequences each time, and no shrinking: what went wrong depends on all that was done before."""
    machine = type("OpenersHere", (Openers,), mounted_little._asdict())
    chosen = settings(
        max_examples=25,
        stateful_step_count=40,
        deadline=None,
        derandomize=True,
        database=None,
        phases=[Phase.generate],
        suppress_health_check=list(HealthCheck),
    )
    run_state_machine_as_test(machine, settings=chosen)
