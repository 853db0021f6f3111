"""Several readers at once, cold, memory only: N processes that each read their part of one file, as ranks do, and four
that each read all of it. The time is from the first start to the last end, the rate that of the file's bytes.
"""

from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager

from bench import cases
from bench.child import Child, reader
from bench.context import Bench
from bench.measure import Case
from bench.world import World

COUNTS = (1, 4, 16)
SAME = 4


def run(bench: Bench) -> None:
    world, figures, size = bench.world, bench.figures, bench.options.size
    done = bench.measure([*(readers(world, count) for count in COUNTS), readers(world, SAME, same=True)])
    for count in COUNTS:
        what = "one reader" if count == 1 else f"{count} readers, a part each"
        limit = None if count == 1 else "readers.n1"
        figures.rate(f"readers.n{count}", what, done.series(f"{count} readers"), size, limit=limit)
    what = f"{SAME} readers, all of it each"
    figures.rate("readers.same", what, done.series(f"{SAME} readers, same"), size, limit="readers.n1")


def readers(world: World, count: int, *, same: bool = False) -> Case:
    world.stored  # noqa: B018

    @contextmanager
    def scene() -> Iterator[cases.Timed]:
        part = -(-world.size // count)
        with world.mount(*cases.NO_CACHE) as mount, ExitStack() as stack:
            children = [
                stack.enter_context(
                    reader("read", mount.model)
                    if same
                    else reader("read", mount.model, number * part, min(part, world.size - number * part))
                )
                for number in range(count)
            ]
            yield lambda: run_all(children, world.size * (count if same else 1))

    name = f"{count} readers, same" if same else f"{count} readers"
    return Case(name, scene, memory_bytes=world.size + cases.MEMORY_BYTES)


def run_all(children: Sequence[Child], expected_bytes: int) -> float:
    """Let all go at once; seconds from the first start to the last end."""
    for child in children:
        child.go()
    answers = [child.answer() for child in children]
    if (done := sum(answer["bytes"] for answer in answers)) != expected_bytes:
        raise RuntimeError(f"read {done} of {expected_bytes} bytes")
    return float(max(answer["ended"] for answer in answers) - min(answer["started"] for answer in answers))
