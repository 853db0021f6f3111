"""`shardfs plan NAME`"""

from dataclasses import asdict
from typing import TYPE_CHECKING

import click

from shardfs.cli.nodes import far_fact, settings
from shardfs.cli.options import name_argument, open_cluster, reporting, run
from shardfs.cli.output import Column, emit_json, facts, say, shown_size, table, warn
from shardfs.core.names import ModelName

if TYPE_CHECKING:  # it brings trio, which the help does not need
    from shardfs.api.plan import Plan


@click.command()
@name_argument
@reporting
def command(*, name: ModelName, cluster_file: str | None, as_json: bool) -> None:
    """Which node serves how much when the whole model NAME is loaded now.

    metadata -> chunks per node -> assignment -> load. SHARE is the part of all bytes; evenness is the largest load
    over the mean one (1 is ideal), weights considered. Of an imported model a reader asks nodes for POINTERS first;
    what SERVES the bytes are the engines to which they lead. In JSON, chunks, bytes and share say who is asked,
    served_chunks and so on who delivers. ZONE, WEIGHT and PRIORITY are shown where nodes differ in them; a node is far
    when another has a lower read_priority.

    \b
    --json: name, generation, digest, size, chunk_size, chunks, holes, stored_chunks, stored_bytes, replicas,
            stored_copies, nodes[{node, zone, state, weight, read_priority, answers, reason, owned, chunks, bytes,
            share, pointers, served_chunks, served_bytes, served_share}], evenness, unserved, external_chunks,
            external_bytes, looked_chunks, undelivered
    """
    from shardfs.api.plan import plan

    found = run(plan, open_cluster(cluster_file), name)
    if as_json:
        emit_json(asdict(found))
        return
    facts(_facts(found))
    say()
    imported = found.external_chunks > 0
    shown = settings(found.nodes)
    table(
        [Column("NODE"), *(column for column, _ in shown), Column("STATE"),
         Column("HOLDS", right=True), *[Column("POINTERS", right=True)] * imported, Column("SERVES", right=True),
         Column("BYTES", right=True), Column("SHARE", right=True), Column("")],
        [(node.node, *(cells[i] for _, cells in shown), node.state,
          str(node.owned), *[str(node.pointers)] * imported, str(node.served_chunks),
          shown_size(node.served_bytes), f"{node.served_share:.1%}",
          "" if node.answers else f"does not answer: {node.reason}") for i, node in enumerate(found.nodes)],
    )  # fmt: skip
    if found.unserved:
        warn(f"no node answers for {found.unserved} of {found.stored_chunks} chunks")
    if found.undelivered > found.unserved:
        warn(f"{found.undelivered} of {found.stored_chunks} chunks are delivered by no node that answers")


def _facts(found: "Plan") -> list[tuple[str, str]]:
    saved = ""
    if found.stored_chunks < found.chunks:
        saved = f" ({found.holes} holes and {found.chunks - found.holes - found.stored_chunks} repetitions of the"
        saved += f" {found.chunks} chunks are stored nowhere)"
    copies = f"{found.stored_chunks} x {found.replicas} = {found.stored_copies}"
    shown = [
        ("model", f"{found.name}@{found.generation}, {shown_size(found.size)}"),
        ("shard index", f"offset // chunk_size = offset // {found.chunk_size}, 0 to {max(0, found.chunks - 1)}"),
        ("stored copies", f"chunks x replicas = {copies}{saved}"),
        ("evenness", f"{found.evenness:.3f} (largest load / mean load)"),
    ]
    if found.external_chunks:
        parts = f"{found.external_chunks} chunks, {shown_size(found.external_bytes)}, are parts of other people's files"
        if found.looked_chunks < found.stored_chunks:
            parts = f"about {parts} ({found.looked_chunks} were looked at)"
        shown[-1] = ("evenness", f"{found.evenness:.3f} (largest load / mean load of those who are asked first)")
        shown.append(("imported", parts))
    shown += far_fact(found.nodes, [node.node for node in found.nodes])
    return shown
