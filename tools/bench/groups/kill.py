"""A node killed with SIGKILL when a reader is half way: every byte is right, and the seconds it adds.

The reader makes a SHA-256 of what it reads, in both cases, so the undisturbed read is the fair comparison. That the
fault hit is checked: the reader was still reading when the node was dead.
"""

import hashlib
from collections.abc import Iterator
from contextlib import contextmanager

from bench import cases
from bench.child import Child, elapsed, reader
from bench.context import Bench
from bench.measure import Case
from bench.world import World


def run(bench: Bench) -> None:
    world, figures = bench.world, bench.figures
    with world.source.open("rb") as file:
        expected = hashlib.file_digest(file, "sha256").hexdigest()
    done = bench.measure([read(world, "undisturbed", expected, None), read(world, "node killed", expected, "b")])
    calm, killed = done.series("undisturbed"), done.series("node killed")
    figures.seconds("kill.calm", "read with SHA-256, undisturbed", calm)
    figures.seconds("kill.killed", "the same, a node killed half way", killed, limit="kill.calm")
    added = [a - b for a, b in zip(killed, calm, strict=False)]
    figures.seconds("kill.added", "seconds that the kill added", added)
    if killed:
        figures.add("kill.right", "SHA-256 right after the kill", "", [1.0] * len(killed), better="higher")


def read(world: World, name: str, expected: str, victim: str | None) -> Case:
    world.stored  # noqa: B018

    @contextmanager
    def scene() -> Iterator[cases.Timed]:
        with world.mount(*cases.NO_CACHE) as mount:
            try:
                with reader("sha256", mount.model) as child:
                    yield lambda: _read(world, child, expected, victim)
            finally:
                world.heal()

    return Case(name, scene, memory_bytes=world.size + cases.MEMORY_BYTES)


def _read(world: World, child: Child, expected: str, victim: str | None) -> float:
    child.go()
    if child.line() != "half":
        raise RuntimeError("the reader did not say when it was half way")
    if victim is not None:
        world.cluster.kill(victim)
        if child.has_line():
            raise RuntimeError("the reader had finished before the node was dead: take a larger --size")
    answer = child.answer()
    if answer["sha256"] != expected:
        raise RuntimeError("WRONG BYTES: the SHA-256 differs")
    return elapsed(answer, world.size)
