"""`shardfs versions NAME`"""

import click

from shardfs.cli.options import model_argument, open_cluster, reporting, run
from shardfs.cli.output import Column, emit_json, reach_json, shown_size, shown_time, table, warn_reach


@click.command()
@model_argument
@reporting
def command(*, model: str, cluster_file: str | None, as_json: bool) -> None:
    """Every stored generation of the model NAME, oldest first. Other commands take NAME@GENERATION.

    \b
    --json: model, generations[{generation, digest, deleted, created, files, size, nodes}],
            answered[], failed{node: reason}, majority
    """
    from shardfs.api.catalogue import versions

    listing = run(versions, open_cluster(cluster_file), model)
    if as_json:
        keys = ("generation", "digest", "deleted", "created", "files", "size", "nodes")
        rows = [{key: getattr(g, key) for key in keys} for g in listing.generations]
        emit_json({"model": model, "generations": rows, **reach_json(listing.reach)})
        return
    nodes = len(listing.reach.answered)
    rows_shown = [
        (str(g.generation), "", "", "deleted", f"{g.nodes} of {nodes}")
        if g.deleted
        else (
            str(g.generation),
            str(g.digest)[:12],
            shown_size(g.size),
            shown_time(g.created),
            f"{g.nodes} of {nodes}",
        )
        for g in listing.generations
    ]
    table(
        [Column("GENERATION", right=True), Column("DIGEST"), Column("SIZE", right=True), Column("CREATED"),
         Column("REF ON")],
        rows_shown,
    )  # fmt: skip
    warn_reach(listing.reach)
