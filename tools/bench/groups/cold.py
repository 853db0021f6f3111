"""First read of a model: nothing of it in the client's memory or disk, all of it in the nodes' memory.

The ceiling is what two stages can reach that share the same cores one after the other: the wire (raw sockets, no hash)
and pyfuse3 (a file out of memory). Hashing, caching and scheduling are what is left between it and the figures.
"""

from bench import cases
from bench.context import Bench


def run(bench: Bench) -> None:
    world, figures, size = bench.world, bench.figures, bench.options.size
    done = bench.measure(
        [
            cases.wire(world),
            cases.fuse(world),
            cases.cold(world, "cold, disk cache"),
            cases.cold(world, "cold, memory only", *cases.NO_CACHE),
            cases.cold(world, "cold, mmap walk", *cases.NO_CACHE, how="mmap"),
            cases.cold(world, "cold, mmap walk, disk cache", how="mmap"),
        ]
    )
    figures.rate("cold.wire", "raw sockets, no hash, no FUSE", done.series("wire"), size)
    figures.rate("cold.fuse", "pyfuse3, a file out of memory", done.series("fuse"), size)
    figures.harmonic("cold.ceiling", "cold ceiling, 1/(1/wire + 1/fuse)", "cold.wire", "cold.fuse")
    ceiling = "cold.ceiling"
    figures.rate("cold.cache", "cold read, cache on disk", done.series("cold, disk cache"), size, limit=ceiling)
    figures.rate("cold.memory", "cold read, memory only", done.series("cold, memory only"), size, limit=ceiling)
    mmap = done.series("cold, mmap walk, disk cache")
    figures.rate("cold.cache_mmap", "cold mmap walk, cache on disk", mmap, size, limit=ceiling)
    figures.rate("cold.mmap", "cold mmap walk, memory only", done.series("cold, mmap walk"), size, limit=ceiling)
