"""Other filesystems that can show the same bytes as files: what one is, and how it is mounted and ended.

Which there are: `bench.debian` and `bench.elsewhere`. What is not on the PATH is left out and named. Each mount gets
the kernel settings that a shardfs mount gives itself.
"""

import os
import shutil
import subprocess
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path

from bench.measure import fill
from bench.world import MODEL, World
from shardfs.api.local import is_mounted
from shardfs.mount.kernel import KernelOptions, tune

START_SECONDS = 40.0
STOP_SECONDS = 5.0

Command = Callable[[str, Path, Path], list[str]]
"""The command in the foreground, from the address of what it reads, the mountpoint and a cache folder."""


def source_in_memory(world: World) -> None:
    """Have in memory the plain file that servers on this machine read."""
    fill([world.source])


@dataclass(frozen=True, slots=True)
class Rival:
    """`programs` must be on the PATH; `caches`: it has a disk cache that outlives its mount.

    `prepare`: has in memory what its server reads, since the server's disk is not what is measured.
    """

    name: str
    programs: tuple[str, ...]
    serve: Callable[[World], "Served"]
    command: Command
    caches: bool = False
    prepare: Callable[[World], None] = source_in_memory

    @property
    def missing(self) -> list[str]:
        return [program for program in self.programs if find(program) is None]


@dataclass(frozen=True, slots=True)
class Served:
    """A running server: the address for the client's command, and what to stop, if anything."""

    address: str
    process: "subprocess.Popen[bytes] | None"


FAMILY = "SHARDFS_BENCH_RIVAL"
"""A variable in the environment of everything that a rival's client starts: sshfs lets go of its ssh."""


@dataclass(frozen=True, slots=True)
class Running:
    """A mounted rival: the path of the model there, and its client's process."""

    path: Path
    pid: int


def find(program: str) -> str | None:
    """Servers live where only root's PATH leads."""
    return shutil.which(program) or shutil.which(program, path="/usr/sbin:/sbin")


@contextmanager
def running(world: World, rival: Rival, cache: Path) -> Iterator[Running]:
    """Start the rival's server and mount."""
    cache.mkdir(exist_ok=True)
    with ExitStack() as stack:
        served = rival.serve(world)
        if served.process is not None:
            stack.callback(end, served.process)
        client, place = stack.enter_context(mounted(world, rival.name, rival.command, served.address, cache))
        tune(place, KernelOptions())
        wait_for((place / MODEL).exists, client, f"{rival.name}: the file does not show")
        yield Running(place / MODEL, client.pid)


@contextmanager
def mounted(
    world: World, name: str, command: Command, address: str, cache: Path
) -> "Iterator[tuple[subprocess.Popen[bytes], Path]]":
    """Run a client until its mount is there; the client and where it is mounted. RuntimeError."""
    place = world.place("rival")
    place.mkdir()
    with ExitStack() as stack:
        stack.callback(place.rmdir)
        log = stack.enter_context((world.work / "rivals.log").open("ab"))
        client = subprocess.Popen(
            command(address, place, cache),
            stdin=subprocess.DEVNULL,
            stdout=log,
            stderr=log,
            env={**os.environ, FAMILY: str(place)},
        )
        stack.callback(end, client)
        stack.callback(unmount, place)
        wait_for(lambda: is_mounted(place), client, f"{name}: no mount")
        yield client, place


def wait_for(ready: Callable[[], bool], process: "subprocess.Popen[bytes]", what: str) -> None:
    deadline = time.monotonic() + START_SECONDS
    while not ready():
        if process.poll() is not None or time.monotonic() > deadline:
            raise RuntimeError(what)
        time.sleep(0.02)


def unmount(place: Path) -> None:
    if is_mounted(place):
        subprocess.run(["fusermount3", "-u", str(place)], capture_output=True, check=False)
    if is_mounted(place):
        subprocess.run(["umount", "-l", str(place)], capture_output=True, check=False)


def end(process: "subprocess.Popen[bytes]") -> None:
    process.terminate()
    try:
        process.wait(STOP_SECONDS)
    except subprocess.TimeoutExpired:
        process.kill()
        with suppress(subprocess.TimeoutExpired):
            process.wait(STOP_SECONDS)
