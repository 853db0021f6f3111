"""A process killed at any system call of a put leaves the object whole or absent; what it acknowledged stays."""

import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from shardfs.core.keys import parse_key
from shardfs.core.objects import verify_object
from shardfs.store.folder import Folder
from shardfs.store.folder_upload import Upload
from shardfs.testing.samples import sample_chunk

SAMPLE = sample_chunk(1, 3_000_000)
PUT = """
import sys
from pathlib import Path
from shardfs.store.folder import Folder
from shardfs.store.folder_upload import Upload
from shardfs.testing.samples import sample_chunk
sample = sample_chunk(1, 3_000_000)
with Upload(Folder(Path(sys.argv[1])), sample.key, len(sample.data)) as upload:
    for at in range(0, len(sample.data), 1 << 20):
        upload.write(sample.data[at : at + (1 << 20)])
    print(upload.publish(), flush=True)
"""
CALLS = ["mkdir", "mkdirat", "pwrite64", "write", "preadv", "fsync", "linkat", "unlinkat"]


def put_under_strace(root: Path, *options: str) -> subprocess.CompletedProcess[str]:
    command = ["strace", "-f", "-o", "/dev/null", *options, sys.executable, "-c", PUT, str(root)]
    return subprocess.run(command, capture_output=True, text=True, timeout=200, check=False)


def can_trace() -> bool:
    if shutil.which("strace") is None:
        return False
    run = subprocess.run(["strace", "-o", "/dev/null", "true"], capture_output=True, check=False)
    return run.returncode == 0


@pytest.mark.slow
@pytest.mark.skipif(not can_trace(), reason="needs strace, and the right to trace")
def test_killed_at_every_call(tmp_path: Path) -> None:
    killed = acknowledged = absent = 0
    for call in CALLS:
        for nth in range(1, 20):
            root = tmp_path / f"{call}-{nth}"
            run = put_under_strace(root, "-e", f"trace={call}", "-e", f"inject={call}:signal=KILL:when={nth}")
            if run.returncode == 0:
                assert run.stdout == "True\n"
                break
            assert run.stderr == ""
            killed += 1
            keys = Folder(root).keys("", "", 10)
            assert keys in ([], [SAMPLE.key])
            for key in keys:
                verify_object(parse_key(key), (root / key).read_bytes())
            if run.stdout:
                acknowledged += 1
                assert keys == [SAMPLE.key]
            absent += not keys
            with Upload(Folder(root), SAMPLE.key, len(SAMPLE.data)) as upload:
                upload.write(SAMPLE.data)
                assert upload.publish() is not bool(keys)
    # The test itself is at fault when nothing was at risk.
    assert killed >= 12
    assert absent >= 8
    assert acknowledged >= 1
