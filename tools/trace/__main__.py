"""Record every scenario with the kernel's window of 4096 KiB and of 128 KiB; one compressed file for each.

    python -m tools.trace FOLDER [NAME...]

A trace is gzipped JSON lines: first {"name", "kernel_kib", "chunk_size", "block_size", "files": [[path, size]...]},
then [start, took, file, offset, size] for each read, in the order of starting; microseconds since the first one.
Every read is answered `DELAY_SECONDS` late, so that what the kernel has under way at once is seen to be.
"""

import gzip
import json
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from shardfs.api.local import LocalCluster
from shardfs.core.chunk import BLOCK_SIZE, CHUNK_SIZE
from tools.trace import samples

DELAY_SECONDS = 0.004
VISIBLE_SECONDS_MAX = 20.0
ROOT = Path(__file__).parents[2]


@dataclass(frozen=True, slots=True)
class Scenario:
    """A loader, by its name in `loaders`, and what it reads."""

    name: str
    make: Callable[[Path], Path]


SCENARIOS = (
    Scenario("from_pretrained", samples.llama),
    Scenario("shards", samples.llama),
    Scenario("load_file", samples.safetensors),
    Scenario("name_order", samples.shuffled),
    Scenario("torch_mmap", samples.torch_file),
    Scenario("torch_read", samples.torch_file),
    Scenario("zip_header", samples.torch_file),
    Scenario("populate", samples.numpy_file),
    Scenario("memmap", samples.numpy_file),
    Scenario("memmap_rows", samples.numpy_file),
    Scenario("fork4", samples.numpy_file),
    Scenario("sequential", samples.numpy_file),
    Scenario("backwards", samples.numpy_file),
    Scenario("gguf_reader", samples.gguf_file),
    Scenario("random_4k", samples.plain_file),
    Scenario("random_256k", samples.plain_file),
    Scenario("strided", samples.plain_file),
)
KERNELS_KIB = (4096, 128)


def record(output: Path, chosen: list[Scenario]) -> None:
    """Make the samples, publish them once for each scenario, so that no page is shared, and load them."""
    with tempfile.TemporaryDirectory() as scratch, LocalCluster(Path(scratch) / "cluster", 1, 1) as cluster:
        sources: dict[str, Path] = {}
        for scenario in chosen:
            key = scenario.make.__name__
            if key not in sources:
                folder = Path(scratch) / key
                folder.mkdir()
                sources[key] = scenario.make(folder)
            cluster.put(sources[key], scenario.name)
        for kib in KERNELS_KIB:
            mountpoint, lines = Path(scratch) / f"m{kib}", Path(scratch) / f"{kib}.txt"
            cluster.mount(mountpoint, "--no-cache", "--trace", str(lines), "--trace-delay", str(DELAY_SECONDS))
            _set_kernel(mountpoint, kib)
            for scenario in chosen:
                _load(scenario, mountpoint / scenario.name)
            cluster.umount(mountpoint)
            for scenario in chosen:
                _write(output / f"{scenario.name}-{kib}.jsonl.gz", scenario, kib, sources, lines)


def _set_kernel(mountpoint: Path, kib: int) -> None:
    """What a mount without root has, or with it."""
    device = os.stat(mountpoint).st_dev
    Path(f"/sys/class/bdi/{os.major(device)}:{os.minor(device)}/read_ahead_kb").write_text(str(kib))
    background = Path(f"/sys/fs/fuse/connections/{os.minor(device)}/max_background")
    background.write_text("64" if kib > 128 else "12")


def _load(scenario: Scenario, place: Path) -> None:
    deadline = time.monotonic() + VISIBLE_SECONDS_MAX
    while not place.exists() and time.monotonic() < deadline:
        time.sleep(0.05)
    assert place.exists(), place
    print(scenario.name, flush=True)
    subprocess.run(
        [sys.executable, "-m", "tools.trace.loaders", scenario.name, place],
        check=True,
        cwd=ROOT,
        env=os.environ | {"HF_HUB_OFFLINE": "1", "OMP_NUM_THREADS": "1", "HF_HUB_DISABLE_PROGRESS_BARS": "1"},
    )


def _write(target: Path, scenario: Scenario, kib: int, sources: dict[str, Path], lines: Path) -> None:
    source = sources[scenario.make.__name__]
    files = [(str(p.relative_to(source)), p.stat().st_size) for p in source.rglob("*") if p.is_file()]
    files.sort(key=lambda file: file[0].encode())
    numbers = {path: number for number, (path, _) in enumerate(files)}
    reads = []
    for line in lines.read_text().splitlines():
        start, took, offset, size, name = line.split(" ", 4)
        model, _, path = name.partition("/")
        if model == scenario.name:
            size_left = files[numbers[path]][1] - int(offset)
            reads.append([int(start), int(took), numbers[path], int(offset), min(int(size), size_left)])
    reads.sort()
    header = {
        "name": scenario.name, "kernel_kib": kib, "chunk_size": CHUNK_SIZE, "block_size": BLOCK_SIZE, "files": files,
    }  # fmt: skip
    rows = [header, *([read[0] - reads[0][0], *read[1:]] for read in reads)]
    text = "".join(json.dumps(row, separators=(",", ":")) + "\n" for row in rows)
    target.write_bytes(gzip.compress(text.encode(), mtime=0))


if __name__ == "__main__":
    folder, names = Path(sys.argv[1]), sys.argv[2:]
    folder.mkdir(parents=True, exist_ok=True)
    record(folder, [s for s in SCENARIOS if not names or s.name in names])
