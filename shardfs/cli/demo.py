"""`shardfs demo [DIR]`: everything once, for real, on this machine, in a few seconds.

Nodes are processes, the mount is a mount, the killed node is killed; nothing is pretended. All of it lies in one folder
and is stopped at the end. Each step prints one line with its time.
"""

from __future__ import annotations

import importlib.util
import os
import select
import shutil
import signal
import socket
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from shlex import quote
from textwrap import indent
from typing import TYPE_CHECKING, NoReturn

import click

from shardfs.core.units import format_size
from shardfs.errors import MountError, ShardfsError, UsageError

if TYPE_CHECKING:
    from shardfs.api.local import LocalCluster
    from shardfs.cli.sample_reader import SampleReader

NAME = "demo/sample"
_VICTIM = "b"


@click.command()
@click.argument("folder", metavar="[DIR]", required=False, type=click.Path(file_okay=False, path_type=Path))
@click.option("--keep", is_flag=True, help="Keep the temporary folder. A DIR is always kept.")
@click.option("--no-wait", is_flag=True, help="Stop at once when done, also on a terminal.")
def command(*, folder: Path | None, keep: bool, no_wait: bool) -> None:
    """Start three nodes here, upload a sample model, mount it, read it through a framework, kill a node, read on.

    Works in DIR (empty, or of an earlier demo), else in a temporary folder. On a terminal everything stays up until you
    press Enter.
    """
    check_requirements()
    for number in (signal.SIGTERM, signal.SIGHUP):
        signal.signal(number, _end)
    with _place(folder, keep=keep) as root:
        _demonstrate(
            root, wait=not no_wait and sys.stdin.isatty() and sys.stdout.isatty(), kept=keep or folder is not None
        )


def check_requirements() -> None:
    """MountError with what to do, before anything is started."""
    if not Path("/dev/fuse").exists():
        raise MountError(
            "/dev/fuse is missing: modprobe fuse, or for a container: docker run --device /dev/fuse --cap-add SYS_ADMIN"
        )
    try:
        os.close(os.open("/dev/fuse", os.O_RDWR))
    except OSError as error:
        raise MountError(
            f"/dev/fuse cannot be opened ({error.strerror}): is this container allowed to use it?"
        ) from None
    if shutil.which("fusermount3") is None:
        raise MountError("fusermount3 is missing: apt-get install fuse3")
    for package, extra in (("pyfuse3", "mount"), ("safetensors", "demo")):
        if importlib.util.find_spec(package) is None:
            raise MountError(f"the package {package} is missing: tools/setup mount demo (pip: shardfs[{extra}])")


def _demonstrate(root: Path, *, wait: bool, kept: bool) -> None:
    from shardfs.api.local import LocalCluster
    from shardfs.cli.sample_model import SHARDS, make_sample_model
    from shardfs.cli.sample_reader import SampleReader

    models, sample = root / "models", root / "sample"
    shutil.rmtree(root / "cache-models", ignore_errors=True)  # or a second run would not ask any node
    with _step("made a sample model") as say:
        make_sample_model(sample)
        say(f"{sample}, {format_size(sum(f.stat().st_size for f in sample.iterdir()))}")
    with ExitStack() as stack:
        reader = stack.enter_context(SampleReader())
        with _step("started three nodes") as say:
            cluster = stack.enter_context(LocalCluster(root))
            say(", ".join(f"{node} (process {cluster.pid(node)})" for node in cluster.node_ids))
        with _step("uploaded the model") as say:
            report = cluster.put(sample, NAME, show_progress=sys.stderr.isatty())
            say(f"{NAME}, generation {report['generation']}, {report['chunks']} chunks, two copies of each")
        _show(cluster, ["ls", "-l"], ["plan", NAME])
        with _step("mounted") as say:
            cluster.mount(models)
            say(str(models))
        with _step("waited for the framework") as say:
            framework = reader.framework()
            say(framework)
        _read(reader, framework, models / NAME / SHARDS[0], sample / SHARDS[0])
        with _step("killed a node") as say:
            pid = cluster.pid(_VICTIM)
            cluster.kill(_VICTIM)
            say(f"{_VICTIM}, by kill -9 {pid}")
        _read(reader, framework, models / NAME / SHARDS[1], sample / SHARDS[1])
        _show(cluster, ["status"])
        with _step("started it again"):
            cluster.start(_VICTIM)
        _say_next(cluster, models, running=wait, kept=kept)
        if wait:
            _wait_for_enter()


def _wait_for_enter() -> None:
    """Or for a signal. Not by `input`: a signal in the moment between its prompt and its read is seen only after the
    read. Here it also writes to a socket that is waited for."""
    woken, wake = socket.socketpair()
    with woken, wake:
        wake.setblocking(False)
        before = signal.set_wakeup_fd(wake.fileno())
        try:
            click.echo("Press Enter to stop it all ", nl=False)
            if sys.stdin in select.select([sys.stdin, woken], [], [])[0]:
                sys.stdin.readline()
        finally:
            signal.set_wakeup_fd(before)


def _read(reader: SampleReader, framework: str, file: Path, original: Path) -> None:
    """Load a file through the framework and compare it; how quick that was."""
    with _step(f"read {file.name} with safetensors.{framework}") as say:
        done = reader.read(file, original)
        say(f"{done['tensors']} tensors, equal to the original, {format_size(done['bytes'] / done['seconds'])}/s")


def _show(cluster: LocalCluster, *commands: list[str]) -> None:
    """Run commands that the user could type, and show what they print."""
    click.echo()
    for arguments in commands:
        done = cluster.run(*arguments)
        if done.returncode:
            raise ShardfsError(f"shardfs {arguments[0]}: {done.stderr.strip().removeprefix('shardfs: ')}")
        click.echo(f"    $ shardfs {' '.join(arguments)}\n{indent(done.stdout, '    ')}")


def _say_next(cluster: LocalCluster, models: Path, *, running: bool, kept: bool) -> None:
    """Commands that work when they are copied: now, or after the end of the demo."""
    shardfs = own_command()
    python = quote(str(Path(sys.executable).resolve()))
    place = quote(str(models))
    export = f"export SHARDFS_CLUSTER={quote(str(cluster.cluster_file))}"
    look = [
        f"ls -lR {place}",
        f"{shardfs} put {python} my/first && cmp {python} {place}/my/first",
        f"{shardfs} info {NAME}",
    ]
    if running:
        click.echo("\nIn another terminal, try:\n")
        lines = [export, *look, f"kill -9 {cluster.pid('c')}; {shardfs} status; md5sum {place}/{NAME}/*"]
    elif kept:
        click.echo("\nTo go on with it:\n")
        nodes = [
            f"{shardfs} node --id {node} --data {quote(str(data))} --listen 127.0.0.1:{port} &"
            for node, data, port in cluster.places()
        ]
        lines = [*nodes, export, f"{shardfs} mount {place}", *look, f"{shardfs} umount {place}"]
    else:
        click.echo("\nTo try it yourself (on a terminal it stays up until you press Enter):\n")
        lines = [f"{shardfs} demo ~/shardfs-demo"]
    click.echo("".join(f"    {line}\n" for line in [*lines, f"{shardfs} --help"]))


def own_command() -> str:
    """How to call this program from another terminal."""
    beside = Path(sys.executable).with_name("shardfs")
    found = shutil.which("shardfs")
    if found is not None and Path(found).resolve() == beside.resolve():
        return "shardfs"
    return quote(str(beside)) if beside.exists() else f"{quote(sys.executable)} -m shardfs"


@contextmanager
def _step(what: str) -> Iterator[Callable[[str], None]]:
    """One line when it is done: seconds, what, and what `say` was told."""
    details: list[str] = []
    started = time.monotonic()
    yield details.append
    click.echo(f"{time.monotonic() - started:5.1f} s  {': '.join([what, *details])}")


@contextmanager
def _place(folder: Path | None, *, keep: bool) -> Iterator[Path]:
    """The folder of the demo, made and, where nobody wants it, removed."""
    from shardfs.api.local import is_mounted

    if folder is not None:
        root = folder.absolute()
        if root.exists() and any(root.iterdir()) and not (root / "cluster.toml").exists():
            raise UsageError(f"{folder}: not empty and not of an earlier demo; name another folder")
        root.mkdir(parents=True, exist_ok=True)
        yield root
        return
    root = Path(tempfile.mkdtemp(prefix="shardfs-demo-"))
    try:
        yield root
    finally:
        if not keep and not is_mounted(root / "models"):
            shutil.rmtree(root, ignore_errors=True)


def _end(number: int, _: object) -> NoReturn:
    """A signal ends the demo like an error does: everything is stopped and removed."""
    raise SystemExit(128 + number)
