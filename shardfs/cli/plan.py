"""`shardfs plan NAME`"""

from dataclasses import asdict

import click

from shardfs.cli.options import name_argument, open_cluster, reporting, run
from shardfs.cli.output import Column, emit_json, facts, shown_size, table, warn
from shardfs.core.names import ModelName


@click.command()
@name_argument
@reporting
def command(*, name: ModelName, cluster_file: str | None, as_json: bool) -> None:
    """Which node serves how much when the whole model NAME is loaded now.

    metadata -> chunks per node -> assignment -> load. SHARE is the part of all bytes; evenness is the largest load
    over the mean one (1 is ideal), weights considered.

    \b
    --json: name, generation, digest, size, chunk_size, chunks, holes, stored_chunks, stored_bytes, replicas,
            stored_copies, nodes[{node, zone, state, weight, read_priority, answers, reason, owned, chunks, bytes,
            share}], evenness, unserved
    """
    from shardfs.api.plan import plan

    found = run(plan, open_cluster(cluster_file), name)
    if as_json:
        emit_json(asdict(found))
        return
    saved = ""
    if found.stored_chunks < found.chunks:
        saved = f" ({found.holes} holes and {found.chunks - found.holes - found.stored_chunks} repetitions of the"
        saved += f" {found.chunks} chunks are stored nowhere)"
    copies = f"{found.stored_chunks} x {found.replicas} = {found.stored_copies}"
    facts(
        [
            ("model", f"{found.name}@{found.generation}, {shown_size(found.size)}"),
            ("shard index", f"offset // chunk_size = offset // {found.chunk_size}, 0 to {max(0, found.chunks - 1)}"),
            ("stored copies", f"chunks x replicas = {copies}{saved}"),
            ("evenness", f"{found.evenness:.3f} (largest load / mean load)"),
        ]
    )
    click.echo()
    table(
        [Column("NODE"), Column("ZONE"), Column("PRIORITY", right=True), Column("STATE"),
         Column("HOLDS", right=True), Column("SERVES", right=True),
         Column("BYTES", right=True), Column("SHARE", right=True), Column("")],
        [(node.node, node.zone or "-", str(node.read_priority),
          node.state, str(node.owned), str(node.chunks), shown_size(node.bytes),
          f"{node.share:.1%}", "" if node.answers else f"does not answer: {node.reason}") for node in found.nodes],
    )  # fmt: skip
    if found.unserved:
        warn(f"no node answers for {found.unserved} of {found.stored_chunks} chunks")
