"""`shardfs node`: a chunk server in the foreground, until SIGTERM or Ctrl-C stops it cleanly."""

from __future__ import annotations

import json
from pathlib import Path
from typing import TYPE_CHECKING

import click

from shardfs.cli.options import json_option, run_daemon

if TYPE_CHECKING:
    from shardfs.server import ServerOptions


@click.command()
@click.option("--id", "node", required=True, metavar="ID", help="The node's id in the cluster file.")
@click.option(
    "--data",
    required=True,
    metavar="DIR",
    type=click.Path(file_okay=False, path_type=Path),
    help="Where the objects are kept. Made when its parent exists.",
)
@click.option(
    "--listen", default="127.0.0.1:7300", show_default=True, metavar="HOST:PORT", help="Port 0: any free one."
)
@click.option("--token-file", metavar="FILE", help="Ask clients for the token in this file.")
@click.option("--insecure", is_flag=True, help="Listen on other than loopback addresses without a token.")
@json_option
@click.option(
    "--log-level",
    type=click.Choice(["debug", "info", "warning", "error"], case_sensitive=False),
    help="What to log to stderr. Default: warning.",
)
def command(
    *, node: str, data: Path, listen: str, token_file: str | None, insecure: bool, as_json: bool, log_level: str | None
) -> None:
    """Run a chunk server: keep the objects of one node in a folder and serve them over HTTP.

    Prints one line when it accepts requests (with --json: {"id", "url", "data"}), and stops on SIGTERM or Ctrl-C after
    the requests that are running, at most 5 seconds later.
    """
    import logging

    from shardfs.config.token import read_token
    from shardfs.core.cluster import Node
    from shardfs.server import ServerOptions

    if log_level is not None:
        logging.getLogger("shardfs").setLevel(log_level.upper())
    host, port = _address(listen)
    token = None
    if token_file is not None:
        token = read_token(Node(id=node, url=f"http://{listen}", token_file=str(Path(token_file).absolute())))
    options = ServerOptions(
        node=node,
        data=data.absolute(),
        host=host,
        port=port,
        token=token,
        insecure=insecure,
    )
    run_daemon(_serve_until_signal, options, as_json=as_json)


async def _serve_until_signal(options: ServerOptions, *, as_json: bool) -> None:
    import signal

    import trio

    from shardfs.server import serve

    with trio.open_signal_receiver(signal.SIGTERM, signal.SIGINT) as signals:
        async with trio.open_nursery() as nursery:
            host, port = await nursery.start(serve, options)
            url = f"http://[{host}]:{port}" if ":" in host else f"http://{host}:{port}"
            if as_json:
                click.echo(json.dumps({"id": options.node, "url": url, "data": str(options.data)}))
            else:
                click.echo(f"node {options.node}: serving {options.data} at {url}")
            async for _ in signals:
                nursery.cancel_scope.cancel()
                break


def _address(listen: str) -> tuple[str, int]:
    host, colon, port = listen.rpartition(":")
    if not colon or not port.isascii() or not port.isdigit() or len(port) > 5 or int(port) > 65535:
        raise click.BadParameter(f"{listen[:64]!r} is not HOST:PORT", param_hint="--listen")
    return host.removeprefix("[").removesuffix("]"), int(port)
