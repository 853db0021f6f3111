"""Whatever is done to the files between runs, or under a running cache: right bytes or a miss."""

import os
import random
import shutil
from collections.abc import Callable
from pathlib import Path

import pytest

from shardfs.cache import block_map
from tests.cache.samples import BLOCK, METADATA_SLACK, MIB, Sample, data_path, disk_bytes, map_path, open_cache, sample

ONE = sample(1, 8 * MIB + 777)
TWO = sample(2, 8 * MIB + 777)
BLOCKS = ONE.content.blocks
PAIR_OF_ONE, PAIR_OF_TWO = ({f"{s.content.digest}.data", f"{s.content.digest}.map"} for s in (ONE, TWO))


def overwrite(path: Path, offset: int, data: bytes) -> None:
    with path.open("r+b") as file:
        file.seek(offset)
        file.write(data)


def truncate(path: Path, size: int) -> None:
    os.truncate(path, size)


def swap(a: Path, b: Path) -> None:
    aside = a.with_suffix(".aside")
    a.rename(aside)
    b.rename(a)
    aside.rename(b)


def to_link(path: Path, target: Path) -> None:
    path.rename(target)
    path.symlink_to(target)


D, M = data_path, map_path
WHOLE_FILE_LOST: dict[str, Callable[[Path], object]] = {
    "data gone": lambda f: D(f, ONE.content).unlink(),
    "map gone": lambda f: M(f, ONE.content).unlink(),
    "data empty": lambda f: truncate(D(f, ONE.content), 0),
    "map empty": lambda f: truncate(M(f, ONE.content), 0),
    "data one byte short": lambda f: truncate(D(f, ONE.content), ONE.content.size - 1),
    "data one byte long": lambda f: truncate(D(f, ONE.content), ONE.content.size + 1),
    "map one word short": lambda f: truncate(M(f, ONE.content), ONE.content.map_bytes - 8),
    "map without its words": lambda f: truncate(M(f, ONE.content), 4096),
    "map within the header": lambda f: truncate(M(f, ONE.content), 40),
    "map one word long": lambda f: truncate(M(f, ONE.content), ONE.content.map_bytes + 8),
    "map of another version": lambda f: overwrite(M(f, ONE.content), 7, b"2"),
    "map of another block size": lambda f: overwrite(M(f, ONE.content), 8, b"\0\0\2\0"),
    "map with block size 0": lambda f: overwrite(M(f, ONE.content), 8, b"\0\0\0\0"),
    "map of another size": lambda f: overwrite(M(f, ONE.content), 48, b"\xff" * 8),
    "header check damaged": lambda f: overwrite(M(f, ONE.content), 64, b"\0"),
    "map says bla": lambda f: M(f, ONE.content).write_bytes(b"bla"),
    "map of another file": lambda f: shutil.copy(M(f, TWO.content), M(f, ONE.content)),
    "data is a link": lambda f: to_link(D(f, ONE.content), f / "aside"),
    "map is a link": lambda f: to_link(M(f, ONE.content), f / "aside"),
}


def filled(folder: Path) -> None:
    cache = open_cache(folder)
    for one in (ONE, TWO):
        file = cache.file(one.content)
        assert one.store(file)
        file.close()
    cache.close()


def held_after_restart(folder: Path, one: Sample) -> list[int]:
    cache = open_cache(folder)
    held = one.held(cache.file(one.content))
    cache.check()
    cache.close()
    return held


@pytest.mark.parametrize("damage", WHOLE_FILE_LOST.values(), ids=WHOLE_FILE_LOST.keys())
def test_a_doubtful_file_is_deleted_and_the_other_stays(tmp_path: Path, damage: Callable[[Path], object]) -> None:
    filled(tmp_path)
    damage(tmp_path)
    cache = open_cache(tmp_path)
    assert {path.name for path in (tmp_path / "files").glob("??/*")} == PAIR_OF_TWO
    file = cache.file(ONE.content)
    assert file.missing(0, BLOCKS) == 0
    assert ONE.store(file)
    assert ONE.holds(file)
    assert TWO.holds(cache.file(TWO.content))
    cache.check()
    cache.close()


def test_swapped_data_files_are_misses(tmp_path: Path) -> None:
    filled(tmp_path)
    swap(D(tmp_path, ONE.content), D(tmp_path, TWO.content))
    assert held_after_restart(tmp_path, ONE) == []
    assert held_after_restart(tmp_path, TWO) == []


def test_swapped_pairs_are_deleted(tmp_path: Path) -> None:
    filled(tmp_path)
    swap(D(tmp_path, ONE.content), D(tmp_path, TWO.content))
    swap(M(tmp_path, ONE.content), M(tmp_path, TWO.content))
    cache = open_cache(tmp_path)
    assert cache.statistics().files == 0
    assert disk_bytes(tmp_path) == 0
    cache.close()


def test_flipped_bits_cost_their_blocks_only(tmp_path: Path) -> None:
    filled(tmp_path)
    data, block_map_file = D(tmp_path, ONE.content), M(tmp_path, ONE.content)
    overwrite(data, 5 * BLOCK, bytes([ONE.plain[5 * BLOCK] ^ 1]))
    overwrite(data, ONE.content.size - 1, bytes([ONE.plain[-1] ^ 128]))
    overwrite(block_map_file, 4096 + 8 * 9, b"\0" * 8)
    overwrite(block_map_file, 4096 + 8 * 20, b"\1" * 8)
    cache = open_cache(tmp_path)
    file = cache.file(ONE.content)
    lost = {5, 9, 20, BLOCKS - 1}
    assert not ONE.holds(file)
    assert ONE.held(file) == [block for block in range(BLOCKS) if block not in lost]
    assert cache.statistics().corrupt_blocks == 3  # a word that says "absent" is no damage
    assert file.missing(0, BLOCKS) == 5
    cache.check()
    assert disk_bytes(tmp_path) <= cache.statistics().used_bytes + METADATA_SLACK
    assert ONE.store(file)
    assert ONE.holds(file)
    cache.close()
    assert held_after_restart(tmp_path, ONE) == list(range(BLOCKS))


@pytest.mark.parametrize("kept", [0, 1, BLOCK, 5 * BLOCK + 1])
def test_a_file_cut_short_under_a_running_cache(tmp_path: Path, kept: int) -> None:
    filled(tmp_path)
    cache = open_cache(tmp_path)
    file = cache.file(ONE.content)
    truncate(D(tmp_path, ONE.content), kept)
    assert not ONE.holds(file)
    assert ONE.held(file) == list(range(kept // BLOCK))
    assert ONE.store(file)
    assert ONE.holds(file)
    cache.check()
    cache.close()


def test_a_map_cut_short_between_two_opens(tmp_path: Path) -> None:
    filled(tmp_path)
    cache = open_cache(tmp_path)
    truncate(M(tmp_path, ONE.content), 5000)
    file = cache.file(ONE.content)
    assert ONE.held(file) == []
    assert not ONE.store(file)
    file.evict()
    file.close()
    assert ONE.store(cache.file(ONE.content))
    assert ONE.holds(cache.file(ONE.content))
    cache.check()
    cache.close()


def test_junk_and_orphans_are_deleted(tmp_path: Path) -> None:
    filled(tmp_path)
    shelf = tmp_path / "files" / str(ONE.content.digest)[:2]
    (shelf / "new.tmp").write_bytes(b"x" * 10000)
    (shelf / f"{TWO.content.digest}.map").write_bytes(b"on the wrong shelf")
    (shelf / "folder").mkdir()
    (tmp_path / "manifests" / ("0" * 64)).write_bytes(b"the catalog's")
    assert held_after_restart(tmp_path, ONE) == list(range(BLOCKS))
    assert {path.name for path in (tmp_path / "files").glob("??/*")} == PAIR_OF_ONE | PAIR_OF_TWO | {"folder"}
    assert (tmp_path / "manifests" / ("0" * 64)).exists()


def test_space_without_a_word_is_given_back(tmp_path: Path) -> None:
    cache = open_cache(tmp_path)
    file = cache.file(ONE.content)
    for block in (3, 40, BLOCKS - 1):
        assert ONE.store(file, block, block + 1)
    cache.close()
    # As a crash leaves it between data and words.
    with D(tmp_path, ONE.content).open("r+b") as data:
        data.write(ONE.plain)
    assert disk_bytes(tmp_path) > 8 * MIB
    cache = open_cache(tmp_path)
    assert disk_bytes(tmp_path) <= cache.statistics().used_bytes + METADATA_SLACK
    assert cache.statistics().used_bytes < 3 * BLOCK + 16384
    assert ONE.held(cache.file(ONE.content)) == [3, 40, BLOCKS - 1]
    cache.check()
    cache.close()


def test_a_thousand_random_scribbles(tmp_path: Path) -> None:
    """Every read compares its bytes, so a lie fails inside `held`."""
    chance = random.Random(7)
    hits = 0
    for _ in range(25):
        filled(tmp_path)
        for _ in range(40):
            path = chance.choice([D, M])(tmp_path, chance.choice([ONE, TWO]).content)
            at = chance.randrange(path.stat().st_size)
            overwrite(path, at, chance.randbytes(chance.randrange(1, 64)))
            if chance.random() < 0.01:
                truncate(path, at)
        cache = open_cache(tmp_path)
        for one in (ONE, TWO):
            hits += len(one.held(cache.file(one.content)))
        cache.check()
        assert disk_bytes(tmp_path) <= cache.statistics().used_bytes + MIB
        cache.close()
        shutil.rmtree(tmp_path / "files")
    assert 0 < hits < 25 * 2 * BLOCKS


def test_a_hash_of_zero_is_not_absence(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(block_map.xxhash, "xxh3_64_intdigest", lambda data: 0)
    cache = open_cache(tmp_path)
    file = cache.file(ONE.content)
    assert ONE.store(file)
    assert file.missing(0, BLOCKS) == BLOCKS
    assert ONE.holds(file)
    cache.close()
