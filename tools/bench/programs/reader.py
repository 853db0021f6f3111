"""Reads a file the way a program would, and says how long it took: `reader.py HOW PATH [OFFSET LENGTH]`.

    read     1 MiB reads into one buffer        mmap       copies 1 MiB pieces out of a private mapping
    around   read, from OFFSET to the end and then from the beginning to OFFSET: all of it
    sha256   read, with the digest; says `half` in a line of its own when it is half way
    first    opens and reads one byte        stat, list    asks for the attributes, or the entries of a folder
    random   LENGTH reads of 4 to 256 KiB all over the file, chosen by the seed OFFSET
    numpy, torch-safetensors    safetensors' load_file          torch    torch.load(mmap=True)

Loaders that only map the file are made to touch every page of every tensor: that is what using it costs.
"""

import hashlib
import importlib
import json
import mmap
import os
import random
import sys
import time
from collections.abc import Callable
from typing import Any

STEP = 1024 * 1024

Work = Callable[[str, int, int], dict[str, object]]


def by_read(path: str, offset: int, length: int) -> dict[str, object]:
    buffer = memoryview(bytearray(STEP))
    left = length
    with open(path, "rb", buffering=0) as file:
        file.seek(offset)
        while left and (count := file.readinto(buffer[: min(STEP, left)])):
            left -= count
    return {"bytes": length - left}


def by_around(path: str, offset: int, _length: int) -> dict[str, object]:
    """All of the file, whose size is looked up when it starts."""
    done = 0
    for start, end in ((offset, os.stat(path).st_size), (0, offset)):
        done += int(str(by_read(path, start, end - start)["bytes"]))
    return {"bytes": done}


def by_mmap(path: str, offset: int, length: int) -> dict[str, object]:
    buffer = memoryview(bytearray(STEP))
    with open(path, "rb") as file, mmap.mmap(file.fileno(), 0, mmap.MAP_PRIVATE, mmap.PROT_READ) as mapped:
        view = memoryview(mapped)
        for at in range(offset, offset + length, STEP):
            count = min(STEP, offset + length - at)
            buffer[:count] = view[at : at + count]
        view.release()
    return {"bytes": length}


def by_sha256(path: str, offset: int, length: int) -> dict[str, object]:
    buffer = memoryview(bytearray(STEP))
    digest = hashlib.sha256()
    done, said = 0, False
    with open(path, "rb", buffering=0) as file:
        file.seek(offset)
        while done < length and (count := file.readinto(buffer[: min(STEP, length - done)])):
            digest.update(buffer[:count])
            done += count
            if not said and done * 2 >= length:
                said = True
                print("half", flush=True)
    return {"bytes": done, "sha256": digest.hexdigest()}


def by_first(path: str, _offset: int, _length: int) -> dict[str, object]:
    with open(path, "rb", buffering=0) as file:
        return {"bytes": len(file.read(1))}


def by_stat(path: str, _offset: int, _length: int) -> dict[str, object]:
    return {"bytes": os.stat(path).st_size}


def by_list(path: str, _offset: int, _length: int) -> dict[str, object]:
    return {"bytes": len(os.listdir(path))}


def by_random(path: str, seed: int, reads: int) -> dict[str, object]:
    chance = random.Random(seed)
    done = 0
    with open(path, "rb", buffering=0) as file:
        size = os.fstat(file.fileno()).st_size
        for _ in range(reads):
            done += len(os.pread(file.fileno(), chance.choice((4, 64, 256)) * 1024, chance.randrange(size)))
    return {"bytes": done}


WHOLE = ("read", "mmap", "sha256")  # these need to know how much there is

PLAIN: dict[str, Work] = {
    "read": by_read,
    "around": by_around,
    "mmap": by_mmap,
    "sha256": by_sha256,
    "first": by_first,
    "stat": by_stat,
    "list": by_list,
    "random": by_random,
}


def by_numpy() -> Work:
    load_file = importlib.import_module("safetensors.numpy").load_file

    def work(path: str, _offset: int, _length: int) -> dict[str, object]:
        tensors = load_file(path)
        return {"bytes": sum(tensor.nbytes for tensor in tensors.values())}

    return work


def by_torch_safetensors() -> Work:
    load_file = importlib.import_module("safetensors.torch").load_file

    def work(path: str, _offset: int, _length: int) -> dict[str, object]:
        return {"bytes": touch_tensors(load_file(path))}

    return work


def by_torch() -> Work:
    torch = importlib.import_module("torch")

    def work(path: str, _offset: int, _length: int) -> dict[str, object]:
        return {"bytes": touch_tensors(torch.load(path, mmap=True, weights_only=True))}

    return work


def touch_tensors(tensors: dict[str, Any]) -> int:
    """Read one byte of every page of every tensor; their size in bytes."""
    size = 0
    for tensor in tensors.values():
        flat = tensor.numpy().reshape(-1).view("u1")
        int(flat[:: mmap.PAGESIZE].sum())
        size += flat.nbytes
    return size


def main() -> None:
    how, path, *span = sys.argv[1:]
    loaders = {"numpy": by_numpy, "torch-safetensors": by_torch_safetensors, "torch": by_torch}
    work = PLAIN[how] if how in PLAIN else loaders[how]()
    print("ready", flush=True)
    sys.stdin.readline()
    started = time.monotonic()
    answer: dict[str, object]
    try:
        offset = int(span[0]) if span else 0
        length = int(span[1]) if len(span) > 1 else os.stat(path).st_size if how in WHOLE else 0
        answer = work(path, offset, length)
    except OSError as error:
        answer = {"error": error.strerror, "errno": error.errno}
    print(json.dumps(answer | {"started": started, "ended": time.monotonic()}), flush=True)


if __name__ == "__main__":
    main()
