"""Programs that read one model each; run as `python -m tools.trace.loaders NAME FOLDER`.

Real libraries where a library is what is studied, plain system calls where a way of reading is.
"""

import mmap
import os
import random
import subprocess
import sys
import zipfile
from pathlib import Path
from typing import Any

MIB = 2**20
READERS = Path(__file__).parents[2] / "tests" / "frameworks" / "readers.py"


def from_pretrained(folder: Path) -> None:
    """transformers, every weight looked at afterwards."""
    from transformers import LlamaForCausalLM

    _sum(LlamaForCausalLM.from_pretrained(folder).state_dict().values())


def load_file(folder: Path) -> None:
    from safetensors.torch import load_file as load

    _sum(load(folder / "model.safetensors").values())


def shards(folder: Path) -> None:
    """Shard after shard in the order of their names, as inference engines load them."""
    from safetensors.torch import load_file as load

    for path in sorted(folder.glob("*.safetensors")):
        _sum(load(path).values())


def name_order(folder: Path) -> None:
    """safetensors one by one, sorted by name."""
    from safetensors import safe_open

    with safe_open(folder / "model.safetensors", framework="pt") as opened:
        for name in sorted(opened.keys()):
            _sum([opened.get_tensor(name)])


def torch_mmap(folder: Path) -> None:
    import torch

    _sum(torch.load(folder / "weights.pt", mmap=True, weights_only=True).values())


def torch_read(folder: Path) -> None:
    import torch

    _sum(torch.load(folder / "weights.pt", mmap=False, weights_only=True).values())


def zip_header(folder: Path) -> None:
    """Only the directory of torch's zip: its end, then its first entries."""
    with zipfile.ZipFile(folder / "weights.pt") as archive:
        for entry in archive.infolist()[:2]:
            archive.read(entry)


def populate(folder: Path) -> None:
    """llama.cpp's way: advice to the kernel, the whole file mapped and populated, then read in order."""
    with (folder / "rows.npy").open("rb") as file:
        os.posix_fadvise(file.fileno(), 0, 0, os.POSIX_FADV_SEQUENTIAL)
        flags = mmap.MAP_SHARED | mmap.MAP_POPULATE
        with mmap.mmap(file.fileno(), 0, flags=flags, prot=mmap.PROT_READ) as mapped:
            mapped.madvise(mmap.MADV_WILLNEED)
            for at in range(0, len(mapped), 4096):
                mapped[at]


def memmap(folder: Path) -> None:
    import numpy as np

    rows = np.load(folder / "rows.npy", mmap_mode="r")
    for at in range(0, len(rows), 64):
        rows[at : at + 64].sum()


def memmap_rows(folder: Path) -> None:
    """Sixty rows of 16 KiB here and there, as in a lookup of embeddings."""
    import numpy as np

    rows = np.load(folder / "rows.npy", mmap_mode="r")
    for at in np.random.default_rng(1).integers(0, len(rows), 60):
        rows[at].sum()


def fork4(folder: Path) -> None:
    """Four processes, one descriptor, each a quarter."""
    subprocess.run([sys.executable, READERS, "fork", folder / "rows.npy"], check=True, stdout=subprocess.DEVNULL)


def gguf_reader(folder: Path) -> None:
    import gguf

    for tensor in gguf.GGUFReader(folder / "model.gguf").tensors:
        tensor.data.sum()


def sequential(folder: Path) -> None:
    """128 KiB at a time, as `cp` does."""
    _pread(folder / "rows.npy", range(0, 96 * MIB, 128 * 1024), 128 * 1024)


def backwards(folder: Path) -> None:
    _pread(folder / "rows.npy", range(95 * MIB, -1, -MIB), MIB)


def random_4k(folder: Path) -> None:
    places = random.Random(1).sample(range(256 * MIB // 4096), 300)
    _pread(folder / "plain.bin", [place * 4096 for place in places], 4096)


def random_256k(folder: Path) -> None:
    """At multiples of 4 KiB."""
    chance = random.Random(2)
    _pread(folder / "plain.bin", [chance.randrange(255 * MIB // 4096) * 4096 for _ in range(150)], 256 * 1024)


def strided(folder: Path) -> None:
    """One rank of two: half of each tensor, 1 MiB read and 1 MiB passed over."""
    _pread(folder / "plain.bin", [at + part for at in range(0, 192 * MIB, 2 * MIB) for part in (0, MIB // 2)], MIB // 2)


def _pread(path: Path, offsets: Any, size: int) -> None:
    descriptor = os.open(path, os.O_RDONLY)
    for offset in offsets:
        os.pread(descriptor, size, offset)
    os.close(descriptor)


def _sum(tensors: Any) -> None:
    for tensor in tensors:
        tensor.float().sum()


if __name__ == "__main__":
    globals()[sys.argv[1]](Path(sys.argv[2]))
