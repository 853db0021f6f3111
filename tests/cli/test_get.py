"""`shardfs get` against real nodes of which one part of the answers never comes."""

import re
import signal
import socket
import socketserver
import subprocess
import sys
import threading
from contextlib import contextmanager
from urllib.parse import urlsplit

import pytest

from shardfs.api.local import LocalCluster
from shardfs.config import load_cluster

MiB = 1024 * 1024
PROGRESS = re.compile(r"\d+ %")


class Gate(socketserver.ThreadingTCPServer):
    """In front of a node: passes every request on, but those for chunks never while `shut()` holds."""

    allow_reuse_address = True
    daemon_threads = True
    block_on_close = False

    def __init__(self, port, shut, holding):
        self.node = ("127.0.0.1", port)
        self.shut = shut
        self.held = 0
        self.holding = holding  # set when any gate of the cluster has something to hold
        super().__init__(("127.0.0.1", 0), Passing)


class Passing(socketserver.StreamRequestHandler):
    """One request and its answer, then the connection is closed."""

    def handle(self):
        head = b""
        while not head.endswith(b"\r\n\r\n"):
            line = self.rfile.readline(65536)
            if not line:
                return
            head += b"connection: close\r\n\r\n" if line == b"\r\n" else line
        if b"/chunks/" in head.splitlines()[0] and self.server.shut():
            self.server.held += 1
            self.server.holding.set()
            self.rfile.read()  # until the client has had enough
            return
        with socket.create_connection(self.server.node) as node:
            node.sendall(head)
            while piece := node.recv(65536):
                self.wfile.write(piece)


@contextmanager
def gates(cluster, cluster_file, shut):
    """A cluster file whose nodes are gates; yields them."""
    text = cluster.cluster_file.read_text()
    opened = []
    holding = threading.Event()
    try:
        for node in load_cluster(cluster.cluster_file).nodes:
            gate = Gate(urlsplit(node.url).port, shut, holding)
            threading.Thread(target=gate.serve_forever, daemon=True).start()
            opened.append(gate)
            text = text.replace(node.url, f"http://127.0.0.1:{gate.server_address[1]}")
        cluster_file.write_text(text)
        yield opened
    finally:
        for gate in opened:
            gate.shutdown()
            gate.server_close()


@pytest.fixture(scope="module")
def model(tmp_path_factory):
    folder = tmp_path_factory.mktemp("model")
    (folder / "first").write_bytes(b"first" * MiB)
    (folder / "second").write_bytes(b"second" * MiB)
    return folder


@pytest.fixture(scope="module")
def cluster(tmp_path_factory, model):
    with LocalCluster(tmp_path_factory.mktemp("cluster"), nodes=3, replicas=2) as running:
        running.put(model, "m")
        yield running


def test_when_all_nodes_hang_it_ends_and_a_second_run_goes_on(cluster, model, tmp_path):
    dest = tmp_path / "dest"
    gated = tmp_path / "gated.toml"
    with gates(cluster, gated, shut=(dest / "first").exists) as opened:
        done = cluster.run("get", "m", dest, "--timeout", "1", "--cluster", gated)
    assert sum(gate.held for gate in opened) > 0, "the fault did not hit"
    assert (done.returncode, done.stdout) == (1, "")
    *before, said = done.stderr.splitlines()
    assert said.startswith("shardfs: second: no block of 256 KiB has come for 1 s")
    assert "goes on from there" in said
    assert [line for line in before if not PROGRESS.match(line)] == [], "the engine may not say it as well"
    assert [path.name for path in dest.iterdir()] == ["first"]  # and nothing of the second, of which nothing came
    again = cluster.report("get", "m", dest)
    assert (again["bytes_present"], again["bytes_fetched"]) == (5 * MiB, 6 * MiB)
    assert (dest / "second").read_bytes() == (model / "second").read_bytes()


def test_a_gate_that_is_open_is_no_fault(cluster, model, tmp_path):
    """So that the other test says something."""
    with gates(cluster, tmp_path / "gated.toml", shut=lambda: False):
        done = cluster.run("get", "m", tmp_path / "dest", "--timeout", "60", "--cluster", tmp_path / "gated.toml")
    assert done.returncode == 0, done.stderr
    assert (tmp_path / "dest" / "second").read_bytes() == (model / "second").read_bytes()


@pytest.mark.parametrize(("number", "status"), [(signal.SIGINT, 130), (signal.SIGTERM, 143)])
def test_a_signal_stops_it_and_it_goes_on_from_there(cluster, model, tmp_path, number, status):
    dest = tmp_path / "dest"
    gated = tmp_path / "gated.toml"
    with gates(cluster, gated, shut=(dest / "first").exists) as opened:
        command = [sys.executable, "-m", "shardfs", "get", "m", str(dest), "--cluster", str(gated)]
        process = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
        assert opened[0].holding.wait(100)
        process.send_signal(number)
        stdout, stderr = process.communicate(timeout=100)
    assert (process.returncode, stdout) == (status, "")
    said = [line for line in stderr.splitlines() if not PROGRESS.match(line)]
    assert said == ["shardfs: stopped; the same command goes on from here"]
    assert cluster.report("get", "m", dest)["bytes_present"] == 5 * MiB
    assert (dest / "second").read_bytes() == (model / "second").read_bytes()


@pytest.mark.parametrize("timeout", ["0", "nan", "soon"])
def test_a_timeout_that_cannot_be(cluster, tmp_path, timeout):
    done = cluster.run("get", "m", tmp_path / "dest", "--timeout", timeout)
    assert (done.returncode, done.stdout) == (2, "")
    assert "--timeout" in done.stderr
    assert not (tmp_path / "dest").exists()
