"""What all engines share: where things are, processes that can be found again, ports, readiness, downloads."""

import fcntl
import json
import os
import random
import shutil
import signal
import socket
import subprocess
import time
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path

READY_SECONDS_MAX = 90.0
STOP_SECONDS_MAX = 10.0
_POLL_SECONDS = 0.1


class EngineError(Exception):
    """One line that says what is missing or did not work."""


def cache_folder() -> Path:
    """Where downloads are kept, and the engines' own folder unless another one is named."""
    base = os.environ.get("XDG_CACHE_HOME")
    return (Path(base) if base else Path.home() / ".cache") / "shardfs-engines"


def downloads() -> Path:
    """The folder of downloads; `$SHARDFS_ENGINES_DOWNLOADS` names another one."""
    named = os.environ.get("SHARDFS_ENGINES_DOWNLOADS")
    folder = Path(named) if named else cache_folder() / "downloads"
    folder.mkdir(parents=True, exist_ok=True)
    return folder


@contextmanager
def exclusive(path: Path) -> Iterator[None]:
    """One process at a time; the others wait."""
    path.parent.mkdir(parents=True, exist_ok=True)
    with path.open("w") as file:
        fcntl.flock(file, fcntl.LOCK_EX)
        yield


def run(command: Sequence[str], *, cwd: Path | None = None, env: Mapping[str, str] | None = None) -> str:
    """The output of a command that ends; EngineError with the end of what it said when it fails."""
    merged = {**os.environ, **(env or {})}
    done = subprocess.run(
        command, cwd=cwd, env=merged, stdin=subprocess.DEVNULL, capture_output=True, text=True, check=False
    )
    if done.returncode:
        said = " | ".join((done.stderr or done.stdout).strip().splitlines()[-3:])
        raise EngineError(f"`{' '.join(command)[:100]}` failed: {said[:500]}")
    return done.stdout


def unpack_debian(packages: Sequence[str], root: Path, *, work: Path) -> None:
    """Download Debian packages and unpack them below `root`: nothing is installed, no service is started."""
    if shutil.which("apt-get") is None:
        raise EngineError(f"there is no apt to get {', '.join(packages)} with")
    work.mkdir(parents=True, exist_ok=True)
    download = ["apt-get", "download", "-q", *packages]
    try:
        run(download, cwd=work)
    except EngineError:
        if os.getuid() != 0:
            raise EngineError(f"apt-get finds no {', '.join(packages)}; run: sudo apt-get update") from None
        run(["apt-get", "update", "-q"])  # a new machine has no lists
        run(download, cwd=work)
    for package in work.glob("*.deb"):
        run(["dpkg", "-x", str(package), str(root)])


def free_port(besides: Collection[int] = ()) -> int:
    """A free loopback port, from below those that the kernel gives to connections.

    A connection may take the port of a server that is not up at the moment, or reach itself while it looks for one.
    """
    for port in (*(set(random.sample(range(10_000, 32_000), 20)) - set(besides)), 0):
        with socket.socket() as probe:
            probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            try:
                probe.bind(("127.0.0.1", port))
            except OSError:
                continue
            found: int = probe.getsockname()[1]
            return found
    raise EngineError("no free port on 127.0.0.1")


def until(ready: Callable[[], bool], what: str, dead: Callable[[], str | None]) -> None:
    """Ask `ready` again and again; EngineError when it takes too long, or `dead` names a process that has ended."""
    end = time.monotonic() + READY_SECONDS_MAX
    while not ready():
        name = dead()
        if name:
            raise EngineError(f"{what}: {name} has ended, see its log")
        if time.monotonic() > end:
            raise EngineError(f"{what} is not ready after {READY_SECONDS_MAX:.0f} s")
        time.sleep(_POLL_SECONDS)


@dataclass(slots=True)
class State:
    """What an engine remembers in `<folder>/state.json`: its ports, and its processes as id and time of start."""

    folder: Path
    ports: dict[str, int] = field(default_factory=dict)
    processes: dict[str, tuple[int, int]] = field(default_factory=dict)

    @classmethod
    def load(cls, folder: Path) -> "State":
        try:
            held = json.loads((folder / "state.json").read_text())
        except (FileNotFoundError, ValueError):
            return cls(folder)
        return cls(folder, held["ports"], {name: (pid, born) for name, (pid, born) in held["processes"].items()})

    def save(self) -> None:
        temp = self.folder / "state.json.new"
        temp.write_text(json.dumps({"ports": self.ports, "processes": self.processes}))
        temp.replace(self.folder / "state.json")

    def port(self, name: str) -> int:
        """The port of that name: the one it had before, when it is free or in use by the engine itself."""
        if name not in self.ports:
            self.ports[name] = free_port(self.ports.values())
        return self.ports[name]

    def alive(self, name: str) -> int | None:
        """The id of the process when it is still the one that was started."""
        pid, born = self.processes.get(name, (0, 0))
        return pid if pid and _born(pid) == born else None

    def dead(self) -> str | None:
        """The name of a process that has ended."""
        return next((name for name in self.processes if self.alive(name) is None), None)

    def spawn(self, name: str, command: Sequence[str], *, env: Mapping[str, str] | None = None) -> None:
        """Start a process of its own, unless it runs; its output goes to `<folder>/logs/<name>.log`."""
        if self.alive(name):
            return
        self._end_workers(name)
        log = self.folder / "logs" / f"{name}.log"
        log.parent.mkdir(exist_ok=True)
        with log.open("ab") as output:
            process = subprocess.Popen(
                command,
                cwd=self.folder,
                env={**os.environ, **(env or {})},
                stdin=subprocess.DEVNULL,
                stdout=output,
                stderr=output,
                start_new_session=True,
            )
        self.processes[name] = (process.pid, _born(process.pid) or 0)
        self.save()

    def stop(self) -> None:
        """End all processes: asked first, then killed."""
        pids = {name: pid for name in self.processes if (pid := self.alive(name))}
        for pid in pids.values():
            os.kill(pid, signal.SIGCONT)
            os.kill(pid, signal.SIGTERM)
        end = time.monotonic() + STOP_SECONDS_MAX
        while any(self.alive(name) for name in pids) and time.monotonic() < end:
            time.sleep(_POLL_SECONDS)
        for name, pid in pids.items():
            if self.alive(name):
                os.killpg(pid, signal.SIGKILL)
        for name in self.processes:
            self._end_workers(name)
        self.processes.clear()
        self.save()

    def _end_workers(self, name: str) -> None:
        """Kill what a process that was killed has left: those of its group that still are in the engine's folder."""
        group = self.processes.get(name, (0, 0))[0]
        for path in Path("/proc").glob("[0-9]*"):
            try:
                fields = (path / "stat").read_text().rpartition(")")[2].split()
                if group and int(fields[2]) == group and (path / "cwd").readlink() == self.folder:
                    os.kill(int(path.name), signal.SIGKILL)
            except OSError:
                continue


def _born(pid: int) -> int | None:
    """When the process was started, in the kernel's ticks; None when there is none, or only its remains."""
    try:
        fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    except OSError:
        return None
    return None if fields[0] in "ZX" else int(fields[19])
