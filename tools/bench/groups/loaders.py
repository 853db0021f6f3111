"""What frameworks do: safetensors' load_file and torch.load, cold (memory only, and cache on disk), warm and hot,
beside a sequential read.

Times, not rates: the ratio says how much longer loading takes than reading. Loaders that only map the file are made to
touch every page. With --passthrough (see `bench.passthrough`) a load is beside the same load of the local file, which
is the best that it can be. Left out where a library is not installed.
"""

import shutil
from importlib.util import find_spec
from pathlib import Path

from bench import cases, passthrough
from bench.child import program
from bench.context import Bench
from bench.figures import Figures
from bench.measure import Case, Results
from bench.world import World

TORCH_MODEL = "bench.pt"
STATES = {"cold": "cold", "cold_cache": "cold, cache on disk,", "warm": "warm", "hot": "hot"}
"""State of the model -> how the report says it."""
LOCAL = {"warm": "disk", "hot": "memory"}
"""State of the model -> where the local file is that it is compared with."""


def run(bench: Bench) -> None:
    world = bench.world
    if find_spec("safetensors") is None:
        bench.note("loaders: left out, safetensors is not installed")
        return
    hows = {"numpy": "safetensors.numpy.load_file"}
    if find_spec("torch") is not None:
        hows["torch-safetensors"] = "safetensors.torch.load_file"
    else:
        bench.note("loaders: torch is not installed, only safetensors.numpy is measured")
    world.stored  # noqa: B018
    caches = [cache := cases.filled_cache(world)]
    try:
        rounds = served(world, cache, ("read", *hows))
        if "torch-safetensors" in hows:
            publish_torch(world)
            caches.append(cases.filled_cache(world, TORCH_MODEL))
            rounds += by_torch_load(world, caches[-1])
        why = passthrough.lacking(world, cache)
        if why is None:
            rounds += handed_over(world, cache, tuple(hows))
        done = bench.measure(rounds)
    finally:
        for folder in caches:
            shutil.rmtree(folder, ignore_errors=True)
    record(bench.figures, done, hows)
    if why is not None:
        names = [_key(f"passthrough_{state}", how) for how in hows for state in LOCAL]
        bench.cannot("loads with --passthrough", names, why)


def served(world: World, cache: Path, hows: tuple[str, ...]) -> list[Case]:
    """Through the daemon."""
    rounds: list[Case] = []
    for how in hows:
        rounds += [
            cases.cold(world, f"cold {how}", *cases.NO_CACHE, how=how),
            cases.cold(world, f"cold_cache {how}", how=how),
            cases.warm(world, f"warm {how}", cache, how=how),
            cases.hot(world, f"hot {how}", how),
        ]
    return rounds


def by_torch_load(world: World, cache: Path) -> list[Case]:
    """torch.load(mmap=True) of a file of its own, which the cache holds."""
    return [
        cases.cold(world, "cold torch", *cases.NO_CACHE, how="torch", model=TORCH_MODEL),
        cases.warm(world, "warm torch", cache, how="torch", model=TORCH_MODEL),
        cases.hot(world, "hot torch", "torch", model=TORCH_MODEL),
    ]


def handed_over(world: World, cache: Path, hows: tuple[str, ...]) -> list[Case]:
    """By the kernel, and from the local file."""
    rounds: list[Case] = []
    for how in hows:
        rounds += [
            cases.disk(world, how),
            passthrough.warm(world, f"warm {how}, --passthrough", cache, how=how),
            cases.memory(world, how),
            passthrough.hot(world, f"hot {how}, --passthrough", cache, how=how),
        ]
    return rounds


def record(figures: Figures, done: Results, hows: dict[str, str]) -> None:
    for state, said in STATES.items():
        figures.seconds(_key(state, "read"), f"{said} sequential read", done.series(f"{state} read"))
        for how, what in hows.items():
            series = done.series(f"{state} {how}")
            figures.seconds(_key(state, how), f"{said} {what}", series, limit=_key(state, "read"))
        series = done.series(f"{state} torch")
        what = f"{said} torch.load(mmap=True)"
        figures.seconds(_key(state, "torch_load"), what, series, limit=_key(state, "read"))
    for how, what in hows.items():
        for state, local in LOCAL.items():
            limit = _key(local, how)
            figures.seconds(limit, f"{what}, local file {_in(local)}", done.series(f"{local} {how}"))
            series = done.series(f"{state} {how}, --passthrough")
            figures.seconds(_key(f"passthrough_{state}", how), f"{state} {what}, --passthrough", series, limit=limit)


def _key(state: str, how: str) -> str:
    name = how.replace("-", "_")
    return f"loaders.{name}" if state == "cold" else f"loaders.{state}_{name}"


def _in(place: str) -> str:
    return "on disk" if place == "disk" else "in memory"


def publish_torch(world: World) -> None:
    """A torch file of the same size, on the shared cluster beside the other model."""
    path = world.work / TORCH_MODEL
    if path.exists():
        return
    with program("torchfile", path, world.size) as child:
        child.ready()
    world.publish(world.cluster, path, TORCH_MODEL)
