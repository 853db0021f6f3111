"""`shardfs import NODE PATH [NAME]`: publish a model that lies on an engine already, without copying it.

stdout has the report, as facts or with `--json` as one document; progress and warnings go to stderr. Stopping it is as
with `shardfs put`.
"""
# ruff: noqa: N999 - a command is named for what it does; nobody writes `import shardfs.cli.import`

from typing import TYPE_CHECKING

import click

from shardfs.cli.options import open_cluster, reporting, run
from shardfs.cli.output import emit_json, exact_size, facts, warn, warn_replaced

if TYPE_CHECKING:  # importing these costs what `shardfs import --help` does not need
    from shardfs.api.external import Imported
    from shardfs.core.cluster import Cluster


@click.command(
    epilog="JSON keys: name, generation, digest, node, path, files, size, chunks, bytes_new, bytes_present, "
    "bytes_zero, seconds, replaced_nodes, unchanged, raced. new + present + zero = size."
)
@click.argument("node", metavar="NODE")
@click.argument("path", metavar="PATH")
@click.argument("name", metavar="[NAME]", required=False)
@reporting
def command(node: str, path: str, name: str | None, cluster_file: str | None, *, as_json: bool) -> None:
    """Publish the file or folder PATH, which lies on the engine behind NODE, as the model NAME, where it is.

    PATH begins at the root of the engine: the bucket, the root of HDFS or of the web server, the folder of a file://
    node. NAME is its last part if it is not given. Every byte is read once and named; what is stored are pointers of
    some hundred bytes. The files must stay as they are: one that is changed or deleted cannot be read any more.
    """
    done = run(_import, node, path, name, open_cluster(cluster_file))
    warn_replaced(done.replaced_nodes)
    if as_json:
        import dataclasses

        emit_json({**dataclasses.asdict(done), "seconds": round(done.seconds, 3)})
        return
    if done.raced:
        warn(f"{done.name} was also published by somebody else; this is generation {done.generation}")
    facts(
        [
            ("name", done.name),
            ("generation", f"{done.generation}{' (unchanged: it has this content)' if done.unchanged else ''}"),
            ("digest", done.digest),
            ("lies on", f"node {done.node}, {done.path}"),
            ("files", str(done.files)),
            ("read", exact_size(done.size)),
            ("newly known", exact_size(done.bytes_new)),
            ("known already", exact_size(done.bytes_present)),
            ("zeros", exact_size(done.bytes_zero)),
            ("time", f"{done.seconds:.1f} s"),
        ]
    )


async def _import(node: str, path: str, name: str | None, cluster: "Cluster") -> "Imported":
    from shardfs.api.external import Tally, import_async
    from shardfs.cli.progress import show_progress
    from shardfs.cli.stopping import stoppable

    tally = Tally()
    return await stoppable(
        tally, lambda: import_async(node, path, name, cluster=cluster, tally=tally, watch=show_progress)
    )
