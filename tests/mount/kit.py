"""What the tests of real mounts share: commands, waiting, private /dev folders, and cleaning up by all means."""

import hashlib
import json
import os
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

from shardfs.mount.mountpoint import filesystem_at

MiB = 1024 * 1024
NOBODY = 65534
CONNECTIONS = Path("/sys/fs/fuse/connections")
PATIENCE_SECONDS = 60.0
"""For what must come and has no time of its own: longer than the slowest machine takes."""


def shardfs(
    *arguments: str | Path, env: Mapping[str, str] | None = None, before: tuple[str, ...] = ()
) -> subprocess.CompletedProcess[str]:
    """Run the command; `before` are words in front of it (setpriv, unshare...)."""
    return subprocess.run(
        [*before, sys.executable, "-m", "shardfs", *map(str, arguments)],
        env={**os.environ, **(env or {})},
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        timeout=PATIENCE_SECONDS,
        check=False,
    )


def assert_refused(done: subprocess.CompletedProcess[str], status: int, *words: str) -> None:
    """It failed with `status` and one line on stderr that has all the words."""
    assert (done.returncode, done.stdout) == (status, ""), done
    lines = done.stderr.splitlines()
    assert len(lines) == 1, done.stderr
    assert lines[0].startswith("shardfs: "), done.stderr
    assert "unexpected" not in lines[0], done.stderr
    for word in words:
        assert word in lines[0], (word, lines[0])


def until(condition: Callable[[], Any], seconds: float = PATIENCE_SECONDS, what: str = "the condition") -> Any:
    """The first true value of `condition`, which must come within `seconds`."""
    deadline = time.monotonic() + seconds
    while not (value := condition()):
        assert time.monotonic() < deadline, f"{what} did not come within {seconds} s"
        time.sleep(0.02)
    return value


def runs(pid: int) -> bool:
    """Whether any thread of the process lives; a zombie does not.

    The first thread may be one while others are still about to let go of the files and locks that they share.
    """
    return any(state not in "ZX" for state in thread_states(pid))


def thread_states(pid: int) -> list[str]:
    """The letter of each thread of the process, as `ps` shows it; none of those that end meanwhile."""
    states = []
    with suppress(OSError):
        for task in Path(f"/proc/{pid}/task").iterdir():
            with suppress(OSError):
                states.append((task / "stat").read_text().rpartition(")")[2].split()[0])
    return states


def output_of(process: "subprocess.Popen[str]", seconds: float = PATIENCE_SECONDS) -> str:
    """What a process prints until it ends by itself. Killed when that takes too long, and not waited for then."""
    try:
        return process.communicate(timeout=seconds)[0]
    except BaseException:
        process.kill()
        raise


def sha256(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def connection_of(mountpoint: Path) -> Path:
    """The control folder of the mount's connection, found without asking the mount."""
    for line in Path("/proc/self/mountinfo").read_text().splitlines():
        fields = line.split()
        if fields[4] == str(mountpoint):
            return CONNECTIONS / fields[2].partition(":")[2]
    raise AssertionError(f"{mountpoint} is not mounted")


def forget_pages(*paths: Path) -> None:
    """Drop the files' pages from the page cache, so that reads reach the daemon again."""
    for path in paths:
        fd = os.open(path, os.O_RDONLY)
        try:
            os.posix_fadvise(fd, 0, 0, os.POSIX_FADV_DONTNEED)
        finally:
            os.close(fd)


class Place:
    """A mountpoint with its own cache and log, mounted by the command itself, cleaned up by all means."""

    def __init__(self, folder: Path, cluster_file: Path) -> None:
        self.folder = folder
        self.path = folder / "models"
        self.path.mkdir()
        self.cache = folder / "cache"
        self.log = folder / "log"
        self.cluster_file = cluster_file
        self.pids: list[int] = []

    def try_mount(self, *options: str, path: Path | None = None) -> subprocess.CompletedProcess[str]:
        arguments = ["mount", path or self.path, "--cluster", self.cluster_file, "--log-file", self.log, "--json"]
        if "--no-cache" not in options and "--cache" not in options:
            arguments += ["--cache", self.cache]
        done = shardfs(*arguments, *options)
        if done.returncode == 0:
            self.pids.append(json.loads(done.stdout)["pid"])
        return done

    def mount(self, *options: str) -> dict[str, Any]:
        done = self.try_mount(*options)
        assert done.returncode == 0, done.stderr + (self.log.read_text() if self.log.exists() else "")
        return json.loads(done.stdout)

    def umount(self) -> subprocess.CompletedProcess[str]:
        return shardfs("umount", self.path)

    def mounted(self) -> bool:
        return filesystem_at(self.path) is not None

    def gone(self, pid: int) -> None:
        """The daemon ends and leaves no mount behind."""
        until(lambda: not runs(pid), what=f"the end of the daemon {pid}")
        assert not self.mounted()
        assert list(self.path.iterdir()) == []

    def clean(self) -> None:
        for pid in self.pids:
            with suppress(OSError):
                if b"shardfs" in Path(f"/proc/{pid}/cmdline").read_bytes():
                    os.kill(pid, signal.SIGKILL)
        until(self._unmounted, what=f"the end of the mount at {self.path}")

    def _unmounted(self) -> bool:
        """Try. A daemon that has just been killed may be quicker, then `umount` has nothing to do and says so."""
        if self.mounted():
            subprocess.run(["umount", "-l", str(self.path)], capture_output=True, check=False)
        return not self.mounted()


@contextmanager
def scratch() -> Iterator[Path]:
    """A folder that everybody may enter and that is gone afterwards, also when the test failed."""
    folder = Path(tempfile.mkdtemp(prefix="shardfs-test-"))
    folder.chmod(0o755)
    try:
        yield folder
    finally:
        shutil.rmtree(folder, ignore_errors=True)


def private_dev(fuse: str) -> tuple[str, ...]:
    """Run what follows with a /dev of its own, in which /dev/fuse is `missing`, `null`, or has the mode `fuse`.

    Everything below is in new mount and process namespaces: when the command ends, its mounts and daemons end too.
    """
    make = {"missing": ":", "null": "touch /dev/fuse; mount --bind /dev/null /dev/fuse"}.get(
        fuse, f"mknod -m {fuse} /dev/fuse c 10 229"
    )
    script = (
        "set -e; mount -t tmpfs -o mode=755 none /dev; "
        "mknod -m 666 /dev/null c 1 3; mknod -m 666 /dev/urandom c 1 9; " + make + '; exec "$@"'
    )
    return ("unshare", "-m", "-p", "-f", "--mount-proc", "--kill-child", "sh", "-c", script, "sh")


def as_nobody() -> tuple[str, ...]:
    """Run what follows as another user, who may read everything (the interpreter may lie in root's home)."""
    who = (f"--reuid={NOBODY}", f"--regid={NOBODY}", "--clear-groups")
    return ("setpriv", *who, "--inh-caps=+dac_read_search", "--ambient-caps=+dac_read_search")
