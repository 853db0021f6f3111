"""`shardfs ls [PREFIX]`"""

from typing import Any

import click

from shardfs.cli.options import open_cluster, reporting, run
from shardfs.cli.output import Column, emit_json, reach_json, shown_size, shown_time, table, warn_reach


@click.command()
@click.argument("prefix", default="", metavar="[PREFIX]")
@click.option("-l", "details", is_flag=True, help="Also files, size and time; reads every manifest.")
@reporting
def command(*, prefix: str, details: bool, cluster_file: str | None, as_json: bool) -> None:
    """List the models whose names begin with PREFIX, each with its newest generation.

    \b
    --json: models[{name, generation, digest, files, size, created}], answered[], failed{node: reason}, majority
    """
    from shardfs.api.catalogue import models

    listing = run(models, open_cluster(cluster_file), prefix, details=details)
    if as_json:
        keys = ("name", "generation", "digest", "files", "size", "created")
        rows: list[dict[str, Any]] = [{key: getattr(g, key) for key in keys} for g in listing.generations]
        emit_json({"models": rows, **reach_json(listing.reach)})
        return
    if details:
        table(
            [Column("MODEL"), Column("GENERATION", right=True), Column("FILES", right=True), Column("SIZE", right=True),
             Column("CREATED")],
            [(g.name, str(g.generation), "?" if g.files is None else str(g.files), shown_size(g.size),
              shown_time(g.created)) for g in listing.generations],
        )  # fmt: skip
    else:
        table(
            [Column("MODEL"), Column("GENERATION", right=True)],
            [(g.name, str(g.generation)) for g in listing.generations],
        )
    warn_reach(listing.reach)
