"""Timing on a machine whose speed drifts: cases take turns, memory is touched first, a state is checked, not hoped for.

Three things spoil naive figures on virtual machines, each by more than what is to be measured:

- Fresh memory. The host takes free pages back, and the first touch of a page then costs more than reading a file into
  it. So before each timed run as many bytes are touched and freed as the run will need.
- Drift. Neighbours come and go. So the cases of a group take turns, in a different order each round, and a ratio is
  made within one round.
- Leftovers. Unwritten pages of the last run slow the next. So everything is synced first.
"""

import ctypes
import mmap
import os
import statistics
from collections.abc import Callable, Mapping, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np

MIB = 1024 * 1024
GIB = 1024 * MIB
RESIDENT_MAX = 0.02
_TOUCH_SHARE = 0.5


@dataclass(frozen=True, slots=True)
class Case:
    """One thing to measure. `scene` sets everything up and yields what is timed: it returns seconds, or values by name.

    `memory_bytes`: how much the timed part will fill, page cache included.
    """

    name: str
    scene: Callable[[], AbstractContextManager[Callable[[], float | Mapping[str, float]]]]
    memory_bytes: int = 0


@dataclass(slots=True)
class Results:
    """What the rounds gave: for each case one mapping a round, or the reason why it has none."""

    values: dict[str, list[Mapping[str, float]]] = field(default_factory=dict)
    failed: dict[str, str] = field(default_factory=dict)

    def series(self, case: str, key: str = "seconds") -> list[float]:
        """The values of all rounds, in order; empty when the case failed or was not there."""
        if case in self.failed:
            return []
        return [value[key] for value in self.values.get(case, ())]


def interleave(cases: Sequence[Case], runs: int, say: Callable[[str], None]) -> Results:
    """Run all cases `runs` times in turns. A case that fails is left out from then on; the others go on."""
    results = Results()
    for number in range(runs):
        shift = number % len(cases) if cases else 0
        for case in (*cases[shift:], *cases[:shift]):
            if case.name in results.failed:
                continue
            try:
                values = _run(case)
            except Exception as error:  # noqa: BLE001  # whatever a case does, the others go on
                results.failed[case.name] = f"{type(error).__name__}: {error}"
                say(f"  {case.name}: failed: {results.failed[case.name]}")
                continue
            results.values.setdefault(case.name, []).append(values)
            say(f"  round {number + 1}/{runs} {case.name}: " + ", ".join(f"{k} {v:.4g}" for k, v in values.items()))
    return results


def _run(case: Case) -> Mapping[str, float]:
    with case.scene() as timed:
        os.sync()
        touch(case.memory_bytes)
        value = timed()
    return {"seconds": value} if isinstance(value, float) else value


def touch(size: int) -> None:
    """Take `size` bytes of memory from the host, one write a page, and free them: half of what is available at most."""
    size = min(size, int(available_memory() * _TOUCH_SHARE)) // mmap.PAGESIZE * mmap.PAGESIZE
    if size <= 0:
        return
    with mmap.mmap(-1, size) as memory:
        pages = np.frombuffer(memory, dtype=np.uint8)
        pages[:: mmap.PAGESIZE] = 1
        del pages


def available_memory() -> int:
    """Bytes that programs can still have, by the kernel's estimate."""
    for line in Path("/proc/meminfo").read_text().splitlines():
        if line.startswith("MemAvailable:"):
            return int(line.split()[1]) * 1024
    raise OSError("/proc/meminfo does not say how much memory is available")


# ----------------------------------------------------------------------------------------------------- page cache


def evict(paths: Sequence[Path]) -> None:
    """Have nothing of these files in the page cache. Raises RuntimeError when the kernel keeps it."""
    for path in paths:
        with path.open("rb") as file:
            os.fdatasync(file.fileno())
            os.posix_fadvise(file.fileno(), 0, 0, os.POSIX_FADV_DONTNEED)
        if (share := resident(path)) > RESIDENT_MAX:
            raise RuntimeError(f"{path.name}: {share:.0%} of it stays in the page cache")


def fill(paths: Sequence[Path]) -> None:
    """Have all of these files in the page cache."""
    buffer = bytearray(MIB)
    for path in paths:
        with path.open("rb", buffering=0) as file:
            while file.readinto(buffer):
                pass


def refill(paths: Sequence[Path]) -> None:
    """Have all of these files in the page cache anew, in the large pieces that reading in order brings."""
    evict(paths)
    fill(paths)


def resident(path: Path) -> float:
    """The share of the file's pages that are in the page cache."""
    size = path.stat().st_size
    if not size:
        return 0.0
    libc = ctypes.CDLL(None, use_errno=True)
    pages = -(-size // mmap.PAGESIZE)
    state = (ctypes.c_ubyte * pages)()
    with path.open("rb") as file, mmap.mmap(file.fileno(), size, mmap.MAP_PRIVATE) as mapped:
        whole = (ctypes.c_ubyte * size).from_buffer(mapped)
        failed = libc.mincore(ctypes.byref(whole), ctypes.c_size_t(size), state)
        error = ctypes.get_errno()
        del whole
    if failed:
        raise OSError(error, os.strerror(error), str(path))
    return int((np.frombuffer(bytes(state), dtype=np.uint8) & 1).sum()) / pages


def file_system(path: Path) -> str:
    """The type of the file system that `path` is on, such as ext4 or tmpfs; empty when the kernel does not tell."""
    device = path.stat().st_dev
    wanted = f"{os.major(device)}:{os.minor(device)}"
    for line in Path("/proc/self/mountinfo").read_text().splitlines():
        before, _, after = line.partition(" - ")
        if before.split()[2] == wanted:
            return after.split()[0]
    return ""


def files_below(folder: Path) -> list[Path]:
    return [path for path in sorted(folder.rglob("*")) if path.is_file() and not path.is_symlink()]


# ------------------------------------------------------------------------------------------------------ statistics


def percentile(values: Sequence[float], percent: float) -> float:
    """The nearest-rank percentile."""
    return sorted(values)[min(len(values) - 1, int(len(values) * percent / 100))]


def middle(values: Sequence[float]) -> float:
    return statistics.median(values)
