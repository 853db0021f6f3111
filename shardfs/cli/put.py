"""`shardfs put SRC [NAME]`: upload a file or a folder as a new generation of a model.

stdout has the report, as facts or with `--json` as one document; progress and warnings go to stderr. Ctrl-C and SIGTERM
stop it at once and publish nothing; only the last moment, in which the model becomes visible, is finished first.
"""

import signal
from typing import TYPE_CHECKING

import click

from shardfs.cli.options import open_cluster, reporting, run
from shardfs.cli.output import emit_json, facts, warn

if TYPE_CHECKING:  # importing these costs what `shardfs put --help` does not need
    import trio

    from shardfs.admin.publish import Put
    from shardfs.admin.source import Source
    from shardfs.admin.upload import Tally


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
    """
    done = run(_put, src, name, cluster_file)
    _warn_replaced(done)
    if as_json:
        _report_json(done)
    else:
        _report(done)


async def _put(src: str, name: str | None, cluster_file: str | None) -> "Put":
    import trio

    from shardfs.admin.upload import Tally
    from shardfs.api.put import put_async
    from shardfs.cli.progress import show_progress

    async def watch(source: "Source", tally: "Tally") -> None:
        _warn_skipped(source)
        await show_progress(tally)

    cluster = open_cluster(cluster_file)
    tally = Tally()
    done: list[Put] = []  # at most one; empty when a signal came first
    caught: list[int] = []
    async with trio.open_nursery() as nursery:
        await nursery.start(_stop_on_signal, nursery.cancel_scope, tally, caught)
        done.append(await put_async(src, name, cluster=cluster, tally=tally, watch=watch))
        nursery.cancel_scope.cancel()
    if not done:
        warn("stopped, nothing is published; the same command goes on from here")
        raise click.exceptions.Exit(128 + caught[0])
    return done[0]


async def _stop_on_signal(
    scope: "trio.CancelScope", tally: "Tally", caught: list[int], *, task_status: "trio.TaskStatus[None]"
) -> None:
    """Cancel `scope` at the first signal. After it the usual handlers are back: a second one ends the program."""
    import trio

    with trio.open_signal_receiver(signal.SIGINT, signal.SIGTERM) as signals:
        task_status.started()
        async for number in signals:
            if tally.committing:
                warn("the upload is complete and is being published, which is not stopped halfway")
                continue
            caught.append(number)
            scope.cancel()
            return


def _warn_skipped(source: "Source") -> None:
    from shardfs.admin.source import shown

    for path in source.skipped:
        warn(f"{shown(source.local(path))} is left out: it is where the downloader keeps its books")


def _warn_replaced(done: "Put") -> None:
    for node, replaced in done.replaced_nodes.items():
        warn(f"node {node}: {replaced.reason}; {replaced.chunks} chunks went to other nodes instead")


def _report_json(done: "Put") -> None:
    import dataclasses

    emit_json({**dataclasses.asdict(done), "seconds": round(done.seconds, 3)})


def _report(done: "Put") -> None:
    from shardfs.core.units import format_size

    def size(count: int) -> str:
        return f"{format_size(count)} ({count} bytes)" if count >= 1024 else f"{count} bytes"

    if done.raced:
        warn(f"{done.name} was also published by somebody else; this is generation {done.generation}")
    facts(
        [
            ("name", done.name),
            ("generation", f"{done.generation}{' (unchanged: it has this content)' if done.unchanged else ''}"),
            ("digest", done.digest),
            ("files", str(done.files)),
            ("size", size(done.size)),
            ("sent", size(done.bytes_sent)),
            ("already there", size(done.bytes_present)),
            ("zeros, not stored", size(done.bytes_zero)),
            ("time", f"{done.seconds:.1f} s"),
        ]
    )
