"""How the cluster file's settings of nodes look in the tables of `status` and `plan`.

A setting that is the same for all nodes tells nothing and costs width: its column is left out. `--json` has them all.
"""

from collections.abc import Sequence
from typing import Protocol

from shardfs.cli.output import Column
from shardfs.core.hedge import HedgeOptions


class Placed(Protocol):
    """What the records of both reports have in common."""

    @property
    def zone(self) -> str: ...

    @property
    def weight(self) -> float: ...

    @property
    def read_priority(self) -> int: ...


def settings(nodes: Sequence[Placed]) -> list[tuple[Column, list[str]]]:
    """Columns and their cells, one for each node, of those settings in which nodes differ."""
    columns = [
        (Column("ZONE"), [node.zone or "-" for node in nodes]),
        (Column("WEIGHT", right=True), [f"{node.weight:g}" for node in nodes]),
        (Column("PRIORITY"), [_priority(node, nodes) for node in nodes]),
    ]
    return [(column, cells) for column, cells in columns if len(set(cells)) > 1]


def far_fact(nodes: Sequence[Placed], names: Sequence[str]) -> list[tuple[str, str]]:
    """The line that says which nodes are far and what that means; none where all are as near."""
    far = [name for node, name in zip(nodes, names, strict=True) if _far(node, nodes)]
    options = HedgeOptions()
    budget = f"{options.far_budget_share:.0%} of all requests, {options.far_budget_burst:.0f} saved up"
    return [("far", f"{', '.join(far)}: read when nearer copies fail; when they are slow, {budget}")] if far else []


def _far(node: Placed, nodes: Sequence[Placed]) -> bool:
    return node.read_priority > min(other.read_priority for other in nodes)


def _priority(node: Placed, nodes: Sequence[Placed]) -> str:
    return f"{node.read_priority} (far)" if _far(node, nodes) else str(node.read_priority)
