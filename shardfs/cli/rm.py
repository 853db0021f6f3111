"""`shardfs rm NAME`"""

import sys

import click

from shardfs.cli.frame import hear_ctrl_c
from shardfs.cli.options import model_argument, open_cluster, reporting, run
from shardfs.cli.output import emit_json


@click.command()
@model_argument
@click.option("-y", "--yes", is_flag=True, help="Do not ask.")
@reporting
def command(*, model: str, yes: bool, cluster_file: str | None, as_json: bool) -> None:
    """Delete the model NAME with all its generations; a single one cannot be deleted.

    It is gone for everybody at once; open files stay readable. The space is not given back yet.

    \b
    --json: model, generation (of the tombstone)
    """
    from shardfs.api.catalogue import remove

    cluster = open_cluster(cluster_file)
    if not yes and sys.stdin.isatty():
        _ask(model)
    tombstone = run(remove, cluster, model)
    if as_json:
        emit_json({"model": tombstone.model, "generation": tombstone.generation})
    else:
        click.echo(f"{model} is deleted (as generation {tombstone.generation}); its chunks stay on the nodes")


def _ask(model: str) -> None:
    """`click.Abort` unless the answer is yes."""
    hear_ctrl_c()
    try:
        sure = click.confirm(f"Delete {model} with all its generations?", err=True)
    except click.Abort:
        click.echo(err=True)  # the line of the question is not at its end
        raise
    if not sure:
        raise click.Abort
