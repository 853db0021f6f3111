"""`shardfs umount`: tell the daemon to finish, and wait until the mount is gone."""

import os
import signal
import time
from pathlib import Path

import click

from shardfs.cli.options import json_option
from shardfs.errors import MountError

WAIT_SECONDS = 15.0
_POLL_SECONDS = 0.05


@click.command()
@click.argument("mountpoint", type=Path)
@json_option
def command(mountpoint: Path, *, as_json: bool) -> None:
    """Drain and unmount MOUNTPOINT. Reads under way may finish; a dead mount is taken away.

    With --json: {"mountpoint", "was"}.
    """
    from shardfs.mount.mountpoint import ask, detach, filesystem_at, is_dead, locate

    place = locate(mountpoint)
    if is_dead(place):
        detach(place)
        return _say(place, "dead", as_json=as_json)
    kind = filesystem_at(place)
    if kind is None:
        raise MountError(f"{place}: nothing is mounted there")
    if kind != "fuse.shardfs":
        raise MountError(f"{place}: a {kind} filesystem, not shardfs")
    pid = ask(place, lambda: _daemon(place))
    if pid is None:
        detach(place)
    else:
        os.kill(pid, signal.SIGTERM)
    deadline = time.monotonic() + WAIT_SECONDS
    while filesystem_at(place) is not None or (pid is not None and _runs(pid)):
        if time.monotonic() > deadline:
            raise MountError(f"{place}: the daemon {pid} did not unmount within {WAIT_SECONDS:g} s")
        time.sleep(_POLL_SECONDS)
    return _say(place, "served", as_json=as_json)


def _daemon(place: Path) -> int | None:
    """The process that serves the mount, by its own word, unless that number means another one here (containers)."""
    try:
        pid = int(os.getxattr(place, "user.shardfs.pid"))
        return pid if b"shardfs" in Path(f"/proc/{pid}/cmdline").read_bytes() else None
    except (OSError, ValueError):
        return None


def _runs(pid: int) -> bool:
    try:
        state = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0]
    except OSError:
        return False
    return state != "Z"


def _say(place: Path, was: str, *, as_json: bool) -> None:
    import json

    if as_json:
        click.echo(json.dumps({"mountpoint": str(place), "was": was}))
    else:
        click.echo(f"{place}: unmounted" + (" (the daemon was dead)" if was == "dead" else ""))
