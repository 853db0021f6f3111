"""What a mount costs: CPU seconds of the daemon for each GiB, and its largest memory under eight readers of the whole
model and four random readers at once, beside what `--memory` allowed for data.

The eight begin together: once at the beginning, as ranks that load one model do, and once an eighth of the model apart
and then round, so that for an eighth of the way each has its own part to fetch.
"""

import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path

from bench import cases
from bench.child import reader, run_reader
from bench.context import Bench
from bench.groups.readers import run_all
from bench.measure import GIB, MIB, Case
from bench.world import World

SEQUENTIAL, RANDOM, RANDOM_READS = 8, 4, 300
BASE_KEY, HIGH_KEY, CPU_KEY = "idle MiB", "peak MiB", "CPU s/GiB"
CROWDS = {"together": "from the beginning", "apart": "each an eighth further on"}
"""Case -> where the readers begin."""


def run(bench: Bench) -> None:
    world, figures = bench.world, bench.figures
    done = bench.measure(
        [
            single(world, "single", *cases.NO_CACHE),
            single(world, "single, disk cache"),
            *(crowd(world, name) for name in CROWDS),
        ]
    )
    unit = "CPU s/GiB"
    figures.add("daemon.cpu", "daemon's CPU, one cold read", unit, done.series("single", CPU_KEY), better="lower")
    cached = done.series("single, disk cache", CPU_KEY)
    figures.add("daemon.cpu_cache", "the same with the disk cache", unit, cached, better="lower")
    what = "daemon's CPU for the model's GiB, these twelve readers, with the disk cache"
    figures.add("daemon.cpu_crowd", what, unit, done.series("together", CPU_KEY), better="lower")
    idle = done.series("together", BASE_KEY)
    figures.add("daemon.idle", "memory before the first read", "MiB", idle, better="lower")
    figures.add("daemon.allowed", "--memory", "MiB", [cases.MEMORY_BYTES / MIB] * len(idle), better="lower")
    for name, where in CROWDS.items():
        peaks = done.series(name, HIGH_KEY)
        what = f"{SEQUENTIAL} whole-model readers, {where}, and {RANDOM} random ones"
        figures.add(f"daemon.peak_{name}", f"peak memory, {what}", "MiB", peaks, better="lower", limit="daemon.allowed")
        beyond = [peak - cases.MEMORY_BYTES / MIB for peak in peaks]
        figures.add(f"daemon.beyond_{name}", f"the same minus --memory, {where}", "MiB", beyond, better="lower")


def single(world: World, name: str, *options: str) -> Case:
    world.stored  # noqa: B018

    @contextmanager
    def scene() -> Iterator[cases.Timed]:
        with world.mount(*options) as mount, reader("read", mount.model) as child:

            def timed() -> dict[str, float]:
                before = cpu_seconds(mount.pid)
                seconds = run_reader(child, world.size)
                return {"seconds": seconds, CPU_KEY: (cpu_seconds(mount.pid) - before) / (world.size / GIB)}

            yield timed

    return Case(name, scene, memory_bytes=2 * world.size + cases.MEMORY_BYTES)


def crowd(world: World, name: str) -> Case:
    world.stored  # noqa: B018
    part = world.size // SEQUENTIAL if name == "apart" else 0

    @contextmanager
    def scene() -> Iterator[cases.Timed]:
        with world.mount() as mount, ExitStack() as stack:
            sequential = [
                stack.enter_context(reader("around", mount.model, number * part)) for number in range(SEQUENTIAL)
            ]
            scattered = [
                stack.enter_context(reader("random", mount.model, seed, RANDOM_READS)) for seed in range(RANDOM)
            ]

            def timed() -> dict[str, float]:
                before, idle = cpu_seconds(mount.pid), memory_mib(mount.pid, "VmHWM")
                for child in scattered:
                    child.go()
                seconds = run_all(sequential, world.size * SEQUENTIAL)
                for child in scattered:
                    child.answer()
                cpu = (cpu_seconds(mount.pid) - before) / (world.size / GIB)
                return {"seconds": seconds, CPU_KEY: cpu, BASE_KEY: idle, HIGH_KEY: memory_mib(mount.pid, "VmHWM")}

            yield timed

    return Case(name, scene, memory_bytes=2 * world.size + cases.MEMORY_BYTES)


def cpu_seconds(pid: int) -> float:
    """User and system time of a process so far, its finished children not included.

    By its own clock (clock_getcpuclockid(3)), because the ticks of /proc/PID/stat are as long as a short read.
    """
    return time.clock_gettime((~pid << 3) | 2)


def memory_mib(pid: int, key: str) -> float:
    """A line of /proc/PID/status: VmHWM is the largest resident memory so far."""
    for line in Path(f"/proc/{pid}/status").read_text().splitlines():
        if line.startswith(f"{key}:"):
            return int(line.split()[1]) / 1024
    raise OSError(f"/proc/{pid}/status has no {key}")
