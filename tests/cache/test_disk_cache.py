"""The disk cache in one thread: what is stored comes back, within the limit, and across restarts."""

import time
from pathlib import Path

import pytest

from shardfs.cache import Content
from shardfs.core.digest import digest_of
from tests.cache.samples import (
    BLOCK,
    KIB,
    MIB,
    Clock,
    aligned,
    data_path,
    descriptors,
    disk_bytes,
    map_path,
    open_cache,
    sample,
)


@pytest.mark.parametrize("size", [1, BLOCK - 1, BLOCK, BLOCK + 1, 10 * MIB, 10 * MIB + 12345])
def test_a_complete_file_is_byte_for_byte_the_model_file(tmp_path: Path, size: int) -> None:
    one = sample(1, size)
    cache = open_cache(tmp_path)
    file = cache.file(one.content)
    assert file.missing(0, one.content.blocks) == 0
    assert not one.holds(file)
    assert one.store(file)
    assert file.missing(0, one.content.blocks) == one.content.blocks
    assert file.present_bytes() == size
    assert one.holds(file)
    assert data_path(tmp_path, one.content).read_bytes() == one.plain
    cache.check()
    assert disk_bytes(tmp_path) <= cache.statistics().used_bytes
    file.close()
    cache.close()


def test_blocks_come_and_are_missing_one_by_one(tmp_path: Path) -> None:
    one = sample(1, 200 * BLOCK - 77)
    cache = open_cache(tmp_path)
    file = cache.file(one.content)
    for block in (3, 4, 70, 199):
        assert one.store(file, block, block + 1)
    assert one.held(file) == [3, 4, 70, 199]
    assert [file.missing(*span) for span in ((0, 200), (3, 5), (3, 6), (199, 200), (5, 5))] == [0, 5, 5, 200, 5]
    assert not one.holds(file, 3, 6)
    assert one.store(file, 2, 6)  # two of them were there
    assert one.holds(file, 2, 6)
    assert file.present_bytes() == 6 * BLOCK - 77
    cache.check()
    cache.close()


def test_a_buffer_that_is_not_aligned_is_stored_all_the_same(tmp_path: Path) -> None:
    one = sample(1, 3 * MIB + 5)
    cache = open_cache(tmp_path)
    file = cache.file(one.content)
    shifted = aligned(len(one.plain) + 1)[1:]
    shifted[:] = one.plain
    assert file.write(0, shifted)
    assert one.holds(file)
    cache.close()


def test_a_request_that_is_not_whole_blocks_is_a_mistake_of_the_caller(tmp_path: Path) -> None:
    cache = open_cache(tmp_path)
    file = cache.file(sample(1, 2 * BLOCK + 10).content)
    for first, length in ((0, BLOCK - 1), (2, 11), (2, 9), (3, 1), (-1, BLOCK), (0, 3 * BLOCK)):
        with pytest.raises(ValueError, match="cache file"):
            file.read(first, aligned(length))
        with pytest.raises(ValueError, match="cache file"):
            file.write(first, aligned(length))
    cache.close()


def test_the_same_content_is_the_same_file_while_it_is_open(tmp_path: Path) -> None:
    one = sample(1, BLOCK)
    cache = open_cache(tmp_path)
    first, second = cache.file(one.content), cache.file(one.content)
    assert first is second
    first.close()
    assert one.store(second)
    assert one.holds(second)
    second.close()
    assert cache.statistics().files == 1
    again = cache.file(one.content)
    assert one.holds(again)
    again.close()
    second.close()  # once too often
    assert not one.holds(second)
    assert not one.store(second)
    cache.check()
    cache.close()


def test_a_file_that_stays_empty_leaves_nothing_behind(tmp_path: Path) -> None:
    cache = open_cache(tmp_path)
    cache.file(sample(1, BLOCK).content).close()
    one = sample(2, 9 * MIB)
    file = cache.file(one.content)
    one.store(file)
    assert file.evict() == 9 * MIB
    assert file.missing(0, 1) == 0
    file.close()
    assert cache.statistics().files == 0
    assert cache.statistics().used_bytes == 0
    assert not list((tmp_path / "files").glob("??/*"))
    cache.close()


@pytest.mark.parametrize(("size", "block_size"), [(0, BLOCK), (5000, 5000), (2**60, BLOCK)])
def test_what_cannot_be_cached_is_a_file_without_blocks(tmp_path: Path, size: int, block_size: int) -> None:
    cache = open_cache(tmp_path)
    file = cache.file(Content(digest_of(b"x"), size, block_size))
    assert file.missing(0, 1) == 0
    assert file.present_bytes() == 0
    if size == block_size == 5000:
        assert not file.write(0, aligned(5000))
        assert not file.read(0, aligned(5000))
    file.touch()
    file.close()
    assert not list((tmp_path / "files").glob("??/*"))
    cache.close()


def test_a_content_without_sense_is_refused() -> None:
    for size, block_size in ((1, 0), (-1, BLOCK)):
        with pytest.raises(ValueError, match="size"):
            Content(digest_of(b"x"), size, block_size)


def test_the_same_digest_with_other_blocks_replaces_what_nobody_uses(tmp_path: Path) -> None:
    one = sample(1, MIB)
    other = Content(one.content.digest, MIB, 2 * BLOCK)
    cache = open_cache(tmp_path)
    file = cache.file(one.content)
    one.store(file)
    apart = cache.file(other)
    assert apart.missing(0, 8) == 0
    assert not apart.write(0, one.plain)
    apart.close()
    assert one.holds(file)
    file.close()
    replaced = cache.file(other)
    assert replaced.missing(0, 8) == 0
    assert replaced.write(0, one.plain)
    assert replaced.missing(0, 8) == 8
    cache.check()
    cache.close()


def test_a_restart_keeps_the_data(tmp_path: Path) -> None:
    one, two = sample(1, 9 * MIB + 1), sample(2, 300 * BLOCK)
    cache = open_cache(tmp_path)
    files = [cache.file(s.content) for s in (one, two)]
    assert one.store(files[0])
    assert two.store(files[1], 5, 130)
    before = cache.statistics()
    cache.close()  # with both files open
    cache = open_cache(tmp_path)
    after = cache.statistics()
    assert (after.files, after.used_bytes) == (2, before.used_bytes)
    file = cache.file(one.content)
    assert one.holds(file)
    file = cache.file(two.content)
    assert file.missing(5, 300) == 130
    assert two.held(file) == list(range(5, 130))
    cache.check()
    cache.close()


def test_after_close_everything_is_a_miss(tmp_path: Path) -> None:
    one = sample(1, BLOCK)
    cache = open_cache(tmp_path)
    file = cache.file(one.content)
    one.store(file)
    cache.close()
    assert not one.holds(file)
    assert not one.store(file)
    file.close()


def test_a_file_closed_after_the_cache_leaves_the_next_owner_alone(tmp_path: Path) -> None:
    one = sample(1, BLOCK)
    before = descriptors()
    cache = open_cache(tmp_path)
    late = cache.file(one.content)
    cache.close()
    cache = open_cache(tmp_path)
    file = cache.file(one.content)
    assert one.store(file)
    late.close()
    cache._pool.close()
    assert one.holds(file)
    cache.close()
    assert descriptors() == before


def test_least_recently_used_goes_first(tmp_path: Path) -> None:
    limit = 4 * (4 * MIB) + 5 * 8192
    samples = [sample(n, 4 * MIB) for n in range(5)]
    cache = open_cache(tmp_path, limit)
    files = [cache.file(s.content) for s in samples]
    for one, file in zip(samples[:4], files, strict=False):
        assert one.store(file)
    assert samples[0].holds(files[0])
    files[1].touch()
    assert samples[4].store(files[4])
    assert [file.missing(0, 1) for file in files] == [1, 1, 0, 1, 1]
    assert cache.statistics().evicted_bytes == 4 * MIB
    cache.check()
    cache.close()


def test_the_order_survives_a_restart(tmp_path: Path) -> None:
    samples = [sample(n, 4 * MIB) for n in range(4)]
    cache = open_cache(tmp_path)
    files = [cache.file(s.content) for s in samples]
    for one, file in zip(samples, files, strict=True):
        one.store(file)
    assert samples[0].holds(files[0], 0, 1)
    cache.close()
    # 2 was given up in part; that is no use of it.
    cache = open_cache(tmp_path, 3 * (4 * MIB) + 4 * 8192)
    present = {n: cache.file(s.content).present_bytes() for n, s in enumerate(samples)}
    assert present == {0: 4 * MIB, 1: 0, 2: 4 * MIB, 3: 4 * MIB}
    cache.close()


def test_the_last_use_is_dated_by_one_clock(tmp_path: Path) -> None:
    """The kernel's own mtimes lag by milliseconds; beside a use that we noted, a later write looked older."""
    samples = [sample(n, BLOCK) for n in range(20)]
    cache = open_cache(tmp_path)
    for one in samples:
        begun = time.time_ns()
        one.store(cache.file(one.content))
        assert begun <= map_path(tmp_path, one.content).stat().st_mtime_ns <= time.time_ns()
    cache.close()


def test_eviction_does_not_make_a_file_look_recent(tmp_path: Path) -> None:
    old, new = sample(1, 12 * MIB), sample(2, 4 * MIB)
    cache = open_cache(tmp_path, 16 * MIB + 2 * 8192)
    for one in (old, new):
        file = cache.file(one.content)
        assert one.store(file)
        file.close()
    third = sample(3, 2 * MIB)
    cache._room.make(2 * MIB)
    cache.close()
    cache = open_cache(tmp_path, 12 * MIB)
    file = cache.file(third.content)
    third.store(file)
    assert new.holds(cache.file(new.content))
    assert cache.file(old.content).present_bytes() == 4 * MIB
    cache.close()


def test_a_lowered_limit_holds_at_once(tmp_path: Path) -> None:
    one = sample(1, 20 * MIB)
    cache = open_cache(tmp_path)
    one.store(cache.file(one.content))
    cache.close()
    for limit in (9 * MIB, 100 * KIB, 0):
        cache = open_cache(tmp_path, limit)
        assert cache.statistics().used_bytes <= limit
        assert disk_bytes(tmp_path) <= limit
        cache.check()
        file = cache.file(one.content)
        assert one.held(file) == list(range(one.content.blocks - file.present_bytes() // BLOCK, one.content.blocks))
        cache.close()


def test_a_model_larger_than_the_limit_streams_through(tmp_path: Path) -> None:
    limit = 10 * MIB
    large = sample(1, 40 * MIB)
    cache = open_cache(tmp_path, limit)
    file = cache.file(large.content)
    for first in range(0, large.content.blocks, 16):
        assert large.store(file, first, first + 16)
        assert large.holds(file, first, first + 16)
        assert cache.statistics().used_bytes <= limit
        assert disk_bytes(tmp_path) <= limit
    assert len(large.held(file)) * BLOCK >= limit - 5 * MIB
    cache.check()
    cache.close()


def test_a_scan_does_not_push_out_what_was_loaded_twice(tmp_path: Path) -> None:
    clock = Clock()
    useful, scan = sample(1, 8 * MIB), sample(2, 60 * MIB)
    cache = open_cache(tmp_path, 20 * MIB, clock)
    file = cache.file(useful.content)
    useful.store(file)
    clock.now += 3600
    assert useful.holds(file)
    file.close()
    other = cache.file(scan.content)
    for first in range(0, scan.content.blocks, 64):
        assert scan.store(other, first, first + 64)
    assert useful.holds(cache.file(useful.content))
    cache.close()


def test_more_than_the_limit_is_not_stored(tmp_path: Path) -> None:
    one = sample(1, 4 * MIB)
    cache = open_cache(tmp_path, MIB)
    file = cache.file(one.content)
    assert not one.store(file)
    assert disk_bytes(tmp_path) == 0
    assert one.store(file, 0, 8)
    assert not one.store(file, 0, 64)  # what is there stays: nobody else's may go
    assert one.held(file) == list(range(8))
    cache.check()
    cache.close()


def test_descriptors_are_bounded(tmp_path: Path) -> None:
    cache = open_cache(tmp_path, 256 * MIB)
    before = descriptors()
    samples = [sample(n, BLOCK + 1) for n in range(150)]
    files = [cache.file(s.content) for s in samples]
    for one, file in zip(samples, files, strict=True):
        assert one.store(file)
    for one, file in zip(samples, files, strict=True):
        assert one.holds(file)
    assert 30 < descriptors() - before <= 64
    cache.close()
    assert descriptors() < before  # the lock too


def test_files_that_somebody_deleted_are_made_anew(tmp_path: Path) -> None:
    one = sample(1, MIB)
    cache = open_cache(tmp_path)
    file = cache.file(one.content)
    one.store(file)
    for path in (data_path(tmp_path, one.content), map_path(tmp_path, one.content)):
        cache._pool.forget(path)
        path.unlink()
    assert not one.holds(file)
    assert file.missing(0, 1) == 0
    assert one.store(file)
    assert one.holds(file)
    assert not cache.statistics().bypassed
    cache.check()
    cache.close()
