"""Writes a file of torch.save with SIZE bytes of random tensors of 32 MiB: `torchfile.py PATH SIZE`."""

import importlib
import sys

import numpy as np

TENSOR_BYTES = 32 * 1024 * 1024


def main() -> None:
    torch = importlib.import_module("torch")
    path, size = sys.argv[1], int(sys.argv[2])
    chance = np.random.default_rng(2)
    tensors = {}
    for number, start in enumerate(range(0, size, TENSOR_BYTES)):
        content = bytearray(chance.bytes(min(TENSOR_BYTES, size - start)))
        tensors[f"layer.{number:05d}"] = torch.frombuffer(content, dtype=torch.uint8)
    torch.save(tensors, path)
    print("ready", flush=True)


if __name__ == "__main__":
    main()
