"""A node that begins to refuse the credentials of a real mount: programs are told EACCES, the log says why."""

import errno
import os
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from shardfs.api.children import Children
from shardfs.api.local import LocalCluster
from tests.mount.kit import MiB

pytestmark = pytest.mark.fuse


@pytest.fixture
def children() -> Iterator[Children]:
    held = Children(dict(os.environ))
    yield held
    held.close()


def told(call: Callable[[], object]) -> str:
    """The errno that a program gets, by name."""
    try:
        call()
    except OSError as error:
        return errno.errorcode[error.errno or 0]
    return "nothing"


def test_a_node_that_is_started_again_with_another_token(top: Path, tmp_path: Path, children: Children) -> None:
    (tmp_path / "weights").write_bytes(os.urandom(2 * MiB))
    token = tmp_path / "token"
    token.write_text("another-token")
    token.chmod(0o600)
    seen, unseen = tmp_path / "seen", tmp_path / "unseen"
    with LocalCluster(tmp_path / "cluster", nodes=1, replicas=1) as cluster:
        for name in ("a", "b"):
            cluster.put(tmp_path / "weights", name)
        for mountpoint in (seen, unseen):
            cluster.mount(mountpoint, "--no-cache")
        ((node, data, port),) = cluster.places()
        with (seen / "a").open("rb", buffering=0) as file:
            cluster.stop(node)
            arguments = ["node", "--id", node, "--data", str(data), "--listen", f"127.0.0.1:{port}", "--json"]
            again = children.start([*arguments, "--token-file", str(token)], tmp_path / "log")
            try:
                assert told(lambda: file.read(1)) == "EACCES"
                assert told(lambda: os.listdir(unseen)) == "EACCES"
                assert told(lambda: os.stat(unseen / "b")) == "EACCES"
                assert told((unseen / "b").open) == "EACCES"
                assert os.listdir(seen) == ["a"], "what is known stays"
            finally:
                again.stop()
        assert "401" in cluster.log("seen").read_text()
        said = [line for line in cluster.log("unseen").read_text().splitlines() if "manifest" in line]
        assert said
        assert all("@1: manifest" in line and "a: " in line and "401" in line for line in said)
