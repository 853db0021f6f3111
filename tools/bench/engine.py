"""A real engine for one group: started by `tools/engines` in the work folder, and a cluster with it as the only node.

Credentials go where every program looks for them, into this process's environment, for as long as the engine runs; what
the environment said of S3 and HDFS before is out of the way for that time.
"""

import json
import os
import subprocess
import sys
from collections.abc import Callable, Iterator, Mapping
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from bench.child import TOOLS
from bench.context import Bench
from bench.measure import files_below, fill, resident
from bench.world import RESIDENT_ENOUGH, World
from shardfs.api.local import LocalCluster
from shardfs.errors import ShardfsError

START_SECONDS = 900.0  # it may have to be downloaded
NODE = "far"
FOREIGN = ("AWS_", "HADOOP_")


class Missing(Exception):
    """Why the engine cannot be had here, in one line."""


@dataclass(frozen=True, slots=True)
class Engine:
    """A running engine. `cluster` has no node of its own: its file names the engine as the node `far`, one copy."""

    name: str
    url: str
    data: Path
    cluster: LocalCluster

    def warm(self) -> None:
        """Have what the engine stores in memory: its disk is this disk, and not what is measured."""
        for path in files_below(self.data):
            with suppress(FileNotFoundError, ValueError):  # it goes on keeping house
                if resident(path) < RESIDENT_ENOUGH:
                    fill([path])


@contextmanager
def engine(world: World, name: str) -> Iterator[Engine]:
    """Start `s3` or `hdfs`; stopped at the end. Missing."""
    place = world.place(name)
    with ExitStack() as stack:
        stack.callback(_tool, "stop", name, place)
        about = _tool("start", name, place)
        stack.enter_context(environment(about["environment"]))
        cluster = LocalCluster(world.place(f"cluster-{name}"), nodes=1, replicas=1)
        cluster.node_ids = ()
        stack.enter_context(cluster)
        cluster.cluster_file.write_text(cluster_text(about["url"]))
        yield Engine(name, about["url"], place / name, cluster)


def cluster_text(url: str) -> str:
    return f'replicas = 1\n\n[[nodes]]\nid = "{NODE}"\nurl = "{url}"\n'


def on_each(bench: Bench, measures: Mapping[str, Callable[[Engine], None]]) -> None:
    """Run what is to be measured on each engine; one that cannot be had, or that fails, is noted."""
    for name, measure in measures.items():
        try:
            with engine(bench.world, name) as there:
                measure(there)
        except Missing as reason:
            bench.note(f"{name}: left out ({reason})")
        except (OSError, RuntimeError, ShardfsError) as error:
            bench.note(f"{name}: failed ({type(error).__name__}: {error})")


@contextmanager
def environment(wanted: Mapping[str, str]) -> Iterator[None]:
    """These variables, and no others that S3 and HDFS clients look at."""
    before = dict(os.environ)
    try:
        for name in before:
            if name.startswith(FOREIGN):
                del os.environ[name]
        os.environ.update(wanted)
        yield
    finally:
        os.environ.clear()
        os.environ.update(before)


def _tool(action: str, name: str, place: Path) -> dict[str, Any]:
    """What `tools/engines` says of the engine."""
    command = [sys.executable, str(TOOLS / "engines"), action, name, "--dir", str(place), "--json"]
    try:
        done = subprocess.run(command, capture_output=True, text=True, check=False, timeout=START_SECONDS)
    except subprocess.TimeoutExpired:
        raise Missing(f"tools/engines {action} {name} took more than {START_SECONDS:.0f} s") from None
    if done.returncode:
        said = done.stderr.strip().splitlines()
        raise Missing(said[-1].removeprefix("engines: ") if said else f"tools/engines ended with {done.returncode}")
    about = json.loads(done.stdout)[name]
    assert isinstance(about, dict)
    return about
