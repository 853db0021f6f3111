"""Fills a cache for ever, so that somebody can kill it: `python -m tests.cache.fill FOLDER SEED [STEPS]`.

Prints one line when the cache is open. One thread, so that the same seed makes the same system calls.
"""

import random
import sys
from pathlib import Path

from tests.cache.samples import BLOCK, MIB, open_cache, sample

LIMIT = 7 * MIB
SAMPLES = [sample(1, 5 * MIB), sample(2, 12 * MIB + 1), sample(3, 3 * BLOCK - 5)]


def fill(folder: Path, seed: int, steps: int) -> None:
    cache = open_cache(folder, LIMIT)
    print("open", flush=True)
    chance = random.Random(seed)
    while steps:
        steps -= 1
        one = chance.choice(SAMPLES)
        file = cache.file(one.content)
        for _ in range(4):
            first = chance.randrange(one.content.blocks)
            end = min(one.content.blocks, first + chance.choice([1, 3, 32]))
            if chance.random() < 0.8:
                one.store(file, first, end)
            else:
                one.holds(file, first, end)
        if chance.random() < 0.1:
            file.evict()
        file.close()
    cache.close()


if __name__ == "__main__":
    fill(Path(sys.argv[1]), int(sys.argv[2]), int(sys.argv[3]) if len(sys.argv) > 3 else -1)
