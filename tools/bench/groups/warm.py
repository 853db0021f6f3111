"""Reads of what is here already: in the disk cache (warm; page cache dropped, also with every node stopped), and in the
kernel's page cache (hot). The limits are the same bytes in a plain local file, dropped from the page cache or in it; a
plain pyfuse3 file in the page cache shows how far the kernel lets any FUSE filesystem get.
"""

import shutil

from bench import cases
from bench.context import Bench


def run(bench: Bench) -> None:
    world, figures, size = bench.world, bench.figures, bench.options.size
    world.stored  # noqa: B018
    cache = cases.filled_cache(world)
    try:
        done = bench.measure(
            [
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
        )
    finally:
        shutil.rmtree(cache, ignore_errors=True)
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
