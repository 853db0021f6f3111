"""The real servers of a test session: where they are, how to open them, how to kill and bring back one process."""

import json
import os
import signal
import subprocess
import sys
from pathlib import Path
from typing import Any

from shardfs.core.cluster import Node
from shardfs.store.base import Store
from shardfs.wiring.engines import open_store

ROOT = Path(__file__).resolve().parents[2]
TOOL = ROOT / "tools" / "engines"
ENVIRONMENT = dict(os.environ)
"""As it was before tests changed it: the tool finds its downloads by it."""


class Engine:
    """One engine that `tools/engines` has started below `folder`."""

    def __init__(self, name: str, folder: Path) -> None:
        self.name = name
        self.folder = folder
        self.about: dict[str, Any] = {}

    def _call(self, action: str) -> str:
        """Why it cannot be had; empty when it can."""
        command = [sys.executable, str(TOOL), action, self.name, "--dir", str(self.folder), "--json"]
        done = subprocess.run(command, capture_output=True, text=True, check=False, env=ENVIRONMENT)
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

    def send(self, process: str, number: signal.Signals) -> None:
        os.kill(self.about["processes"][process], number)

    def kill(self, process: str) -> None:
        """At once. `start` brings it back."""
        self.send(process, signal.SIGKILL)
