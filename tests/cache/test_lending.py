"""A cache file in the hands of others: right bytes for them, whatever the cache is asked to do meanwhile."""

import mmap
import os
import resource
import shutil
import threading
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest

from shardfs.cache import CacheFile, Content, DiskCache, Lent
from shardfs.cache.folder import CacheFolder
from shardfs.cache.loans import ASK_SECONDS
from tests.cache.samples import (
    BLOCK,
    MIB,
    Clock,
    Sample,
    data_path,
    descriptors,
    disk_bytes,
    map_path,
    open_cache,
    sample,
)

ONE, TWO, THREE = sample(1, 9 * MIB + 777), sample(2, 9 * MIB), sample(3, 4 * MIB)
BLOCKS = ONE.content.blocks
ROOM_FOR_ONE = ONE.content.charge(0, BLOCKS) + ONE.content.map_charge
TIGHT = ROOM_FOR_ONE + MIB
"""For one of the large samples and a little of another."""


def lend(file: CacheFile) -> Lent:
    lent = file.lend()
    assert lent is not None
    return lent


def stored(cache: DiskCache, one: Sample) -> CacheFile:
    file = cache.file(one.content)
    assert one.store(file)
    return file


def right(lent: Lent, one: Sample = ONE) -> bool:
    return os.pread(lent.fd, one.content.size + 1, 0) == one.plain


def mapped(lent: Lent) -> mmap.mmap:
    return mmap.mmap(lent.fd, ONE.content.size, prot=mmap.PROT_READ)


# ---------------------------------------------------------------------------------------------------- what is lent


def test_a_file_is_lent_once_every_block_was_written(tmp_path: Path) -> None:
    cache = open_cache(tmp_path)
    file = cache.file(ONE.content)
    assert file.lend() is None
    for first in range(0, BLOCKS, 50):
        assert not file.whole
        assert file.lend() is None
        assert ONE.store(file, first, min(first + 50, BLOCKS))
    assert file.whole
    lent = lend(file)
    assert right(lent)
    lent.close()
    cache.check()
    cache.close()


def test_what_an_earlier_daemon_stored_is_lent_once_every_block_was_read(tmp_path: Path) -> None:
    cache = open_cache(tmp_path)
    stored(cache, ONE)
    cache.close()
    cache = open_cache(tmp_path)
    file = cache.file(ONE.content)
    for first in range(BLOCKS - 1, -1, -1):
        assert file.lend() is None
        assert ONE.holds(file, first, first + 1)
    lent = lend(file)
    assert right(lent)
    lent.close()
    cache.close()


def test_what_was_seen_to_be_right_is_remembered_while_the_file_is_closed(tmp_path: Path) -> None:
    cache = open_cache(tmp_path)
    stored(cache, ONE).close()
    assert cache.file(ONE.content).whole
    cache.close()


def test_a_word_that_went_while_the_file_was_closed_is_missed(tmp_path: Path) -> None:
    cache = open_cache(tmp_path)
    stored(cache, ONE).close()
    with map_path(tmp_path, ONE.content).open("r+b") as words:
        words.seek(4096 + 8 * 7)
        words.write(bytes(8))
    file = cache.file(ONE.content)
    assert file.lend() is None
    assert ONE.store(file)
    lent = lend(file)
    assert right(lent)
    lent.close()
    cache.close()


@pytest.mark.parametrize("restart", [False, True])
def test_a_damaged_block_that_was_found_is_not_lent(tmp_path: Path, restart: bool) -> None:
    cache = open_cache(tmp_path)
    file = stored(cache, ONE)
    if restart:
        cache.close()
        cache = open_cache(tmp_path)
        file = cache.file(ONE.content)
    with data_path(tmp_path, ONE.content).open("r+b") as data:
        data.seek(70 * BLOCK)
        data.write(bytes([ONE.plain[70 * BLOCK] ^ 1]))
    assert ONE.held(file) == [block for block in range(BLOCKS) if block != 70]
    assert not file.whole
    assert file.lend() is None
    assert ONE.store(file)
    lent = lend(file)
    assert right(lent)
    lent.close()
    cache.check()
    cache.close()


def test_the_good_blocks_of_a_read_with_a_bad_one_need_no_second_look(tmp_path: Path) -> None:
    cache = open_cache(tmp_path)
    stored(cache, ONE)
    cache.close()
    cache = open_cache(tmp_path)
    file = cache.file(ONE.content)
    with data_path(tmp_path, ONE.content).open("r+b") as data:
        data.seek(70 * BLOCK)
        data.write(bytes([ONE.plain[70 * BLOCK] ^ 1]))
    assert not ONE.holds(file)
    assert not file.whole
    assert ONE.store(file)  # the bad one only: the others are there
    lent = lend(file)
    assert right(lent)
    lent.close()
    cache.check()
    cache.close()


def replaced_by_a_copy(path: Path) -> None:
    shutil.copy(path, path.with_suffix(".copy"))
    path.with_suffix(".copy").rename(path)


def moved_behind_a_link(path: Path) -> None:
    path.rename(path.with_suffix(".moved"))
    path.symlink_to(path.with_suffix(".moved"))


MEDDLED: dict[str, Callable[[Path], object]] = {
    "deleted": Path.unlink,
    "cut short": lambda path: os.truncate(path, ONE.content.size - 1),
    "longer": lambda path: os.truncate(path, ONE.content.size + 1),
    "another file": replaced_by_a_copy,
    "a link": moved_behind_a_link,
}


@pytest.mark.parametrize("meddle", MEDDLED.values(), ids=MEDDLED.keys())
def test_another_file_in_its_place_is_not_lent(tmp_path: Path, meddle: Callable[[Path], object]) -> None:
    cache = open_cache(tmp_path)
    file = stored(cache, ONE)
    meddle(data_path(tmp_path, ONE.content))
    assert file.lend() is None
    assert not cache._lending.kept(file.number)
    file.close()
    cache.check()
    cache.close()


def test_a_process_without_descriptors_lends_nothing_and_goes_on(tmp_path: Path) -> None:
    cache = open_cache(tmp_path)
    file = stored(cache, ONE)
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    try:
        resource.setrlimit(resource.RLIMIT_NOFILE, (3, hard))
        assert file.lend() is None
    finally:
        resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))
    assert cache.statistics().read_errors
    assert not cache.statistics().bypassed
    assert file.evict() == ONE.content.charge(0, BLOCKS)
    cache.check()
    cache.close()


def test_nothing_is_lent_where_the_kernel_does_not_say_who_has_a_file_open(tmp_path: Path) -> None:
    folder = CacheFolder.claim(tmp_path)
    medium = folder.medium()
    assert medium.leases
    cache = DiskCache(folder, replace(medium, leases=False), limit_bytes=64 * MIB, clock=Clock(), threads=0)
    assert not cache.lends
    file = stored(cache, ONE)
    assert not file.whole
    assert file.lend() is None
    assert file.evict()
    cache.close()


def test_what_cannot_be_cached_is_not_lent(tmp_path: Path) -> None:
    cache = open_cache(tmp_path)
    for content in (Content(ONE.content.digest, 0, BLOCK), Content(TWO.content.digest, 5000, 5000)):
        file = cache.file(content)
        assert not file.whole
        assert file.lend() is None
        file.close()
    cache.close()


# -------------------------------------------------------------------------------------------------- while it is lent


def test_a_lent_file_is_passed_over_and_the_limit_holds(tmp_path: Path) -> None:
    cache = open_cache(tmp_path, TIGHT)
    one, two = stored(cache, ONE), cache.file(TWO.content)
    lent = lend(one)
    assert not TWO.store(two)
    assert one.evict() == 0
    cache._room.evict_oldest()
    assert right(lent)
    assert TWO.store(two, 0, 8)  # what there is room for besides
    assert TWO.holds(two, 0, 8)
    assert disk_bytes(tmp_path) <= TIGHT
    cache.check()
    lent.close()
    assert TWO.store(two)
    assert one.missing(0, BLOCKS) == 0
    assert one.lend() is None
    cache.check()
    cache.close()


def test_others_go_first_though_they_were_used_later(tmp_path: Path) -> None:
    cache = open_cache(tmp_path, ROOM_FOR_ONE + 2 * (5 * MIB))
    one, three = stored(cache, ONE), stored(cache, THREE)
    lent = lend(one)
    other = sample(4, 8 * MIB)
    assert other.store(cache.file(other.content))
    assert three.present_bytes() == 0
    assert right(lent)
    lent.close()
    cache.close()


def test_each_of_two_lends_keeps_the_file(tmp_path: Path) -> None:
    cache = open_cache(tmp_path)
    file = stored(cache, ONE)
    first, second = lend(file), lend(file)
    assert first.fd != second.fd
    first.close()
    first.close()
    assert file.evict() == 0
    assert right(second)
    second.close()
    assert file.evict() == ONE.content.charge(0, BLOCKS)
    cache.check()
    cache.close()


def test_a_file_whose_descriptor_was_closed_is_lent_until_it_is_given_back(tmp_path: Path) -> None:
    cache = open_cache(tmp_path)
    file = stored(cache, ONE)
    lent = lend(file)
    before = descriptors()
    for _ in range(2):
        lent.detach()
        assert descriptors() == before - 1
    assert lent.fd == -1
    assert file.evict() == 0
    for _ in range(2):
        lent.close()
    assert file.evict() > 0
    cache.check()
    cache.close()


def test_a_lent_file_stays_open(tmp_path: Path) -> None:
    cache = open_cache(tmp_path)
    file = stored(cache, ONE)
    lent = lend(file)
    file.close()
    other = cache.file(replace(ONE.content, block_size=2 * BLOCK))  # would replace a file that nobody holds
    assert not other.write(0, ONE.plain)
    assert right(lent)
    assert file.whole
    lent.close()
    assert not ONE.store(file)  # closed now
    other = cache.file(replace(ONE.content, block_size=2 * BLOCK))
    assert other.write(0, ONE.plain)
    cache.check()
    cache.close()


def test_a_write_to_a_lent_file_has_nothing_to_do(tmp_path: Path) -> None:
    cache = open_cache(tmp_path)
    file = stored(cache, ONE)
    lent = lend(file)
    before = os.fstat(lent.fd).st_mtime_ns
    assert ONE.store(file)
    assert os.fstat(lent.fd).st_mtime_ns == before
    lent.close()
    cache.close()


def test_a_block_that_decays_while_it_is_lent_is_a_miss_and_stays_as_it_is(tmp_path: Path) -> None:
    cache = open_cache(tmp_path)
    file = stored(cache, ONE)
    lent = lend(file)
    wrong = bytes([ONE.plain[3 * BLOCK] ^ 1])
    with data_path(tmp_path, ONE.content).open("r+b") as data:
        data.seek(3 * BLOCK)
        data.write(wrong)
    assert not ONE.holds(file, 3, 4)
    assert not file.whole
    assert file.lend() is None
    assert ONE.store(file, 3, 4)
    assert os.pread(lent.fd, BLOCK, 3 * BLOCK) == wrong + ONE.plain[3 * BLOCK + 1 : 4 * BLOCK]
    lent.close()
    assert not ONE.holds(file, 3, 4)
    assert file.missing(0, BLOCKS) == 3
    assert ONE.store(file, 3, 4)
    lent = lend(file)
    assert right(lent)
    lent.close()
    cache.check()
    cache.close()


def test_a_lent_file_that_somebody_deletes(tmp_path: Path) -> None:
    cache = open_cache(tmp_path, TIGHT)
    file = stored(cache, ONE)
    lent = lend(file)
    for path in (data_path(tmp_path, ONE.content), map_path(tmp_path, ONE.content)):
        cache._pool.forget(path)
        path.unlink()
    assert not ONE.holds(file)
    assert not file.whole
    assert right(lent)
    assert not ONE.store(file)  # its room is taken as long as the old one is there
    assert not TWO.store(cache.file(TWO.content))
    lent.close()
    assert ONE.store(file, 0, BLOCKS - 1)
    assert file.lend() is None
    assert ONE.store(file)
    lent = lend(file)
    assert right(lent)
    lent.close()
    cache.check()
    cache.close()


# ------------------------------------------------------------------------------------------------ given back, and after


def test_what_is_still_mapped_stays_until_it_is_let_go(tmp_path: Path) -> None:
    """As after `mmap` and `close` through a mount: the kernel says nothing more of it."""
    clock = Clock()
    cache = open_cache(tmp_path, TIGHT, clock)
    one, two = stored(cache, ONE), cache.file(TWO.content)
    lent = lend(one)
    memory = mapped(lent)
    lent.close()
    one.close()
    for _ in range(3):
        assert not TWO.store(two)
        clock.now += ASK_SECONDS
    one = cache.file(ONE.content)
    assert one.evict() == 0
    assert one.whole
    assert memory[:] == ONE.plain
    memory.close()
    assert TWO.store(two) is False  # asked a moment ago
    clock.now += ASK_SECONDS
    assert TWO.store(two)
    assert one.missing(0, BLOCKS) == 0
    cache.check()
    cache.close()


def test_what_is_mapped_is_lent_again(tmp_path: Path) -> None:
    cache = open_cache(tmp_path)
    file = stored(cache, ONE)
    lent = lend(file)
    memory = mapped(lent)
    lent.close()
    lent = lend(file)
    assert right(lent)
    memory.close()
    assert file.evict() == 0
    lent.close()
    assert file.evict()
    cache.check()
    cache.close()


@pytest.mark.parametrize("given_back", [True, False])
def test_what_is_mapped_survives_a_restart_with_less_room(tmp_path: Path, given_back: bool) -> None:
    """Without `given_back`, as a daemon leaves it that was killed."""
    cache = open_cache(tmp_path)
    lent = lend(stored(cache, ONE))
    memory = mapped(lent)
    if given_back:
        lent.close()
    cache.close()
    clock = Clock()
    cache = open_cache(tmp_path, 5 * MIB, clock)
    assert memory[:] == ONE.plain
    three = cache.file(THREE.content)
    assert not THREE.store(three)
    assert cache.file(ONE.content).evict() == 0
    assert memory[:] == ONE.plain
    memory.close()
    lent.close()
    clock.now += ASK_SECONDS
    assert THREE.store(three)
    assert disk_bytes(tmp_path) <= 5 * MIB
    cache.check()
    cache.close()


def test_a_restart_evicts_what_nobody_has_open(tmp_path: Path) -> None:
    cache = open_cache(tmp_path)
    lend(stored(cache, ONE)).close()
    stored(cache, THREE)
    cache.close()
    with data_path(tmp_path, THREE.content).open("rb"):
        cache = open_cache(tmp_path, 5 * MIB)
        cache.check()
        assert cache.file(THREE.content).present_bytes() == 4 * MIB
        assert cache.file(ONE.content).present_bytes() < MIB
        cache.close()


def test_a_lent_file_is_the_most_recent_when_it_is_given_back(tmp_path: Path) -> None:
    samples = [sample(n, 4 * MIB) for n in range(4)]
    cache = open_cache(tmp_path, 3 * (4 * MIB) + 4 * 8192)
    files = [stored(cache, one) for one in samples[:1]]
    lent = lend(files[0])
    files += [stored(cache, one) for one in samples[1:3]]
    lent.close()
    files.append(stored(cache, samples[3]))
    assert [file.present_bytes() // MIB for file in files] == [4, 0, 4, 4]
    cache.close()


@pytest.mark.parametrize("given_back", [True, False])
def test_a_lent_file_is_the_most_recent_after_a_restart(tmp_path: Path, given_back: bool) -> None:
    samples = [sample(n, 4 * MIB) for n in range(3)]
    cache = open_cache(tmp_path)
    lent = lend(stored(cache, samples[0]))
    for one in samples[1:]:
        stored(cache, one)
    if given_back:
        lent.close()
    cache.close()
    lent.close()
    cache = open_cache(tmp_path, 2 * (4 * MIB) + 3 * 8192)
    assert [cache.file(one.content).present_bytes() // MIB for one in samples] == [4, 0, 4]
    cache.close()


def test_after_close_nothing_is_lent_and_what_is_stays(tmp_path: Path) -> None:
    cache = open_cache(tmp_path)
    file = stored(cache, ONE)
    lent = lend(file)
    cache.close()
    assert file.lend() is None
    assert right(lent)
    cache = open_cache(tmp_path)  # the folder is free
    assert cache.file(ONE.content).evict() == 0
    assert right(lent)
    lent.close()
    assert cache.file(ONE.content).evict()
    cache.check()
    cache.close()


def test_descriptors_are_given_back(tmp_path: Path) -> None:
    before = descriptors()
    cache = open_cache(tmp_path)
    file = stored(cache, ONE)
    for _ in range(50):
        lent, again = lend(file), lend(file)
        assert (os.get_inheritable(lent.fd), os.get_inheritable(again.fd)) == (False, False)
        cache._pool.close()
        assert right(lent)
        again.close()
        lent.close()
    with pytest.raises(OSError, match="Bad file descriptor"):
        os.write(lend(file).fd, b"x")
    other = data_path(tmp_path, ONE.content)
    replaced_by_a_copy(other)
    for _ in range(50):
        assert file.lend() is None
    cache.close()
    assert descriptors() == before + 1  # the one lent that was never closed


# -------------------------------------------------------------------------------------------------------------- races


def held_up(monkeypatch: pytest.MonkeyPatch, owner: object, name: str) -> tuple[threading.Event, threading.Event]:
    """The method of `owner` stands still when it is called, until told to go on."""
    begun, go_on = threading.Event(), threading.Event()
    real = getattr(owner, name)

    def slow(*args: object) -> object:
        begun.set()
        go_on.wait()
        return real(*args)

    monkeypatch.setattr(owner, name, slow)
    return begun, go_on


def test_a_file_that_is_being_evicted_is_not_lent(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    cache = open_cache(tmp_path)
    file = stored(cache, ONE)
    begun, go_on = held_up(monkeypatch, file.stored, "evict")
    evictor = threading.Thread(target=cache._room.evict_oldest, daemon=True)
    evictor.start()
    begun.wait()
    assert file.whole  # nothing is gone yet
    assert file.lend() is None
    go_on.set()
    evictor.join()
    assert not file.whole
    cache.check()
    cache.close()


def test_a_file_that_is_being_written_is_not_lent(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    cache = open_cache(tmp_path)
    file = stored(cache, ONE)
    begun, go_on = held_up(monkeypatch, file.stored.presence, "absent_runs")
    writer = threading.Thread(target=lambda: ONE.store(file), daemon=True)
    writer.start()
    begun.wait()
    assert file.lend() is None
    go_on.set()
    writer.join()
    lend(file).close()
    cache.close()


def test_whoever_needs_the_room_of_a_file_waits_while_the_kernel_is_asked_about_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    cache = open_cache(tmp_path, TIGHT)
    file = stored(cache, ONE)
    lent = lend(file)
    begun, go_on = held_up(monkeypatch, file.stored, "in_use")
    closer = threading.Thread(target=lent.close, daemon=True)
    closer.start()
    begun.wait()
    answers: list[bool] = []
    writer = threading.Thread(target=lambda: answers.append(TWO.store(cache.file(TWO.content))), daemon=True)
    writer.start()
    go_on.set()
    closer.join()
    writer.join()
    assert answers == [True]
    cache.check()
    cache.close()


def test_a_file_is_lent_again_as_soon_as_the_kernel_has_answered(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Whoever opens a file right after somebody has closed it is not sent through the daemon for that."""
    cache = open_cache(tmp_path)
    file = stored(cache, ONE)
    lent = lend(file)
    begun, go_on = held_up(monkeypatch, file.stored, "in_use")
    closer = threading.Thread(target=lent.close, daemon=True)
    closer.start()
    begun.wait()
    answers: list[Lent | None] = []
    borrower = threading.Thread(target=lambda: answers.append(file.lend()), daemon=True)
    borrower.start()
    go_on.set()
    closer.join()
    borrower.join()
    assert answers[0] is not None
    answers[0].close()
    cache.check()
    cache.close()


@pytest.mark.parametrize("change", [CacheFile.evict, lambda file: file._shared.ledger.begin_write((file.number, 0))])
def test_a_file_that_is_lent_right_after_the_question_stays(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, change: Callable[[CacheFile], int]
) -> None:
    cache = open_cache(tmp_path)
    file = stored(cache, ONE)
    recall = cache._lending.recall
    lents: list[Lent] = []

    def then_lent(number: int) -> bool:
        answer = recall(number)
        if not lents:
            lents.append(lend(file))
        return answer

    monkeypatch.setattr(cache._lending, "recall", then_lent)
    assert not change(file)
    assert right(lents[0])
    lents[0].close()
    cache.check()
    cache.close()


def test_a_write_that_began_before_the_file_vanished_proves_nothing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Its bytes go to the deleted file, whose descriptor it has; the new one has a hole there."""
    cache = open_cache(tmp_path)
    file = cache.file(ONE.content)
    assert ONE.store(file, 0, 1)
    begun, go_on = threading.Event(), threading.Event()
    real = file.stored._data.write

    def write(offset: int, data: memoryview) -> None:
        if threading.current_thread() is writer:
            with cache._pool.use(data_path(tmp_path, ONE.content)) as fd:
                begun.set()
                go_on.wait()
                os.pwrite(fd, data, offset)
        else:
            real(offset, data)

    monkeypatch.setattr(file.stored._data, "write", write)
    writer = threading.Thread(target=lambda: ONE.store(file, 1, 64), daemon=True)
    writer.start()
    begun.wait()
    file.stored._vanished()
    assert ONE.store(file, 64, BLOCKS)
    go_on.set()
    writer.join()
    assert ONE.store(file, 0, 1)
    assert file.missing(0, BLOCKS) == BLOCKS  # for all that the words say
    assert file.lend() is None
    assert ONE.held(file) == [0, *range(64, BLOCKS)]
    assert ONE.store(file)
    lent = lend(file)
    assert right(lent)
    lent.close()
    cache.check()
    cache.close()
