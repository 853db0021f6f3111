"""Other filesystems on the same bytes, beside shardfs, in the same rounds: cold, and warm where they keep a disk cache.

All read the whole model. Their servers have it in memory, as shardfs' nodes do; those on S3 read from a slower server
than the others, a real one that is written in Python (see `bench.elsewhere`). Warm: a new mount over a full disk cache
of which nothing is in memory; with --passthrough the mount has read it once before (see `bench.passthrough`). The plain
local file, not in memory, is there for reference. CPU is that of the client and its children (sshfs has ssh processes
that decrypt), not of the servers. Only with --peers.
"""

import shutil
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from bench import cases, elsewhere, passthrough
from bench.child import Child, reader, run_reader
from bench.context import Bench
from bench.debian import RIVALS
from bench.figures import Figures
from bench.groups.daemon import CPU_KEY, cpu_seconds
from bench.measure import GIB, Case, Results, evict, files_below, middle
from bench.rivals import FAMILY, Rival, running
from bench.world import World

HANDED_OVER = "shardfs --passthrough, warm"


def run(bench: Bench) -> None:
    bench.world.stored  # noqa: B018
    with elsewhere.rivals(bench) as others:
        measure(bench, [*present(bench), *others])


def measure(bench: Bench, there: list[Rival]) -> None:
    world = bench.world
    caches = {"shardfs": cases.filled_cache(world)}
    rounds = [
        cases.disk(world),
        ours(world, "shardfs cold"),
        ours(world, "shardfs, no cache cold", *cases.NO_CACHE),
        cases.warm(world, "shardfs warm", caches["shardfs"]),
        *(cold(world, rival) for rival in there),
    ]
    why = passthrough.lacking(world, caches["shardfs"])
    if why is None:
        rounds.append(passthrough.warm(world, HANDED_OVER, caches["shardfs"]))
    else:
        bench.cannot(HANDED_OVER, ["peers.shardfs_passthrough"], why)
    for rival in there:
        if rival.caches:
            try:
                caches[rival.name] = full_cache(world, rival)
            except (OSError, RuntimeError, TimeoutError) as error:
                bench.note(f"{rival.name}: no warm figure ({error})")
            else:
                rounds.append(warm(world, rival, caches[rival.name]))
    try:
        done = bench.measure(rounds)
    finally:
        for cache in caches.values():
            shutil.rmtree(cache, ignore_errors=True)
    record(bench, done, there)


def record(bench: Bench, done: Results, there: list[Rival]) -> None:
    figures, size = bench.figures, bench.options.size
    figures.rate("peers.disk", "local file, page cache dropped", done.series("disk read"), size)
    for state in ("cold", "warm"):
        for rival in there:
            figures.rate(
                f"peers.{key(rival)}_{state}", f"{rival.name}, {state}", done.series(f"{rival.name} {state}"), size
            )
        best(figures, state, there)
        series = done.series(f"shardfs {state}")
        figures.rate(f"peers.shardfs_{state}", f"shardfs, {state}", series, size, limit=f"peers.best_{state}")
    series = done.series("shardfs, no cache cold")
    figures.rate("peers.shardfs_memory", "shardfs, no cache, cold", series, size, limit="peers.best_cold")
    series = done.series(HANDED_OVER)
    figures.rate("peers.shardfs_passthrough", HANDED_OVER, series, size, limit="peers.best_warm")
    cpu(figures, done, there)


def cpu(figures: Figures, done: Results, there: list[Rival]) -> None:
    """What the cold reads cost the clients."""
    unit, least = "CPU s/GiB", "peers.cpu_best"
    costs = {rival: done.series(f"{rival.name} cold", CPU_KEY) for rival in there}
    for rival, values in costs.items():
        figures.add(f"peers.cpu_{key(rival)}", f"CPU of {rival.name}, cold", unit, values, better="lower")
    if measured := {rival: values for rival, values in costs.items() if values}:
        thrifty = min(measured, key=lambda rival: middle(measured[rival]))
        figures.add(least, f"the least ({thrifty.name})", unit, measured[thrifty], better="lower")
    for name, figure in (("shardfs", "peers.cpu_shardfs"), ("shardfs, no cache", "peers.cpu_shardfs_memory")):
        values = done.series(f"{name} cold", CPU_KEY)
        figures.add(figure, f"CPU of {name}, cold", unit, values, better="lower", limit=least)


def present(bench: Bench) -> list[Rival]:
    """Those that can be started here; a note for each that cannot."""
    for rival in RIVALS:
        if rival.missing:
            bench.note(f"{rival.name}: left out, not installed: {', '.join(rival.missing)}")
    return [rival for rival in RIVALS if not rival.missing]


def key(rival: Rival) -> str:
    return rival.name.replace(", ", "_").replace(" ", "_")


def best(figures: Figures, state: str, there: list[Rival]) -> None:
    """Record the fastest peer once more, as what shardfs is compared with."""
    found = [figure for rival in there if (figure := figures.by_name.get(f"peers.{key(rival)}_{state}"))]
    if found:
        winner = max(found, key=lambda figure: middle(figure.values))
        figures.add(f"peers.best_{state}", f"the best peer ({winner.what})", "MiB/s", winner.values, better="higher")


def cold(world: World, rival: Rival) -> Case:
    @contextmanager
    def scene() -> Iterator[cases.Timed]:
        rival.prepare(world)
        cache = world.place("rival-cache")
        try:
            with running(world, rival, cache) as mount, reader("read", mount.path) as child:
                yield lambda: costed(world, mount.pid, child)
        finally:
            shutil.rmtree(cache, ignore_errors=True)

    return Case(f"{rival.name} cold", scene, memory_bytes=2 * world.size + cases.MEMORY_BYTES)


def ours(world: World, name: str, *options: str) -> Case:
    @contextmanager
    def scene() -> Iterator[cases.Timed]:
        with world.mount(*options) as mount, reader("read", mount.model) as child:
            yield lambda: costed(world, mount.pid, child)

    return Case(name, scene, memory_bytes=2 * world.size + cases.MEMORY_BYTES)


def costed(world: World, pid: int, child: Child) -> dict[str, float]:
    """A read, with the CPU that the client and its children took for it."""
    before = family_cpu_seconds(pid)
    seconds = run_reader(child, world.size)
    return {"seconds": seconds, CPU_KEY: (family_cpu_seconds(pid) - before) / (world.size / GIB)}


def family_cpu_seconds(pid: int) -> float:
    """User and system time so far of a process, all that descend from it and all that have its mark (`FAMILY`)."""
    parents: dict[int, int] = {}
    family, marked = {pid}, mark(pid)
    for entry in Path("/proc").iterdir():
        with suppress(OSError, ValueError, IndexError):
            one = int(entry.name)
            parents[one] = int((entry / "stat").read_text().rpartition(")")[2].split()[1])
            if marked and mark(one) == marked:
                family.add(one)
    while more := {one for one, parent in parents.items() if parent in family and one not in family}:
        family |= more
    return sum(cpu_seconds(one) for one in family)


def mark(pid: int) -> bytes:
    """What a process and those it started have in their environment, or nothing."""
    variables = Path(f"/proc/{pid}/environ").read_bytes().split(b"\0")
    return next((variable for variable in variables if variable.startswith(FAMILY.encode())), b"")


def full_cache(world: World, rival: Rival) -> Path:
    """A cache that the rival has filled by reading the model once."""
    cache = world.place("rival-cache")
    with running(world, rival, cache) as mount, reader("read", mount.path) as child:
        run_reader(child, world.size)
    return cache


def warm(world: World, rival: Rival, cache: Path) -> Case:
    @contextmanager
    def scene() -> Iterator[cases.Timed]:
        evict(files_below(cache))
        with running(world, rival, cache) as mount, reader("read", mount.path) as child:
            yield lambda: run_reader(child, world.size)

    return Case(f"{rival.name} warm", scene, memory_bytes=2 * world.size + cases.MEMORY_BYTES)
