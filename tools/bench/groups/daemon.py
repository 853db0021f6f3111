"""What a mount costs: CPU seconds of the daemon for each GiB, and its largest memory under eight sequential and four
random readers at once, beside what `--memory` allowed for data.
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


def run(bench: Bench) -> None:
    figures = bench.figures
    done = bench.measure([single(bench.world), crowd(bench.world)])
    unit = "CPU s/GiB"
    figures.add("daemon.cpu", "daemon's CPU, one cold read", unit, done.series("single", CPU_KEY), better="lower")
    figures.add("daemon.cpu_cache", "with the disk cache", unit, done.series("crowd", CPU_KEY), better="lower")
    peaks = done.series("crowd", HIGH_KEY)
    figures.add("daemon.idle", "memory before the first read", "MiB", done.series("crowd", BASE_KEY), better="lower")
    figures.add("daemon.allowed", "--memory", "MiB", [cases.MEMORY_BYTES / MIB] * len(peaks), better="lower")
    what = f"peak memory, {SEQUENTIAL} sequential and {RANDOM} random readers"
    figures.add("daemon.peak", what, "MiB", peaks, better="lower", limit="daemon.allowed")


def single(world: World) -> Case:
    world.stored  # noqa: B018

    @contextmanager
    def scene() -> Iterator[cases.Timed]:
        with world.mount(*cases.NO_CACHE) as mount, reader("read", mount.model) as child:

            def timed() -> dict[str, float]:
                before = cpu_seconds(mount.pid)
                seconds = run_reader(child, world.size)
                return {"seconds": seconds, CPU_KEY: (cpu_seconds(mount.pid) - before) / (world.size / GIB)}

            yield timed

    return Case("single", scene, memory_bytes=world.size + cases.MEMORY_BYTES)


def crowd(world: World) -> Case:
    world.stored  # noqa: B018

    @contextmanager
    def scene() -> Iterator[cases.Timed]:
        part = world.size // SEQUENTIAL
        with world.mount() as mount, ExitStack() as stack:
            sequential = [
                stack.enter_context(reader("read", mount.model, number * part, part)) for number in range(SEQUENTIAL)
            ]
            scattered = [
                stack.enter_context(reader("random", mount.model, seed, RANDOM_READS)) for seed in range(RANDOM)
            ]

            def timed() -> dict[str, float]:
                before, idle = cpu_seconds(mount.pid), memory_mib(mount.pid, "VmHWM")
                for child in scattered:
                    child.go()
                seconds = run_all(sequential, part * SEQUENTIAL)
                for child in scattered:
                    child.answer()
                cpu = (cpu_seconds(mount.pid) - before) / (world.size / GIB)
                return {"seconds": seconds, CPU_KEY: cpu, BASE_KEY: idle, HIGH_KEY: memory_mib(mount.pid, "VmHWM")}

            yield timed

    return Case("crowd", scene, memory_bytes=2 * world.size + cases.MEMORY_BYTES)


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
