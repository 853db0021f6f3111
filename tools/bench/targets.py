"""The targets that the project has set itself, each tied to one figure.

`ratio`: against the figure's limit of the same rounds, which is what can be compared between machines. Absolute ones
hold for the machine that they were set on: 2 cores, loopback.
"""

from dataclasses import dataclass
from typing import Literal

from bench.figures import Figures

Verdict = Literal["pass", "FAIL", "not measured"]


@dataclass(frozen=True, slots=True)
class Target:
    """`figure`'s median (or that of its ratios) is to be at least, or at most, `bound`."""

    what: str
    figure: str
    kind: Literal["ratio", "value"]
    sense: Literal["at least", "at most"]
    bound: float
    unit: str


@dataclass(frozen=True, slots=True)
class Judged:
    """What a target came to. `why`: this machine cannot measure it."""

    target: Target
    verdict: Verdict
    measured: float | None
    why: str = ""


def _least(what: str, figure: str, bound: float, of: str) -> Target:
    return Target(what, figure, "ratio", "at least", bound, f"x {of}")


def _most(what: str, figure: str, bound: float, of: str) -> Target:
    return Target(what, figure, "ratio", "at most", bound, f"x {of}")


TARGETS = (
    _least("cold read, cache on disk", "cold.cache", 0.65, "cold ceiling"),
    _least("cold read, cache on disk", "peers.shardfs_cold", 2.0, "best peer"),
    _least("cold read, memory only", "cold.memory", 0.75, "cold ceiling"),
    _least("warm read", "warm.read", 0.75, "disk"),
    _least("warm read, --passthrough", "warm.passthrough", 0.75, "disk"),
    _least("warm read", "peers.shardfs_warm", 2.0, "best peer"),
    _least("warm read, --passthrough", "peers.shardfs_passthrough", 2.0, "best peer"),
    _most("daemon CPU, cold", "peers.cpu_shardfs", 1.0, "the best peer's"),
    _least("hot read", "warm.hot", 0.9, "memory"),
    _least("hot read, --passthrough", "warm.passthrough_hot", 0.9, "memory"),
    _least("hot mmap walk", "warm.hot_mmap", 0.8, "memory"),
    _least("hot mmap walk, --passthrough", "warm.passthrough_hot_mmap", 0.8, "memory"),
    _most("safetensors.torch load_file, cold", "loaders.torch_safetensors", 1.3, "time of the cold read"),
    _most("safetensors.numpy load_file, cold", "loaders.numpy", 1.3, "time of the cold read"),
    _most("first byte after open, cold", "probes.first", 3.0, "one block by raw request"),
    _most("random 4 KiB, cold, p50", "probes.small_p50", 2.5, "the same block by raw request"),
    _least("one of three nodes dead", "faults.dead", 0.6, "healthy"),
    _least("one of three nodes hung", "faults.hung", 0.6, "healthy"),
    _least("one of three nodes ten times slower", "faults.slow", 0.8, "healthy"),
    _least("unprivileged mount", "user.unprivileged", 0.7, "privileged"),
    _least("put, 2 copies", "put.put", 0.4, "the lower of wire/2 and disk"),
    _least("cold read from S3", "engines.s3", 0.7, "the same client without a mount"),
    _least("cold read from S3", "engines.s3_beside", 1.5, "s3fs"),
    _least("cold read from HDFS", "engines.hdfs", 0.7, "hdfs-native without a mount"),
    _most("first byte 50 ms away, model just looked at", "engines.far_seen", 1.0, "2 round trips + one block"),
    _most("first byte 50 ms away, model never looked at", "engines.far_unseen", 1.0, "2 round trips + one block"),
    _least("cold read from S3, imported", "imported.s3", 0.8, "a model put there"),
    _least("cold read from HDFS, imported", "imported.hdfs", 0.8, "a model put there"),
    _most("import from S3", "imported.s3_import", 3.0, "time of reading it"),
    _most("import from HDFS", "imported.hdfs_import", 3.0, "time of reading it"),
    Target("cold read, cache on disk", "cold.cache", "value", "at least", 400, "MiB/s"),
    Target("warm read, all nodes stopped", "warm.stopped", "value", "at least", 500, "MiB/s"),
    Target("put, 2 copies", "put.put", "value", "at least", 150, "MiB/s"),
    Target("memory minus --memory, 12 readers", "daemon.beyond_together", "value", "at most", 120, "MiB"),
    Target("memory minus --memory, 12 readers apart", "daemon.beyond_apart", "value", "at most", 120, "MiB"),
    Target("all nodes dead: EIO", "outage.error", "value", "at most", 10, "s"),
    Target("nodes back: good read", "outage.back", "value", "at most", 2, "s"),
    Target("SHA-256 right after a kill", "kill.right", "value", "at least", 1, ""),
)


def judge(figures: Figures) -> list[Judged]:
    """Every target with its verdict."""
    return [_judge(target, figures) for target in TARGETS]


def _judge(target: Target, figures: Figures) -> Judged:
    figure = figures.by_name.get(target.figure)
    spread = None if figure is None else figure.ratio if target.kind == "ratio" else figure.spread
    if spread is None:
        return Judged(target, "not measured", None, figures.impossible.get(target.figure, ""))
    good = spread.median >= target.bound if target.sense == "at least" else spread.median <= target.bound
    return Judged(target, "pass" if good else "FAIL", spread.median)
