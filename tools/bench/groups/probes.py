"""Small cold reads beside raw requests for the same block: first byte, after open and with it; 4 and 256 KiB at random.

Each sample is the first read of its chunk, so it needs the chunk's header too, which the raw request for a random block
does not. Values are the percentiles of one round.
"""

import random
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager

from bench import cases
from bench.child import Child, program
from bench.context import Bench
from bench.measure import MIB, Case, percentile
from bench.plan import StoredChunk
from bench.world import MODEL, Mount, World

FOLDER = "probes"
FILE_BYTES = 4 * MIB
FILES, FILES_QUICK = 40, 6
SAMPLES_MAX = 256
KINDS = {"first": "first byte after open", "small": "random 4 KiB", "block": "random 256 KiB"}

Plan = Callable[[Mount, random.Random], list[dict[str, object]]]


def run(bench: Bench) -> None:
    world, figures = bench.world, bench.figures
    files = publish_files(bench)
    chunks = [chunk for chunk in world.stored.chunks if chunk.plain_size == world.stored.manifest.chunk_size]
    plans: dict[str, Plan] = {
        "first": lambda mount, _: [_first(mount, chunk) for chunk in files],
        "small": lambda mount, chance: _blocks(mount, chance, chunks, 4096),
        "block": lambda mount, chance: _blocks(mount, chance, chunks, 256 * 1024),
    }
    done = bench.measure([probes(world, name, plan) for name, plan in plans.items()])
    for name, what in KINDS.items():
        for key, percent in (("", "p50"), ("_p99", "p99")):
            full = f"probes.{name}{key}" if name == "first" else f"probes.{name}_{percent}"
            raw = f"{full}_raw"
            figures.latency(raw, f"raw request for that block, {percent}", done.series(name, f"raw {percent}"))
            figures.latency(full, f"{what}, cold, {percent}", done.series(name, f"after {percent}"), limit=raw)
            if name == "first":
                both = done.series(name, f"mount {percent}")
                figures.latency(f"probes.open{key}", f"open and first byte, cold, {percent}", both, limit=raw)


def publish_files(bench: Bench) -> tuple[StoredChunk, ...]:
    """A folder of files of one chunk each; each can be opened cold once a mount."""
    world = bench.world
    folder = world.work / FOLDER
    folder.mkdir(exist_ok=True)
    for number in range(FILES_QUICK if bench.options.quick else FILES):
        world.write_model(folder / f"{number:03d}.safetensors", FILE_BYTES, seed=1000 + number)
    return world.publish(world.cluster, folder, FOLDER).chunks


def _first(mount: Mount, chunk: StoredChunk) -> dict[str, object]:
    raw = [chunk.port, chunk.target, *chunk.block(0, with_header=True)]
    return {"path": str(mount.path / FOLDER / chunk.path), "offset": 0, "length": 1, "open": True, "raw": raw}


def _blocks(mount: Mount, chance: random.Random, chunks: Sequence[StoredChunk], length: int) -> list[dict[str, object]]:
    """One random block of each chunk, chunks in random order; `length` bytes somewhere in the block, aligned."""
    plan: list[dict[str, object]] = []
    for chunk in chance.sample(chunks, min(len(chunks), SAMPLES_MAX)):
        block = chance.randrange(chunk.plain_size // chunk.block_size)
        at = chunk.offset + block * chunk.block_size + chance.randrange(chunk.block_size // length) * length
        raw = [chunk.port, chunk.target, *chunk.block(block, with_header=False)]
        plan.append({"path": str(mount.path / MODEL), "offset": at, "length": length, "open": False, "raw": raw})
    return plan


def probes(world: World, name: str, plan: Plan) -> Case:
    chance = random.Random(name)

    @contextmanager
    def scene() -> Iterator[cases.Timed]:
        with world.mount() as mount:
            file = world.plan_file(plan(mount, chance))
            with program("probes", file) as child:
                child.ready()
                yield lambda: _probe(child)
            file.unlink()

    return Case(name, scene, memory_bytes=256 * MIB)


def _probe(child: Child) -> dict[str, float]:
    child.go()
    answer = child.answer()
    whose = ("mount", "after", "raw")
    return {f"{who} p{percent}": percentile(answer[who], percent) for who in whose for percent in (50, 99)}
