"""`shardfs mount`: the daemon in the foreground, or in the background as a child that reports when it is ready.

The background daemon is a new process of the same program rather than a fork: nothing is inherited half-made. It says
over a pipe that it is ready, or why it never will be; its log goes to a file that stays small (`shardfs.cli.log_file`).
"""

import faulthandler
import json
import logging
import os
import select
import subprocess
import sys
from collections.abc import Callable
from contextlib import nullcontext
from functools import partial
from pathlib import Path

import click

from shardfs import __version__
from shardfs.cli.log_file import log_to_file, open_log
from shardfs.cli.options import cluster_option, json_option, open_cluster, run_daemon
from shardfs.cli.places import cache_folder, cache_size, log_file
from shardfs.core.units import format_size, parse_size
from shardfs.errors import MountError, UsageError

logger = logging.getLogger(__name__)

READY_SECONDS = 60.0
_TOUCHED_SHARE = 0.25
"""Of `--memory`: what one whole-model read needs with the disk cache behind it."""


@click.command()
@click.argument("mountpoint", type=Path)  # click.Path would ask a daemon that may hang
@cluster_option
@json_option
@click.option("--cache", metavar="DIR", help="Folder of the disk cache. Default: one for each mountpoint in ~/.cache.")
@click.option("--no-cache", is_flag=True, help="Keep nothing on disk, only in memory.")
@click.option(
    "--cache-size",
    metavar="SIZE",
    help="Limit of the disk cache, manifests included. Default: a quarter of the free space and of its own files.",
)
@click.option(
    "--memory",
    default="512MiB",
    show_default=True,
    metavar="SIZE",
    help="Limit of the memory for data. The process takes up to 120 MiB more.",
)
@click.option("--read-timeout", default=10.0, show_default=True, metavar="S", help="Seconds until a read fails.")
@click.option("--allow-other", is_flag=True, help="Let other users in.")
@click.option("--passthrough", is_flag=True, help="Let the kernel read whole cached files itself (root, Linux 6.9).")
@click.option("--foreground", "-f", is_flag=True, help="Stay in the foreground and log to stderr.")
@click.option("--log-file", metavar="FILE", help="Log in the background. Default: in ~/.local/state/shardfs.")
@click.option("--ready-fd", type=int, hidden=True)
@click.option("--trace", type=Path, hidden=True, help="Append a line for each read, see shardfs/vfs/trace.py.")
@click.option("--trace-delay", default=0.0, hidden=True, help="Seconds that each traced read takes longer.")
def command(mountpoint: Path, *, cluster_file: str | None, as_json: bool, foreground: bool, **settings: object) -> None:
    """Show the models as read-only files under MOUNTPOINT, an empty folder.

    Returns when the mount answers; a daemon goes on serving it. `shardfs umount MOUNTPOINT`, SIGTERM or
    `fusermount3 -u` end it. Its log is at most 10 MiB, with one older file of as much beside it (FILE.1).

    With --json: {"mountpoint", "pid", "cache", "cache_size", "memory", "tuned", "passthrough",
    "log"}.
    """
    if not foreground:
        _start_daemon(mountpoint, cluster_file, settings, as_json=as_json)
        return
    faulthandler.enable(2)  # of a crash in C there is a line at least
    in_background = settings.get("ready_fd") is not None
    with log_to_file(Path(str(settings["log_file"]))) if in_background else nullcontext():
        _serve(mountpoint, cluster_file, settings, as_json=as_json)


def _serve(mountpoint: Path, cluster_file: str | None, settings: dict[str, object], *, as_json: bool) -> None:
    """Run the daemon in this process until it is unmounted."""
    report = _reporter(settings.get("ready_fd"), as_json=as_json)
    try:
        from shardfs.mount.session import MountOptions, Ready
        from shardfs.wiring.mount import TraceOptions, mount
        from shardfs.wiring.reader import ReaderOptions
    except ImportError as error:
        if error.name != "pyfuse3":
            raise
        report({"error": _NO_PYFUSE3})
        raise MountError(_NO_PYFUSE3) from None
    if not logging.getLogger().isEnabledFor(logging.INFO):
        logging.getLogger("shardfs").setLevel(logging.INFO)
    logger.info("%s: mounting (shardfs %s, process %d)", mountpoint, __version__, os.getpid())
    try:
        cluster = open_cluster(cluster_file)
        timeout = float(str(settings["read_timeout"]))
        if not 0.1 <= timeout <= 3600:
            raise UsageError("--read-timeout: 0.1 to 3600 seconds")
        cache = cache_folder(mountpoint, settings)
        reading = ReaderOptions(
            memory_bytes=parse_size(str(settings["memory"])),
            cache=cache,
            cache_bytes=cache_size(cache, settings.get("cache_size")),
            read_timeout_seconds=timeout,
            touched_share=_TOUCHED_SHARE,
        )
        options = MountOptions(
            allow_other=bool(settings["allow_other"]),
            read_timeout_seconds=timeout,
            passthrough=bool(settings["passthrough"]),
        )
        recorded = settings.get("trace")
        trace = TraceOptions(Path(str(recorded)), float(str(settings["trace_delay"]))) if recorded else None

        def ready(what: Ready) -> None:
            if settings.get("ready_fd") is not None:
                os.chdir("/")  # or the daemon would keep the disk busy that the command was given on
            report(
                {
                    "mountpoint": str(what.mountpoint),
                    "pid": os.getpid(),
                    "cache": str(cache) if cache else None,
                    "cache_size": reading.cache_bytes,
                    "memory": reading.memory_bytes,
                    "tuned": what.tuned,
                    "passthrough": what.passthrough,
                }
            )

        run_daemon(partial(mount, cluster, mountpoint, options, reading, trace=trace, ready=ready))
    except BaseException as error:
        inner = error
        while isinstance(inner, BaseExceptionGroup):
            inner = inner.exceptions[0]
        report({"error": str(inner) or type(inner).__name__, "usage": isinstance(inner, UsageError)})
        raise


def _reporter(ready_fd: object, *, as_json: bool) -> Callable[[dict[str, object]], None]:
    """Where the one report of the daemon goes: the waiting parent, or the terminal."""

    def report(document: dict[str, object]) -> None:
        nonlocal ready_fd
        if isinstance(ready_fd, int):
            with os.fdopen(ready_fd, "w") as pipe:
                json.dump(document, pipe)
            ready_fd = "closed"
        elif ready_fd is None and "error" not in document:
            _say(document, as_json=as_json)

    return report


def _say(document: dict[str, object], *, as_json: bool) -> None:
    if as_json:
        click.echo(json.dumps(document))
        return
    cache = document["cache"]
    size = format_size(float(str(document["cache_size"])))
    where = f"disk cache {cache} up to {size}" if cache else "no disk cache"
    click.echo(f"mounted at {document['mountpoint']} (process {document['pid']}, {where})")
    if not document["tuned"]:
        click.echo("note: without root the kernel reads only 128 KiB ahead; large reads are faster as root")
    sys.stdout.flush()


def _start_daemon(mountpoint: Path, cluster_file: str | None, settings: dict[str, object], *, as_json: bool) -> None:
    """Start the daemon as a child in a session of its own; return when it is ready, raise what it says."""
    log = log_file(mountpoint, settings.get("log_file"))
    output = open_log(log)
    reading, writing = os.pipe()
    arguments = [sys.executable, "-m", "shardfs"]
    arguments += ["--debug"] if logging.getLogger().isEnabledFor(logging.DEBUG) else []
    arguments += ["mount", str(mountpoint), "--foreground", "--ready-fd", str(writing), "--log-file", str(log)]
    arguments += ["--cluster", cluster_file] if cluster_file else []
    if settings.get("trace"):
        arguments += ["--trace", str(settings["trace"]), "--trace-delay", str(settings["trace_delay"])]
    for name in ("cache", "cache_size", "memory", "read_timeout"):
        if settings.get(name) is not None:
            arguments += [f"--{name.replace('_', '-')}", str(settings[name])]
    arguments += [
        f"--{name.replace('_', '-')}" for name in ("no_cache", "allow_other", "passthrough") if settings.get(name)
    ]
    with output:
        child = subprocess.Popen(
            arguments,
            stdin=subprocess.DEVNULL,
            stdout=output,
            stderr=output,
            pass_fds=(writing,),
            start_new_session=True,
        )
    os.close(writing)
    try:
        with os.fdopen(reading) as pipe:
            answered, _, _ = select.select([pipe], [], [], READY_SECONDS)
            text = pipe.read() if answered else ""
    except BaseException:  # Ctrl-C: nobody wants a mount that appears later
        child.terminate()
        raise
    document = json.loads(text) if text else {}
    if "error" in document:
        child.wait()
        raise (UsageError if document.get("usage") else MountError)(document["error"])
    if not document:
        child.kill()
        raise MountError(f"{mountpoint}: the daemon did not become ready; its log is {log}")
    document["log"] = str(log)
    _say(document, as_json=as_json)


_NO_PYFUSE3 = "pyfuse3 is not installed: apt-get install fuse3 libfuse3-dev pkg-config gcc, then pip install pyfuse3"
