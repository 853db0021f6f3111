"""`shardfs status`"""

from __future__ import annotations

from dataclasses import asdict
from typing import TYPE_CHECKING

import click

from shardfs.cli.nodes import far_fact, settings
from shardfs.cli.options import open_cluster, reporting, run
from shardfs.cli.output import Column, emit_json, facts, say, shown_size, table
from shardfs.core.units import format_size

if TYPE_CHECKING:  # importing it costs what `shardfs --help` does not need
    from shardfs.api.nodes import ClusterStatus

_NAMED = 5


@click.command()
@reporting
def command(*, cluster_file: str | None, as_json: bool) -> int:
    """The nodes and their health. Exit status 1 only when no node answers.

    BEHIND counts the models whose newest generation the node does not know of. ZONE, WEIGHT and PRIORITY are shown
    where nodes differ in them; a node is far when another has a lower read_priority.

    `models` is null when no node says which there are.

    \b
    --json: nodes[{id, url, zone, weight, read_priority, state, health, reason, latency_ms, version, capacity_bytes,
            free_bytes, refs, behind}], replicas, chunk_size, majority, answering, models, disagreements[]
    """
    from shardfs.api.nodes import status

    found = run(status, open_cluster(cluster_file))
    exit_status = 0 if found.answering else 1
    if as_json:
        emit_json(asdict(found))
        return exit_status
    shown = settings(found.nodes)
    table(
        [Column("NODE"), *(column for column, _ in shown), Column("STATE"),
         Column("HEALTH"), Column("LATENCY", right=True), Column("USED", right=True),
         Column("FREE", right=True), Column("REFS", right=True), Column("BEHIND", right=True), Column("VERSION"),
         Column("URL")],
        [(node.id, *(cells[i] for _, cells in shown), node.state, node.health,
          "" if node.latency_ms is None else f"{node.latency_ms:.1f} ms",
          _used(node.capacity_bytes, node.free_bytes), _known(node.free_bytes), _number(node.refs),
          _number(node.behind), node.version, node.url) for i, node in enumerate(found.nodes)],
    )  # fmt: skip
    say()
    enough = "" if found.answering >= found.majority else f"; {found.majority} are needed to publish"
    away = [f"{node.id}: {node.reason}" for node in found.nodes if node.health != "ok"]
    lines = [
        ("answering", f"{found.answering} of {len(found.nodes)} nodes{enough}"),
        ("models", f"{_models(found)}, {_copies(found.replicas)} of each chunk of {format_size(found.chunk_size)}"),
        *far_fact(found.nodes, [node.id for node in found.nodes]),
    ]
    if away:
        lines.append(("away", "; ".join(away)))
    if found.disagreements:
        more = f" and {len(found.disagreements) - _NAMED} more" if len(found.disagreements) > _NAMED else ""
        lines.append(("behind", f"not all nodes know the newest of {', '.join(found.disagreements[:_NAMED])}{more}"))
    facts(lines)
    return exit_status


def _models(found: ClusterStatus) -> str:
    """Fewer than a majority may not have heard of some."""
    if found.models is None:
        return "unknown"
    return str(found.models) if found.answering >= found.majority else f"at least {found.models}"


def _copies(replicas: int) -> str:
    return "1 copy" if replicas == 1 else f"{replicas} copies"


def _used(capacity: int | None, free: int | None) -> str:
    return "" if capacity is None or free is None else shown_size(capacity - free)


def _known(size: int | None) -> str:
    return "" if size is None else shown_size(size)


def _number(value: int | None) -> str:
    return "" if value is None else str(value)
