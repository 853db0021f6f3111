"""Reads of a model that a mount with --passthrough has handed over to the kernel, so that they never enter the daemon.

A mount hands a file over once it has written or verified all of it itself, and to whoever opens it while nobody has it
open in the other way. So each case mounts anew over a full disk cache, reads the model once through the daemon, drops
the models' files in the cache folder from memory, and looks whether the model has been handed over before anything is
timed: what is in memory of it is then what is in memory of its file in the cache folder, which is nothing. Served by
the daemon it would be all that has just been read. The model stays open from there on, so that what is timed, which
opens it too, gets it the same way.
"""

import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import BinaryIO

from bench import cases
from bench.child import reader, run_reader
from bench.measure import MIB, RESIDENT_MAX, Case, evict, files_below, fill, resident
from bench.world import RESIDENT_ENOUGH, Mount, World

OPTION = "--passthrough"
HANDED_OVER_SECONDS = 30.0
DATA = ".data"  # the files of a cache folder that hold models; others the daemon itself may need at any time


class NotHandedOverError(Exception):
    """A mount does not hand the model over, and why."""


def lacking(world: World, cache: Path) -> str | None:
    """Why nothing is handed over on this machine, tried with a disk cache that holds the whole model; None: it works.

    None too when something else goes wrong: the cases that follow will fail of it and be noted.
    """
    try:
        with handed_over(world, cache):
            pass
    except NotHandedOverError as why:
        return str(why)
    except Exception as error:  # noqa: BLE001  # the other cases of the group must not go with it
        world.say(f"  {OPTION}, tried: {type(error).__name__}: {error}")
    return None


def warm(world: World, name: str, cache: Path, *, how: str = "read") -> Case:
    """The model handed over, nothing of it in memory."""

    @contextmanager
    def scene() -> Iterator[cases.Timed]:
        with handed_over(world, cache) as mount, reader(how, mount.model) as child:
            yield lambda: run_reader(child)

    return Case(name, scene, memory_bytes=world.size + cases.copied(world, how) + 16 * MIB)


def hot(world: World, name: str, cache: Path, *, how: str = "read") -> Case:
    """The model handed over, all of it in memory."""

    @contextmanager
    def scene() -> Iterator[cases.Timed]:
        with handed_over(world, cache, in_memory=True) as mount, reader(how, mount.model) as child:
            yield lambda: run_reader(child)

    return Case(name, scene, memory_bytes=cases.copied(world, how) + 16 * MIB)


@contextmanager
def handed_over(world: World, cache: Path, *, in_memory: bool = False) -> Iterator[Mount]:
    """A new mount that hands the model over, nothing of it in memory or all. NotHandedOverError."""
    world.stored  # noqa: B018
    with world.mount(OPTION, cache=cache) as mount:
        if not mount.passthrough:
            raise NotHandedOverError(said(mount))
        with reader("read", mount.model) as child:
            run_reader(child, world.size)
        # The case `disk` gets the very pages that its own file has just given up; so does this one.
        fill(model_files(cache))
        evict(model_files(cache))
        with opened(mount):  # as long as it is open, all others get it the same way
            if in_memory:
                fill([mount.model])
                if (share := resident(mount.model)) < RESIDENT_ENOUGH:
                    raise RuntimeError(f"only {share:.0%} of the model is in the page cache")
            yield mount


def opened(mount: Mount) -> BinaryIO:
    """The model, handed over: it was read by the daemon, and its file in the cache folder is not in memory."""
    deadline = time.monotonic() + HANDED_OVER_SECONDS
    while True:
        file = mount.model.open("rb")
        if is_handed_over(mount.model):
            return file
        file.close()
        if time.monotonic() > deadline:
            raise NotHandedOverError(f"tried for {HANDED_OVER_SECONDS:.0f} s; the mount's log: {said(mount)}")
        # The close of the reader may still be on its way, and until then the file is open in the other way.
        time.sleep(0.05)


def is_handed_over(model: Path) -> bool:
    """Whether a model of which the daemon has just served all, and whose file is not in memory, is handed over now."""
    return resident(model) <= RESIDENT_MAX


def model_files(cache: Path) -> list[Path]:
    """The files of a cache folder that hold the bytes of models."""
    return [path for path in files_below(cache) if path.suffix == DATA]


def said(mount: Mount) -> str:
    """The last that the daemon's log says about it, which is why it does not hand over."""
    mark = f"{OPTION.lstrip('-')}: "
    lines = [line.partition(mark)[2] for line in mount.log.read_text(errors="replace").splitlines() if mark in line]
    return lines[-1] if lines else "the mount hands nothing over and does not say why"
