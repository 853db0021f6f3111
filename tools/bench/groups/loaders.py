"""What frameworks do: safetensors' load_file and torch.load, cold, warm and hot, beside a sequential read.

Times, not rates: the ratio says how much longer loading takes than reading. Loaders that only map the file are made to
touch every page. Left out where a library is not installed.
"""

import shutil
from collections.abc import Callable
from importlib.util import find_spec

from bench import cases
from bench.child import program
from bench.context import Bench
from bench.measure import Case
from bench.world import World

TORCH_MODEL = "bench.pt"


def run(bench: Bench) -> None:
    world, figures = bench.world, bench.figures
    if find_spec("safetensors") is None:
        bench.note("loaders: left out, safetensors is not installed")
        return
    hows = {"numpy": "safetensors.numpy.load_file"}
    if find_spec("torch") is not None:
        hows["torch-safetensors"] = "safetensors.torch.load_file"
        publish_torch(world)
    else:
        bench.note("loaders: torch is not installed, only safetensors.numpy is measured")
    world.stored  # noqa: B018
    cache = cases.filled_cache(world)
    try:
        rounds: list[Case] = []
        for how in ("read", *hows):
            rounds += [
                cases.cold(world, f"cold {how}", *cases.NO_CACHE, how=how),
                cases.warm(world, f"warm {how}", cache, how=how),
                cases.hot(world, f"hot {how}", how),
            ]
        if "torch-safetensors" in hows:
            rounds.append(cases.cold(world, "cold torch", *cases.NO_CACHE, how="torch", model=TORCH_MODEL))
        done = bench.measure(rounds)
    finally:
        shutil.rmtree(cache, ignore_errors=True)
    add: Callable[..., None] = figures.seconds
    for state in ("cold", "warm", "hot"):
        add(_key(state, "read"), f"{state} sequential read", done.series(f"{state} read"))
        for how, what in hows.items():
            add(_key(state, how), f"{state} {what}", done.series(f"{state} {how}"), limit=_key(state, "read"))
    add("loaders.torch_load", "cold torch.load(mmap=True)", done.series("cold torch"), limit=_key("cold", "read"))


def _key(state: str, how: str) -> str:
    name = how.replace("-", "_")
    return f"loaders.{name}" if state == "cold" else f"loaders.{state}_{name}"


def publish_torch(world: World) -> None:
    """A torch file of the same size, on the shared cluster beside the other model."""
    path = world.work / TORCH_MODEL
    if path.exists():
        return
    with program("torchfile", path, world.size) as child:
        child.ready()
    world.publish(world.cluster, path, TORCH_MODEL)
