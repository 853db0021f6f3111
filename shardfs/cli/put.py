"""`shardfs put SRC [NAME]`: upload a file or a folder as a new generation of a model.

stdout has the report, as facts or with `--json` as one document; progress and warnings go to stderr. Ctrl-C and SIGTERM
stop it at once and publish nothing; only the last moment, in which the model becomes visible, is finished first.
"""

from typing import TYPE_CHECKING

import click

from shardfs.cli.options import open_cluster, reporting, run
from shardfs.cli.output import emit_json, exact_size, facts, warn, warn_replaced

if TYPE_CHECKING:  # importing these costs what `shardfs put --help` does not need
    from shardfs.admin.publish import Put
    from shardfs.admin.source import Source
    from shardfs.admin.upload import Tally
    from shardfs.core.cluster import Cluster


@click.command(
    epilog="JSON keys: name, generation, digest, files, size, chunks, bytes_sent, bytes_present, bytes_zero, seconds, "
    "replaced_nodes, unchanged, raced. Bytes are of the source: sent + present + zero = size."
)
@click.argument("src", metavar="SRC")
@click.argument("name", metavar="[NAME]", required=False)
@reporting
def command(src: str, name: str | None, cluster_file: str | None, *, as_json: bool) -> None:
    """Upload the file or folder SRC as a new generation of the model NAME.

    NAME is the last part of SRC if it is not given (org/name for a Hugging Face cache snapshot). Chunks that the nodes
    have already are not sent, so a second run goes on where the first was stopped. Links are followed within SRC.
    Left out are .cache/huggingface and *.shardfs-part, what a downloader keeps for itself.
    """
    done = run(_put, src, name, open_cluster(cluster_file))
    warn_replaced(done.replaced_nodes)
    if as_json:
        _report_json(done)
    else:
        _report(done)


async def _put(src: str, name: str | None, cluster: "Cluster") -> "Put":
    from shardfs.admin.upload import Tally
    from shardfs.api.put import put_async
    from shardfs.cli.progress import show_progress
    from shardfs.cli.stopping import stoppable

    async def watch(source: "Source", tally: "Tally") -> None:
        _warn_skipped(source)
        await show_progress(tally)

    tally = Tally()
    return await stoppable(tally, lambda: put_async(src, name, cluster=cluster, tally=tally, watch=watch))


def _warn_skipped(source: "Source") -> None:
    from shardfs.admin.part import PART_SUFFIX
    from shardfs.admin.source import shown

    for path in source.skipped:
        begun = path.endswith(PART_SUFFIX)
        why = "a download that has not ended left it" if begun else "it is where the downloader keeps its books"
        warn(f"{shown(source.local(path))} is left out: {why}")


def _report_json(done: "Put") -> None:
    import dataclasses

    emit_json({**dataclasses.asdict(done), "seconds": round(done.seconds, 3)})


def _report(done: "Put") -> None:
    if done.raced:
        warn(f"{done.name} was also published by somebody else; this is generation {done.generation}")
    facts(
        [
            ("name", done.name),
            ("generation", f"{done.generation}{' (unchanged: it has this content)' if done.unchanged else ''}"),
            ("digest", done.digest),
            ("files", str(done.files)),
            ("size", exact_size(done.size)),
            ("sent", exact_size(done.bytes_sent)),
            ("already there", exact_size(done.bytes_present)),
            ("zeros, not stored", exact_size(done.bytes_zero)),
            ("time", f"{done.seconds:.1f} s"),
        ]
    )
