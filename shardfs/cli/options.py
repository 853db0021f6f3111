"""Options and steps that commands share, so that each means and is called the same everywhere."""

from __future__ import annotations

import resource
from collections.abc import Awaitable, Callable
from typing import TYPE_CHECKING, Any, TypeVar

import click

from shardfs.cli.frame import IMPORTS_FIRST, hear_ctrl_c
from shardfs.core.names import ModelName, check_model
from shardfs.errors import InvalidName

if TYPE_CHECKING:  # importing these costs what `shardfs --help` does not need
    from shardfs.core.cluster import Cluster

F = TypeVar("F", bound=Callable[..., Any])
T = TypeVar("T")

DESCRIPTORS_MAX = 65536


def cluster_option(command: F) -> F:
    """`--cluster FILE`, passed as `cluster_file`; open it with `open_cluster`."""
    return click.option(
        "--cluster",
        "cluster_file",
        metavar="FILE",
        help="The cluster file. Default: $SHARDFS_CLUSTER, ./cluster.toml, ~/.config/shardfs/cluster.toml.",
    )(command)


def json_option(command: F) -> F:
    """`--json`, passed as `as_json`."""
    return click.option("--json", "as_json", is_flag=True, help="One JSON document on stdout.")(command)


def reporting(command: F) -> F:
    """Both, for a command that asks the cluster and reports. Before `run` it imports and reads the cluster file."""
    setattr(command, IMPORTS_FIRST, True)
    return cluster_option(json_option(command))


def name_argument(command: F) -> F:
    """`NAME`, passed as `name`, a ModelName: `team/bert.pt` or `team/bert.pt@3`."""
    return click.argument("name", metavar="NAME", type=ModelName.parse)(command)


def model_argument(command: F) -> F:
    """`NAME`, passed as `model`: a model as such, without a generation."""

    def check(ctx: click.Context, _param: click.Parameter, name: str) -> str:
        model, at, _ = name.partition("@")
        if at:
            raise InvalidName(
                f"{name!r}: {ctx.info_name} is about all generations of a model; name it without @: {model}"
            )
        return check_model(name)

    return click.argument("model", metavar="NAME", callback=check)(command)


def open_cluster(cluster_file: str | None) -> Cluster:
    """The cluster that the user means. UsageError or InvalidCluster say what is wrong."""
    from shardfs.config import find_cluster, load_cluster

    return load_cluster(find_cluster(cluster_file))


def run(step: Callable[..., Awaitable[T]], *args: Any, **options: Any) -> T:
    """Run an async function to its end. Ctrl-C ends it where it waits, and never in the middle of a destructor or a
    callback, where Python would only print it and go on."""
    from functools import partial

    import trio

    hear_ctrl_c()
    _allow_descriptors()
    return trio.run(partial(step, *args, **options), restrict_keyboard_interrupt_to_checkpoints=True)


def _allow_descriptors() -> None:
    """Raise the soft limit as far as the hard one lets us: the usual 1024 is fewer than a node's 512 connections with a
    file each, or 32 connections to each of a hundred nodes, may need."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    wanted = DESCRIPTORS_MAX if hard == resource.RLIM_INFINITY else min(DESCRIPTORS_MAX, hard)
    if soft != resource.RLIM_INFINITY and soft < wanted:
        resource.setrlimit(resource.RLIMIT_NOFILE, (wanted, hard))


def run_daemon(step: Callable[..., Awaitable[T]], *args: Any, **options: Any) -> T:
    """As `run`, for what serves for days: cyclic garbage is looked for less often.

    A collection walks through every object of the program, thousands of which are code that stays. Those are taken
    out, and the rest is looked at after 20 000 new objects instead of 700. Reading makes hardly any cycles.
    """
    import gc

    gc.collect()
    gc.freeze()
    gc.set_threshold(20_000, 20, 20)
    return run(step, *args, **options)
