"""The real servers of a test session: where they are, how to open them, how to kill and bring back one process."""

import json
import os
import signal
import subprocess
import sys
from pathlib import Path
from typing import Any, Self
from urllib.parse import urlsplit

from shardfs.core.cluster import Node
from shardfs.store.base import Store
from shardfs.wiring.engines import open_store

ROOT = Path(__file__).resolve().parents[2]
TOOL = ROOT / "tools" / "engines"
ENVIRONMENT = dict(os.environ)
"""As it was before tests changed it: the tool finds its downloads by it."""


def tool(*arguments: str, environment: dict[str, str] | None = None) -> "subprocess.CompletedProcess[str]":
    """`tools/engines` with these arguments."""
    command = [sys.executable, str(TOOL), *arguments]
    return subprocess.run(command, capture_output=True, text=True, check=False, env=environment or ENVIRONMENT)


class Engine:
    """One engine that `tools/engines` has started below `folder`."""

    def __init__(self, name: str, folder: Path) -> None:
        self.name = name
        self.folder = folder
        self.about: dict[str, Any] = {}

    def _call(self, action: str) -> str:
        """Why it cannot be had; empty when it can."""
        done = tool(action, self.name, "--dir", str(self.folder), "--json")
        assert done.stdout, done.stderr
        self.about = json.loads(done.stdout)[self.name]
        return "" if done.returncode == 0 else done.stderr.strip()

    def start(self) -> str:
        return self._call("start")

    def stop(self) -> str:
        return self._call("stop")

    @property
    def url(self) -> str:
        return self.about["url"]

    def at(self, name: str) -> str:
        """The url of another folder of the same engine."""
        before, _, query = self.url.partition("?")
        return before.rpartition("/")[0] + f"/{name}" + (f"?{query}" if query else "")

    def store(self, name: str, node: str = "a", **about: str) -> Store:
        return open_store(Node(node, self.at(name), **about))

    def running(self) -> set[str]:
        """Its processes that are alive."""
        assert self._call("status") == ""
        return set(self.about["processes"])

    def send(self, process: str, number: signal.Signals) -> None:
        """A signal to the process and its workers, which are a process group of their own. SIGSTOP: all stand still."""
        pid = self.about["processes"][process]
        os.killpg(pid, number)
        while number == signal.SIGSTOP and set(map(_state, Path(f"/proc/{pid}/task").iterdir())) - set("TZX"):
            pass

    def kill(self, process: str) -> None:
        """At once. `start` brings it back."""
        self.send(process, signal.SIGKILL)

    def gone(self, process: str) -> bool:
        """Whether a process that was killed has ended; a signal takes its time."""
        return _state(Path(f"/proc/{self.about['processes'][process]}")) in "ZX"


def _state(process: Path) -> str:
    """The letter that the kernel has for what a process or thread does: T stands still, Z and X have ended."""
    try:
        return (process / "stat").read_text().rpartition(")")[2].split()[0]
    except (FileNotFoundError, ProcessLookupError):
        return "X"


class OverHttp(Engine):
    """The same HDFS over HTTP alone: its processes and their state are those of `hdfs`."""

    def __init__(self, hdfs: Engine) -> None:
        self._hdfs = hdfs
        self.name = "webhdfs"
        self.folder = hdfs.folder

    @property
    def about(self) -> dict[str, Any]:  # type: ignore[override]
        return self._hdfs.about

    def _call(self, action: str) -> str:
        return self._hdfs._call(action)

    @property
    def url(self) -> str:
        return self.about["webhdfs"]


class Mixed:
    """A cluster of one shardfs node and any engines, used as people use it: through the commands."""

    def __init__(self, root: Path, urls: dict[str, str], *, replicas: int = 2) -> None:
        self.root = root
        self._environment = {**os.environ, "SHARDFS_CLUSTER": str(root / "cluster.toml"), "XDG_STATE_HOME": str(root)}
        self._node: subprocess.Popen[str] | None = None
        self._port = 0
        self._urls = urls
        self._replicas = replicas
        self._mounts: list[Path] = []

    def __enter__(self) -> Self:
        self.root.mkdir(parents=True, exist_ok=True)
        try:
            self.start_node()
        except BaseException:
            self.kill_node()
            raise
        return self

    def __exit__(self, *_: object) -> None:
        try:
            for mountpoint in list(self._mounts):
                self.umount(mountpoint)
        finally:
            self.kill_node()  # or it would hold the output of the tests open, and whoever reads that would wait

    def start_node(self) -> None:
        """The shardfs node `near`, in a process of its own; at the port that it had, where mounts look for it."""
        listen = f"127.0.0.2:{self._port}"  # connections begin at 127.0.0.1, so none can take its port meanwhile
        command = ["node", "--id", "near", "--data", str(self.root / "near"), "--listen", listen, "--json"]
        self._node = subprocess.Popen(self._command(command), stdout=subprocess.PIPE, text=True)
        assert self._node.stdout is not None
        urls = {"near": json.loads(self._node.stdout.readline())["url"], **self._urls}
        self._port = urlsplit(urls["near"]).port or 0
        nodes = "".join(f'[[nodes]]\nid = "{node}"\nurl = "{url}"\n' for node, url in urls.items())
        (self.root / "cluster.toml").write_text(f'replicas = {self._replicas}\nchunk_size = "1MiB"\n{nodes}')

    def kill_node(self) -> None:
        assert self._node is not None
        assert self._node.stdout is not None
        self._node.kill()
        self._node.wait()
        self._node.stdout.close()

    def _command(self, arguments: list[str]) -> list[str]:
        return [sys.executable, "-m", "shardfs", *arguments]

    def run(self, *arguments: str | Path) -> Any:
        """What a command reports with --json."""
        command = self._command([*map(str, arguments), "--json"])
        done = subprocess.run(command, capture_output=True, text=True, check=False, env=self._environment)
        assert done.returncode == 0, (done.returncode, done.stdout[-500:], done.stderr[-2000:])
        return json.loads(done.stdout)

    def mount(self, name: str = "models", *options: str) -> Path:
        mountpoint = self.root / name
        mountpoint.mkdir(exist_ok=True)
        self.run("mount", mountpoint, "--no-cache", "--memory", "64MiB", *options)
        self._mounts.append(mountpoint)
        return mountpoint

    def umount(self, mountpoint: Path) -> None:
        self._mounts.remove(mountpoint)
        self.run("umount", mountpoint)
