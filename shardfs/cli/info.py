"""`shardfs info NAME`"""

from dataclasses import asdict

import click

from shardfs.cli.options import name_argument, open_cluster, reporting, run
from shardfs.cli.output import Column, emit_json, facts, say, shown_size, shown_time, table
from shardfs.core.names import ModelName


@click.command()
@name_argument
@reporting
def command(*, name: ModelName, cluster_file: str | None, as_json: bool) -> None:
    """What the model NAME (or NAME@GENERATION) consists of.

    \b
    --json: name, generation, newest, digest, created, size, chunk_size, block_size, single,
            files[{path, size, executable, chunks, holes}], folders[], chunks, holes, stored_chunks,
            stored_bytes, looked_chunks, external_nodes (chunks by node), replicas, ref_nodes[]
    """
    from shardfs.api.catalogue import info

    found = run(info, open_cluster(cluster_file), name)
    if as_json:
        emit_json(asdict(found))
        return
    chunks = f"{found.chunks} of {shown_size(found.chunk_size)}"
    if found.holes:
        chunks += f", {found.holes} of them holes"
    where = " and ".join(f"{count} lie on node {node}" for node, count in found.external_nodes.items())
    imported = f"of {found.looked_chunks} chunks looked at {where} as parts of other people's files"
    facts(
        [
            ("model", found.name),
            ("generation", f"{found.generation}{'' if found.newest else ' (not the newest)'}"),
            ("digest", str(found.digest)),
            ("created", shown_time(found.created)),
            ("size", f"{shown_size(found.size)} ({found.size} bytes)"),
            ("chunks", chunks),
            ("stored", f"{found.stored_chunks} different chunks, {shown_size(found.stored_bytes)}"),
            *([("imported", imported)] if found.external_nodes else []),
            (
                "copies",
                f"{found.replicas} of each chunk; ref on {', '.join(found.ref_nodes) or 'no node that answers'}",
            ),
        ]
    )
    say()
    table(
        [Column("FILE"), Column("SIZE", right=True), Column("CHUNKS", right=True), Column("HOLES", right=True)],
        [(file.path or found.name, shown_size(file.size), str(file.chunks), str(file.holes)) for file in found.files]
        + [(f"{folder}/", "", "", "") for folder in found.folders],
    )
