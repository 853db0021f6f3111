"""A cluster on this machine: real node processes and real mounts, for trying out, tests and benchmarks.

    with LocalCluster(Path("/tmp/try")) as cluster:
        cluster.put("model/", "my-model")
        cluster.mount("/tmp/try/models")
        cluster.kill("b")               # and read on

Everything lies under `root`: one folder for each node, `cluster.toml`, logs, caches. Entering starts the nodes, leaving
unmounts and stops what was started, also after an exception and also when this process is killed. The same root may
be used again: data stays, ports stay as far as they are free.
"""

import json
import os
import signal
import subprocess
import sys
from pathlib import Path
from types import TracebackType
from typing import Any, Self
from urllib.parse import urlsplit

from shardfs.api.children import Child, Children, DidNotStart
from shardfs.config import load_cluster
from shardfs.errors import ShardfsError

RUN_SECONDS = 600.0
_IDS = "abcdefghijklmnopqrstuvwxyz"


class LocalCluster:
    """`nodes` (1 to 26) nodes with ids a, b, c...; `replicas` copies of each chunk. Not for use by two threads at once.

    `cluster_file` is there while the context is entered, and stays.
    """

    def __init__(self, root: Path | str, nodes: int = 3, replicas: int = 2) -> None:
        if not 1 <= nodes <= len(_IDS):
            raise ValueError(f"a local cluster has 1 to {len(_IDS)} nodes, not {nodes}")
        self.root = Path(root).absolute()
        self.node_ids = tuple(_IDS[:nodes])
        self.replicas = replicas
        self.cluster_file = self.root / "cluster.toml"
        self._environment = os.environ | {"SHARDFS_CLUSTER": str(self.cluster_file)}
        self._ports: dict[str, int] = {}
        self._nodes: dict[str, Child] = {}
        self._mounts: dict[Path, Child] = {}
        self._children: Children | None = None

    def __enter__(self) -> Self:
        self.root.mkdir(parents=True, exist_ok=True)
        (self.root / "logs").mkdir(exist_ok=True)
        self._children = Children(self._environment)
        try:
            self._recall_ports()
            for node in self.node_ids:
                self._start_anywhere(node)
            self._write_cluster_file()
        except BaseException:
            self.close()
            raise
        return self

    def __exit__(
        self, kind: type[BaseException] | None, value: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def close(self) -> None:
        """Unmount and stop everything. Harmless when done twice."""
        try:
            for mountpoint in list(self._mounts):
                self._take_down(mountpoint)
        finally:
            for child in self._nodes.values():
                child.send(signal.SIGCONT)
                child.send(signal.SIGTERM)  # all at once, then wait for each
            for child in self._nodes.values():
                child.stop()
            self._nodes.clear()
            if self._children is not None:
                self._children.close()
                self._children = None

    # ------------------------------------------------------------------------------------------------------ nodes

    def data(self, node: str) -> Path:
        """The folder of a node's objects."""
        return self.root / node

    def log(self, name: str) -> Path:
        """The log of a node, or of the mount at a folder of that name."""
        return self.root / "logs" / f"{name}.log"

    def pid(self, node: str) -> int:
        return self._nodes[node].pid

    def places(self) -> list[tuple[str, Path, int]]:
        """Each node's id, folder, and the port where it listens or listened last."""
        return [(node, self.data(node), self._ports[node]) for node in self.node_ids]

    def running(self, node: str) -> bool:
        return node in self._nodes and self._nodes[node].running

    def start(self, node: str) -> None:
        """Start a node that was stopped or killed, at its port."""
        if self.running(node):
            raise ValueError(f"node {node} is running")
        self._start(node, self._ports.get(node, 0))

    def stop(self, node: str) -> None:
        """SIGTERM, and wait until it has ended."""
        self._nodes.pop(node).stop()

    def kill(self, node: str, sig: int = signal.SIGKILL) -> None:
        """End a node with this signal, and wait for that."""
        self._nodes.pop(node).kill(sig)

    def pause(self, node: str) -> None:
        """SIGSTOP: the node accepts connections and never answers."""
        self._nodes[node].pause()

    def resume(self, node: str) -> None:
        self._nodes[node].send(signal.SIGCONT)

    # --------------------------------------------------------------------------------------------------- commands

    def run(
        self, *arguments: str | Path, seconds: float = RUN_SECONDS, show_progress: bool = False
    ) -> subprocess.CompletedProcess[str]:
        """`shardfs ARGUMENTS` on this cluster; look at `returncode`, `stdout`, `stderr`.

        With `show_progress` its stderr goes where this process's goes.
        """
        return subprocess.run(
            [sys.executable, "-m", "shardfs", *map(str, arguments)],
            env=self._environment,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=None if show_progress else subprocess.PIPE,
            text=True,
            timeout=seconds,
            check=False,
        )

    def report(self, *arguments: str | Path, show_progress: bool = False) -> dict[str, Any]:
        """The JSON document of a reporting command. ShardfsError with what it said when it fails."""
        done = self.run(*arguments, "--json", show_progress=show_progress)
        if done.returncode:
            said = (done.stderr or "failed, see above").strip().removeprefix("shardfs: ")
            raise ShardfsError(f"shardfs {arguments[0]}: {said}")
        document = json.loads(done.stdout)
        assert isinstance(document, dict)
        return document

    def put(self, src: Path | str, name: str, *, show_progress: bool = False) -> dict[str, Any]:
        """Upload `src` as `name`; the report of `shardfs put`."""
        return self.report("put", src, name, show_progress=show_progress)

    # ----------------------------------------------------------------------------------------------------- mounts

    def mount(self, mountpoint: Path | str, *options: str) -> dict[str, Any]:
        """Mount, with a cache under `root` unless `options` say otherwise; the report of `shardfs mount`."""
        place = Path(mountpoint).absolute()
        place.mkdir(parents=True, exist_ok=True)
        extra = list(options)
        if not {"--cache", "--no-cache"} & {option.partition("=")[0] for option in extra}:
            extra += ["--cache", str(self.root / f"cache-{place.name}")]
        self._mounts[place] = self._spawn(["mount", str(place), "--foreground", "--json", *extra], self.log(place.name))
        return self._mounts[place].ready

    def umount(self, mountpoint: Path | str) -> None:
        """`shardfs umount`: drains, unmounts, and the daemon is gone."""
        place = Path(mountpoint).absolute()
        done = self.run("umount", place)
        if done.returncode:
            raise ShardfsError(done.stderr.strip().removeprefix("shardfs: "))
        if place in self._mounts:
            self._mounts.pop(place).stop()

    def mount_pid(self, mountpoint: Path | str) -> int:
        return self._mounts[Path(mountpoint).absolute()].pid

    # -------------------------------------------------------------------------------------------------- internals

    def _take_down(self, place: Path) -> None:
        """Unmount by all means: politely, then without waiting for whoever still reads."""
        self._mounts.pop(place).stop()
        if is_mounted(place):
            subprocess.run(["fusermount3", "-u", "-z", str(place)], capture_output=True, check=False)

    def _start_anywhere(self, node: str) -> None:
        try:
            self._start(node, self._ports.get(node, 0))
        except DidNotStart:
            if node not in self._ports:
                raise
            self._start(node, 0)  # somebody else has the port of the last time

    def _start(self, node: str, port: int) -> None:
        arguments = ["node", "--id", node, "--data", str(self.data(node)), "--listen", f"127.0.0.1:{port}", "--json"]
        child = self._spawn(arguments, self.log(node))
        self._nodes[node] = child
        self._ports[node] = urlsplit(child.ready["url"]).port or 0

    def _spawn(self, arguments: list[str], log: Path) -> Child:
        if self._children is None:
            raise RuntimeError("the local cluster is not running: use it as a context manager")
        return self._children.start(arguments, log)

    def _recall_ports(self) -> None:
        if self.cluster_file.exists():
            known = {node.id: urlsplit(node.url).port for node in load_cluster(self.cluster_file).nodes}
            self._ports = {node: port for node, port in known.items() if node in self.node_ids and port}

    def _write_cluster_file(self) -> None:
        text = f"replicas = {self.replicas}\n"
        for node in self.node_ids:
            text += f'\n[[nodes]]\nid = "{node}"\nurl = "http://127.0.0.1:{self._ports[node]}"\n'
        temporary = self.cluster_file.with_suffix(".new")
        temporary.write_text(text)
        temporary.replace(self.cluster_file)


def is_mounted(place: Path) -> bool:
    """Whether anything is mounted at exactly this place, dead mounts included."""
    octal = str(place).replace("\\", "\\134").replace(" ", "\\040").replace("\t", "\\011").replace("\n", "\\012")
    return octal in {line.split()[1] for line in Path("/proc/self/mounts").read_text().splitlines()}
