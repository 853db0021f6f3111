"""The pages in docs/how-to are true: their shell blocks, run as written, one after the other in one shell."""

import os
import re
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.documents import blocks, without_blocks
from tests.engines.kit import ENVIRONMENT, ROOT

pytestmark = [
    pytest.mark.engines,
    pytest.mark.fuse,
    pytest.mark.skipif(not os.access("/dev/fuse", os.R_OK | os.W_OK), reason="left out: /dev/fuse cannot be opened"),
]
PAGES = sorted((ROOT / "docs" / "how-to").glob("*.md"))
DOWNLOADS = (
    Path(ENVIRONMENT.get("XDG_CACHE_HOME") or Path(ENVIRONMENT["HOME"]) / ".cache") / "shardfs-engines/downloads"
)
SAID = {
    "s3": [r"^generation +1 \(unchanged: it has this content\)$"],  # what the bucket has is used by the second cluster
    "nginx": [r"^answering +1 of 2 nodes; 2 are needed to publish$"],  # the last read is without the server
}
"""What the programs of a page must have printed besides, as lines."""


@pytest.fixture
def shell(tmp_path: Path) -> Iterator[dict[str, str]]:
    """The environment of somebody who has this checkout and nothing else; what was started there is stopped."""
    (tmp_path / "tools").symlink_to(ROOT / "tools")
    environment = {
        "PATH": os.pathsep.join([str(Path(sys.executable).parent), ENVIRONMENT["PATH"]]),
        "HOME": str(tmp_path),
        "SHARDFS_ENGINES_DOWNLOADS": ENVIRONMENT.get("SHARDFS_ENGINES_DOWNLOADS", str(DOWNLOADS)),
    }
    yield environment
    models = tmp_path / "models"
    if models.is_mount():
        subprocess.run(["fusermount3", "-uz", str(models)], check=False)
    subprocess.run(["tools/engines", "stop"], cwd=tmp_path, env=environment, check=True, stdout=subprocess.DEVNULL)


def test_there_are_pages_with_commands() -> None:
    assert {page.stem for page in PAGES} >= {"s3", "hdfs", "nginx"}
    assert all(any(info == "sh" for info, _ in blocks(page)) for page in PAGES)


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.stem)
def test_as_written(page: Path, shell: dict[str, str], tmp_path: Path) -> None:
    script = "\n".join(text for info, text in blocks(page) if info == "sh")
    # `set -e` makes the first command that fails the end; -x shows which one it was.
    with (tmp_path / "said").open("wb") as said:
        done = subprocess.run(
            ["bash", "-euxo", "pipefail", "-c", script], cwd=tmp_path, env=shell, check=False, stdout=said, stderr=said
        )
    lines = (tmp_path / "said").read_text()
    assert done.returncode == 0, lines[-3000:]
    for line in SAID.get(page.stem, []):
        assert re.search(line, lines, re.MULTILINE), (line, lines[-3000:])


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.stem)
def test_every_command_is_run_but_for_those_of_other_servers(page: Path) -> None:
    """What is only indented is not run: settings that name somebody's own server, and nothing else."""
    shown = without_blocks(page).splitlines()
    assert [line for line in shown if re.match(r"    \s*(shardfs|tools/|curl)\b", line)] == []
