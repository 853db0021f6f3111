"""`shardfs get NAME DEST`: download a model to local files."""

from pathlib import Path
from typing import TYPE_CHECKING

import click

from shardfs.cli.options import name_argument, open_cluster, reporting, run
from shardfs.cli.output import emit_json, facts

if TYPE_CHECKING:
    from shardfs.api.get import Got
    from shardfs.core.cluster import Cluster
    from shardfs.core.names import ModelName


@click.command(
    epilog="JSON keys: name, generation, digest, dest, files, size, bytes_fetched, bytes_present, bytes_zero, seconds."
)
@name_argument
@click.argument("dest", type=click.Path(path_type=Path))
@click.option("--overwrite", is_flag=True, help="Replace files that exist with other content.")
@click.option(
    "--timeout",
    default=60.0,
    show_default=True,
    metavar="S",
    help="Seconds without a whole block (256 KiB) until it fails, 0.1 to 86400.",
)
@reporting
def command(
    name: "ModelName", dest: Path, cluster_file: str | None, *, overwrite: bool, timeout: float, as_json: bool
) -> None:
    """Download the model NAME to DEST: a folder, or a file for a single-file model.

    Every file is whole or absent. What is there already with the right bytes is kept, so a second run goes on where the
    first was stopped, also by Ctrl-C, by an error or by a full disk; until then the file that was begun has the ending
    .shardfs-part. Such a file that is no longer wanted may be deleted. Symbolic links below DEST are not followed.
    """
    from shardfs.core.units import format_size

    got = run(_get, name, dest, open_cluster(cluster_file), overwrite=overwrite, stall_seconds=timeout)
    if as_json:
        import dataclasses

        emit_json({**dataclasses.asdict(got), "seconds": round(got.seconds, 3)})
        return
    facts(
        [
            ("name", f"{got.name}@{got.generation}"),
            ("written to", got.dest),
            ("files", str(got.files)),
            ("size", format_size(got.size)),
            ("fetched", format_size(got.bytes_fetched)),
            ("already there", format_size(got.bytes_present)),
            ("time", f"{got.seconds:.1f} s"),
        ]
    )


async def _get(name: "ModelName", dest: Path, cluster: "Cluster", *, overwrite: bool, stall_seconds: float) -> "Got":
    from shardfs.api.get import Tally, get_async
    from shardfs.cli.logs import without_warnings
    from shardfs.cli.progress import show_progress
    from shardfs.cli.stopping import stoppable

    tally = Tally()

    async def download() -> "Got":
        return await get_async(
            name,
            dest,
            cluster=cluster,
            overwrite=overwrite,
            stall_seconds=stall_seconds,
            tally=tally,
            watch=show_progress,
        )

    with without_warnings("shardfs.fetch.engine"):
        return await stoppable(tally, download, publishes=False)
