"""Where chunks go: how even ten equal nodes are filled, what an eleventh moves, and the time to rank nodes for a chunk.

Nothing is stored: it is arithmetic over made-up names, the same in every run but for the time. So it is done once.
"""

from bench.context import Bench
from bench.placement import measure

CHUNKS, CHUNKS_QUICK = 1_000_000, 20_000


def run(bench: Bench) -> None:
    count = CHUNKS_QUICK if bench.options.quick else CHUNKS
    done, figures = measure(count), bench.figures
    over, moved = done["fullest_over_mean_percent"], done["eleventh_node_moved_percent"]
    what = f"{count:,} chunks on 10 nodes: the fullest above the mean"
    figures.add("placement.fullest", what, "%", [over], better="lower")
    figures.add("placement.moved", "chunks that an eleventh node moves", "%", [moved], better="lower")
    error = done["weights_1_2_4_worst_error_percent"]
    figures.add("placement.weights", "weights 1, 2, 4: the worst share is off by", "%", [error], better="lower")
    took = done["microseconds_per_ranking"]
    figures.add("placement.time", "to rank ten nodes for a chunk", "microseconds", [took], better="lower")
