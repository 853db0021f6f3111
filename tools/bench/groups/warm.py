"""Reads of what is here already: in the disk cache (warm; page cache dropped, also with every node stopped), and in the
kernel's page cache (hot). The limits are the same bytes in a plain local file, dropped from the page cache or in it; a
plain pyfuse3 file in the page cache shows how far the kernel lets any FUSE filesystem get.

With --passthrough the mount has read the model once, which is when it verifies it, and has handed it over (see
`bench.passthrough`); left out where that cannot be done.
"""

import shutil
from pathlib import Path

from bench import cases, passthrough
from bench.context import Bench
from bench.figures import Figures
from bench.measure import Case, Results
from bench.world import World

HANDED_OVER = {
    "warm read, --passthrough": ("warm.passthrough", "warm.disk"),
    "warm mmap walk, --passthrough": ("warm.passthrough_mmap", "warm.disk_mmap"),
    "hot read, --passthrough": ("warm.passthrough_hot", "warm.memory"),
    "hot mmap walk, --passthrough": ("warm.passthrough_hot_mmap", "warm.memory_mmap"),
}
"""Case and what it says in the report -> figure and its limit."""


def run(bench: Bench) -> None:
    world = bench.world
    world.stored  # noqa: B018
    cache = cases.filled_cache(world)
    try:
        why = passthrough.lacking(world, cache)
        done = bench.measure([*served(world, cache), *(handed_over(world, cache) if why is None else ())])
    finally:
        shutil.rmtree(cache, ignore_errors=True)
    record(bench.figures, done, bench.options.size)
    if why is not None:
        bench.cannot("reads with --passthrough", [figure for figure, _ in HANDED_OVER.values()], why)


def served(world: World, cache: Path) -> list[Case]:
    """The limits, and reads that the daemon serves."""
    return [
        cases.disk(world),
        cases.disk(world, "mmap"),
        cases.memory(world),
        cases.memory(world, "mmap"),
        cases.warm(world, "warm", cache),
        cases.warm(world, "warm mmap", cache, how="mmap"),
        cases.warm(world, "warm, nodes stopped", cache, stop_nodes=True),
        cases.fuse_hot(world, "read"),
        cases.fuse_hot(world, "mmap"),
        cases.hot(world, "hot read", "read"),
        cases.hot(world, "hot mmap", "mmap"),
    ]


def handed_over(world: World, cache: Path) -> list[Case]:
    """Reads that the kernel serves from the cache folder, in the order of `HANDED_OVER`."""
    warm_read, warm_mmap, hot_read, hot_mmap = HANDED_OVER
    return [
        passthrough.warm(world, warm_read, cache),
        passthrough.warm(world, warm_mmap, cache, how="mmap"),
        passthrough.hot(world, hot_read, cache),
        passthrough.hot(world, hot_mmap, cache, how="mmap"),
    ]


def record(figures: Figures, done: Results, size: int) -> None:
    figures.rate("warm.disk", "local file, page cache dropped", done.series("disk read"), size)
    figures.rate("warm.disk_mmap", "the same by mmap", done.series("disk mmap"), size)
    figures.rate("warm.memory", "local file in memory", done.series("memory read"), size)
    figures.rate("warm.memory_mmap", "the same by mmap", done.series("memory mmap"), size)
    figures.rate("warm.read", "warm read", done.series("warm"), size, limit="warm.disk")
    figures.rate("warm.mmap", "warm mmap walk", done.series("warm mmap"), size, limit="warm.disk_mmap")
    stopped = done.series("warm, nodes stopped")
    figures.rate("warm.stopped", "warm read, all nodes stopped", stopped, size, limit="warm.disk")
    fuse, fuse_mmap = done.series("fuse hot read"), done.series("fuse hot mmap")
    figures.rate("warm.fuse_hot", "a plain pyfuse3 file, hot", fuse, size, limit="warm.memory")
    figures.rate("warm.fuse_hot_mmap", "the same by mmap", fuse_mmap, size, limit="warm.memory_mmap")
    figures.rate("warm.hot", "hot read", done.series("hot read"), size, limit="warm.memory")
    figures.rate("warm.hot_mmap", "hot mmap walk", done.series("hot mmap"), size, limit="warm.memory_mmap")
    for name, (figure, limit) in HANDED_OVER.items():
        figures.rate(figure, name, done.series(name), size, limit=limit)
