"""A mount without root beside one with: cold, memory only. The kernel's read-ahead stays at 128 KiB there.

The unprivileged daemon and its reader run as user 65534 through setpriv, and fusermount3 mounts for them. Where that
user could not even execute this Python (an interpreter below /root), it is given the one capability
CAP_DAC_READ_SEARCH, with which it can read but neither mount nor tune anything; the report says so. Where /dev/fuse is
root's alone (distributions let everybody open it), both run in a mount namespace whose /dev/fuse is everybody's.
"""

import json
import os
import shutil
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from bench import cases
from bench.child import Child, reader, run_reader
from bench.context import Bench
from bench.measure import Case
from bench.world import MODEL, World, warm_nodes

FUSE = Path("/dev/fuse")
PRIVATE_FUSE = """\
set -e
mount -t tmpfs -o mode=755 none /dev
mknod -m 666 /dev/null c 1 3
mknod -m 666 /dev/urandom c 1 9
mknod -m 666 /dev/fuse c 10 229
exec "$@"
"""
USER = 65534
READABLE = "+dac_read_search"
NOTE = "user: the unprivileged user cannot reach this Python, so it got CAP_DAC_READ_SEARCH (it reads, no more)"


def run(bench: Bench) -> None:
    world, figures, size = bench.world, bench.figures, bench.options.size
    lacking = [name for name in ("setpriv", "fusermount3", "unshare", "nsenter") if shutil.which(name) is None]
    if os.geteuid() != 0 or lacking:
        bench.note(f"user: left out, it needs root{''.join(f' and {name}' for name in lacking)}")
        return
    words = become_user()
    if READABLE in words:
        bench.note(NOTE)
    done = bench.measure(
        [cases.cold(world, "privileged", *cases.NO_CACHE), unprivileged(world, words)],
    )
    figures.rate("user.privileged", "cold read, mounted by root", done.series("privileged"), size)
    what = "cold read, mounted by another user"
    figures.rate("user.unprivileged", what, done.series("unprivileged"), size, limit="user.privileged")


def become_user() -> list[str]:
    """The words before a command that make it run as the user."""
    # `env` in between: setpriv itself still has root's capabilities when it starts a program.
    user = [f"--reuid={USER}", f"--regid={USER}", "--clear-groups"]
    command = ["env", "HOME=/nonexistent"]
    words = ["setpriv", *user, *command]
    tried = subprocess.run([*words, sys.executable, "-c", "import shardfs"], capture_output=True, check=False)
    if tried.returncode:
        words = ["setpriv", *user, "--inh-caps", READABLE, "--ambient-caps", READABLE, *command]
    return words


def unprivileged(world: World, words: list[str]) -> Case:
    world.stored  # noqa: B018

    @contextmanager
    def scene() -> Iterator[cases.Timed]:
        warm_nodes(world.cluster)
        place = world.place("user")
        place.mkdir()
        os.chown(place, USER, USER)
        try:
            with mounted(world, place, words) as daemon:
                namespace = ["nsenter", "--mount", f"--target={daemon.process.pid}"]
                with reader("read", place / MODEL, user=[*namespace, *words]) as child:
                    yield lambda: run_reader(child, world.size)
        finally:
            subprocess.run(["fusermount3", "-u", "-z", str(place)], capture_output=True, check=False)
            place.rmdir()

    return Case("unprivileged", scene, memory_bytes=world.size + cases.MEMORY_BYTES)


@contextmanager
def mounted(world: World, place: Path, words: list[str]) -> Iterator[Child]:
    """A mount that belongs to the user; its daemon."""
    command = [sys.executable, "-m", "shardfs", "mount", str(place), "--foreground", "--json", "--no-cache"]
    command += ["--cluster", str(world.cluster.cluster_file)]
    opened = FUSE.stat().st_mode & 0o006 == 0o006
    before = ["unshare", "--mount", *([] if opened else ["sh", "-c", PRIVATE_FUSE, "sh"])]
    with Child([*before, *words, *command], log=world.work / "user.log") as daemon:
        ready = json.loads(daemon.line())
        if ready["tuned"]:
            raise RuntimeError("the mount is tuned, so it was not unprivileged")
        yield daemon
