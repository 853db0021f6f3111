"""What must hold for plain programs that know nothing of models: they see the folder that was published."""

import filecmp
import io
import os
import shutil
import subprocess
import tarfile
from pathlib import Path

from tests.frameworks.samples import NEEDLE


def _contents(folder: Path) -> dict[str, bytes]:
    return {str(path.relative_to(folder)): path.read_bytes() for path in folder.rglob("*") if path.is_file()}


def _run(folder: Path, *command: str) -> bytes:
    """What a program run inside `folder` in the C locale prints; it must succeed and not complain."""
    done = subprocess.run(command, cwd=folder, check=True, capture_output=True, env={**os.environ, "LC_ALL": "C"})
    assert done.stderr == b"", done.stderr
    return done.stdout


def _assert_same_folder(local: Path, copy: Path) -> None:
    names = list(_contents(local))
    equal, different, unreadable = filecmp.cmpfiles(local, copy, names, shallow=False)
    assert (different, unreadable, len(equal)) == ([], [], len(names))
    assert set(_contents(copy)) == set(names)


def check_copies(local: Path, mounted: Path, scratch: Path) -> None:
    """`filecmp` in place, `shutil.copytree` and `cp -r` all give the published files."""
    _assert_same_folder(local, mounted)
    shutil.copytree(mounted, scratch / "copytree")
    _assert_same_folder(local, scratch / "copytree")
    _run(scratch, "cp", "-r", str(mounted), "cp")
    _assert_same_folder(local, scratch / "cp")


def check_commands(local: Path, mounted: Path) -> None:
    """`find`, `sha256sum` and `grep` print the same on the mount as on the local folder."""
    for command in (
        "find . -mindepth 1 -printf '%P %y\\n' | sort",
        "find . -type f -printf '%P %s\\n' | sort",
        "find . -type f -print0 | sort -z | xargs -0 sha256sum --",
        f"grep -rn '{NEEDLE}' . | sort",
        "grep -rc hidden_size --include=*.json .",
    ):
        expected = _run(local, "sh", "-c", command)
        assert expected, command
        assert _run(mounted, "sh", "-c", command) == expected, command


def check_tar(local: Path, mounted: Path) -> None:
    """`tar cf` of the mounted folder holds every published file and nothing else."""
    with tarfile.open(fileobj=io.BytesIO(_run(mounted, "tar", "cf", "-", "."))) as archive:
        files = [member for member in archive if member.isfile()]
        packed = {os.path.normpath(member.name): archive.extractfile(member).read() for member in files}  # type: ignore[union-attr]
    assert packed == _contents(local)
