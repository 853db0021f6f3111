"""`tools/engines` itself: idempotent, ready when it returns, and clear about what it lacks."""

import os
import shutil
import signal
import socket
import subprocess
import sys
from pathlib import Path
from urllib.parse import urlsplit

import pytest

from tests.engines.kit import ENVIRONMENT, TOOL, Engine, tool

pytestmark = pytest.mark.engines


@pytest.fixture
def lone(tmp_path: Path):
    engine = Engine("nginx", tmp_path)
    yield engine
    engine.stop()


def test_start_is_idempotent_and_stop_leaves_nothing(lone: Engine) -> None:
    assert lone.start() == ""
    first = lone.about
    assert first["state"] == "running"
    lone.start()
    assert lone.about == first
    address = (urlsplit(first["url"]).hostname, urlsplit(first["url"]).port)
    socket.create_connection(address).close()
    lone.stop()
    assert lone.about["state"] == "stopped"
    assert lone.about["processes"] == {}
    with pytest.raises(ConnectionRefusedError):
        socket.create_connection(address)
    lone.stop()
    lone.start()
    assert lone.about["url"] == first["url"], "ports stay"


def test_what_died_is_started_again(lone: Engine) -> None:
    lone.start()
    first = lone.about["processes"]["nginx"]
    os.kill(first, signal.SIGKILL)  # its workers live on, and hold the port
    lone.start()
    assert lone.about["processes"]["nginx"] != first
    socket.create_connection(("127.0.0.1", urlsplit(lone.url).port)).close()


def test_exports_can_be_evaluated(lone: Engine, tmp_path: Path) -> None:
    lone.start()
    done = tool("status", "nginx", "--dir", str(tmp_path), "--sh")
    script = f'{done.stdout}\nprintf "%s %s" "$NGINX_URL" "$DAV_TOKEN"'
    said = subprocess.run(["sh", "-euc", script], capture_output=True, text=True, check=True).stdout
    assert said == f"{lone.url} tester:testing"


def test_without_java(tmp_path: Path) -> None:
    """Only who asks for HDFS, and CI, must not go without."""
    programs = tmp_path / "bin"
    programs.mkdir()
    for name in ("python3", "nginx"):
        found = sys.executable if name == "python3" else shutil.which("nginx", path="/usr/sbin:/usr/bin")
        if found:
            (programs / name).symlink_to(found)
    bare = {**ENVIRONMENT, "PATH": str(programs)}
    bare.pop("CI", None)
    done = tool("start", "hdfs", "--dir", str(tmp_path / "e"), environment=bare)
    assert done.returncode == 1
    assert "hdfs: Java is missing" in done.stderr
    assert len(done.stderr.splitlines()) == 1


def test_wrong_usage() -> None:
    assert tool("begin", "s3").returncode == 2
    assert tool("start", "ftp").returncode == 2
    assert os.access(TOOL, os.X_OK)
