"""A cluster of folders in a temporary place, and the command line on it, in this process."""

import json

import pytest
from click.testing import CliRunner

from shardfs.cli import main


class Shell:
    """`shell("ls", "-l")` runs a command on the cluster of folders a, b, c."""

    def __init__(self, root):
        self.root = root
        self.cluster_file = root / "cluster.toml"
        self.write()

    def write(self, nodes="abc", extra=""):
        text = "replicas = 2\n"
        for node in nodes:
            (self.root / node).mkdir(exist_ok=True)
            text += f'[[nodes]]\nid = "{node}"\nurl = "file://{self.root / node}"\n'
        self.cluster_file.write_text(text + extra)

    def __call__(self, *arguments, stdin=None):
        environment = {"SHARDFS_CLUSTER": str(self.cluster_file)}
        return CliRunner().invoke(main, list(map(str, arguments)), prog_name="shardfs", env=environment, input=stdin)

    def json(self, *arguments):
        done = self(*arguments, "--json")
        assert done.exit_code == 0, done.stderr
        return json.loads(done.stdout)


@pytest.fixture
def shell(tmp_path):
    return Shell(tmp_path)


@pytest.fixture
def models(shell, tmp_path):
    """Two generations of `one`, a folder `team/bert` with a hole."""
    source = tmp_path / "source"
    source.mkdir()
    (source / "config.json").write_text("{}")
    with (source / "weights.bin").open("wb") as file:
        file.write(b"weights" * 1000)
        file.truncate(12 * 1024 * 1024)
    for text in ("first", "second"):
        (tmp_path / "one").write_text(text)
        shell.json("put", tmp_path / "one", "one")
    shell.json("put", source, "team/bert")
    return shell
