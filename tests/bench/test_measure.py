"""How the benchmark measures: turns, failures, page cache, ratios, verdicts."""

import random
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path

import pytest
from bench.child import reader, run_reader
from bench.figures import Figures
from bench.measure import MIB, Case, evict, file_system, fill, interleave, percentile, refill, resident
from bench.targets import TARGETS, judge
from bench.world import safetensors_head


def scripted(name: str, values: list[float | Exception], log: list[str]) -> Case:
    """A case that gives these values in turn and logs each run."""
    remaining = iter(values)

    @contextmanager
    def scene() -> Iterator[object]:
        log.append(name)

        def timed() -> float | Mapping[str, float]:
            value = next(remaining)
            if isinstance(value, Exception):
                raise value
            return value

        yield timed
        log.append(f"{name} done")

    return Case(name, scene)  # type: ignore[arg-type]


def quiet(_text: str) -> None:
    """Nobody listens."""


def test_cases_take_turns_and_each_begins_a_round():
    log: list[str] = []
    done = interleave([scripted("a", [1.0, 2.0], log), scripted("b", [3.0, 4.0], log)], 2, quiet)
    assert log == ["a", "a done", "b", "b done", "b", "b done", "a", "a done"]
    assert done.series("a") == [1.0, 2.0]
    assert done.series("b") == [3.0, 4.0]


def test_a_case_that_fails_is_left_out_and_the_others_go_on():
    log: list[str] = []
    cases = [scripted("a", [1.0, RuntimeError("broken"), 9.0], log), scripted("b", [1.0, 2.0, 3.0], log)]
    done = interleave(cases, 3, quiet)
    assert done.series("a") == []  # half a series would pair with the wrong rounds
    assert done.failed == {"a": "RuntimeError: broken"}
    assert done.series("b") == [1.0, 2.0, 3.0]
    assert log.count("a") == 2


def test_ratios_are_made_round_by_round():
    figures = Figures()
    figures.rate("g.limit", "limit", [1.0, 2.0, 4.0], 8 * MIB)
    figures.rate("g.half", "half of it", [2.0, 4.0, 8.0], 8 * MIB, limit="g.limit")
    assert figures.by_name["g.half"].ratios == (0.5, 0.5, 0.5)
    assert figures.by_name["g.half"].values == (4.0, 2.0, 1.0)
    figures.rate("g.alone", "its limit failed", [1.0], 8 * MIB, limit="g.missing")
    assert figures.by_name["g.alone"].ratio is None
    figures.rate("g.none", "failed", [], 8 * MIB)
    assert "g.none" not in figures.by_name


def test_a_target_passes_at_its_bound_and_fails_beyond():
    figures = Figures()
    by_name = {target.figure: target for target in TARGETS if target.kind == "value"}
    assert by_name["outage.error"].sense == "at most"
    figures.seconds("outage.error", "to EIO", [by_name["outage.error"].bound])
    figures.seconds("outage.back", "back", [by_name["outage.back"].bound * 1.01])
    verdicts = {judged.target.figure: judged.verdict for judged in judge(figures)}
    assert verdicts["outage.error"] == "pass"
    assert verdicts["outage.back"] == "FAIL"
    assert verdicts["cold.memory"] == "not measured"


def test_a_target_that_this_machine_cannot_measure_says_why():
    figures = Figures()
    figures.impossible["warm.passthrough"] = "the kernel is too old"
    why = {judged.target.figure: judged.why for judged in judge(figures) if judged.why}
    assert why == {"warm.passthrough": "the kernel is too old"}
    figures.rate("warm.disk", "disk", [1.0], 8 * MIB)
    figures.rate("warm.passthrough", "measured after all", [1.0], 8 * MIB, limit="warm.disk")
    assert [
        (judged.verdict, judged.why) for judged in judge(figures) if judged.target.figure == "warm.passthrough"
    ] == [("pass", "")]


def test_the_page_cache_is_what_it_is_said_to_be(tmp_path: Path):
    if file_system(tmp_path) == "tmpfs":
        pytest.skip("left out: the temporary folder is in memory, where nothing can be evicted")
    path = tmp_path / "file"
    path.write_bytes(random.Random(1).randbytes(8 * MIB))
    evict([path])
    assert resident(path) < 0.02
    fill([path])
    assert resident(path) == 1.0
    refill([path])
    assert resident(path) == 1.0


@pytest.mark.parametrize("offset", [0, 1, 3 * MIB, 5 * MIB + 7])
def test_a_reader_that_goes_round_reads_all_of_the_file(tmp_path: Path, offset: int):
    path = tmp_path / "file"
    path.write_bytes(bytes(5 * MIB + 7))
    with reader("around", path, offset) as child:
        assert run_reader(child, 5 * MIB + 7) > 0
    with reader("read", path, offset, MIB) as child, pytest.raises(RuntimeError, match="of 5242887 bytes"):
        run_reader(child, 5 * MIB + 7)  # a part is not taken for the whole


@pytest.mark.parametrize("size", [16 * MIB, 100 * MIB + 12345])
def test_the_model_is_a_safetensors_file_of_exactly_this_size(tmp_path: Path, size: int):
    safe_open = pytest.importorskip("safetensors", reason="left out: safetensors is not installed").safe_open
    path = tmp_path / "model"
    path.write_bytes(safetensors_head(size))
    with path.open("r+b") as file:
        file.truncate(size)
    with safe_open(path, framework="numpy") as opened:
        sizes = [opened.get_slice(name).get_shape()[0] for name in opened.keys()]  # noqa: SIM118  # not a dict
    assert sum(sizes) + len(safetensors_head(size)) == size


def test_percentiles_are_values_that_were_measured():
    values = [float(n) for n in range(100, 0, -1)]
    assert percentile(values, 50) == 51.0
    assert percentile(values, 99) == 100.0
    assert percentile([3.0], 99) == 3.0
