"""Recorded loaders replayed against the policy: how long they wait, and what the nodes send for it.

The yardstick is an oracle with the same memory, window and parallelism that knows every read to come. The program
itself takes no time in these runs (`pace` 0), so that nothing hides a wait.
"""

import pytest

from tests.readahead.simulate import MIB, TRACES, Nothing, Oracle, Real, Result, World, load, simulate

# What the program loses against the oracle, at most. All of these fetch each byte that they read once.
LOADERS = {
    "sequential": 1.05,
    "populate": 1.05,
    "memmap": 1.05,
    "torch_read": 1.05,
    "torch_mmap": 1.05,
    "gguf_reader": 1.05,
    "shards": 1.1,
    "fork4": 1.05,
    "load_file": 1.15,
    "name_order": 1.1,
    "from_pretrained": 1.2,
    "backwards": 1.45,  # with 128 KiB each MiB is read upwards, and the next one is below
}
KERNELS = (4096, 128)
OTHERS = {"strided", "memmap_rows", "zip_header", "random_4k", "random_256k"}


def replay(name: str, kernel: int, **world: float) -> tuple[Result, Result, Result]:
    """With the policy, with the oracle, and with no read-ahead at all."""
    trace = load(f"{name}-{kernel}")
    setting = World(**world)
    return tuple(simulate(trace, policy, setting) for policy in (Real(trace), Oracle(trace), Nothing()))


def test_every_trace_is_tested():
    found = {path.name.removesuffix(".jsonl.gz") for path in TRACES.glob("*.gz")}
    assert found == {f"{name}-{kernel}" for name in {*LOADERS, *OTHERS} for kernel in KERNELS}
    assert sum(path.stat().st_size for path in TRACES.iterdir()) < 300 * 1024


@pytest.mark.parametrize("kernel", KERNELS)
@pytest.mark.parametrize("name", LOADERS)
def test_a_loader_waits_hardly_longer_than_for_an_oracle(name: str, kernel: int):
    real, oracle, nothing = replay(name, kernel)
    assert real.stall <= LOADERS[name] * oracle.stall
    assert real.fetched <= 1.01 * real.asked + MIB
    assert nothing.fetches >= 2.5 * real.fetches or kernel == 4096
    # And the oracle is one: no faster than the wire.
    assert oracle.stall >= 0.9 * (oracle.fetched / World().bandwidth - oracle.asked / 3000)


@pytest.mark.parametrize(
    ("name", "kernel"),
    # With 128 KiB, safetensors touches each tensor before it reads any: a round trip each, that nothing foretells.
    [("sequential", 128), ("sequential", 4096), ("fork4", 128), ("fork4", 4096), ("load_file", 4096), ("shards", 4096)],
)
@pytest.mark.parametrize("world", [{"latency": 20_000}, {"bandwidth": 3000}, {"bandwidth": 100}, {"parallel": 4}])
def test_far_fast_slow_and_narrow_nodes(name: str, kernel: int, world: dict[str, float]):
    real, oracle, nothing = replay(name, kernel, **world)
    # A start from nothing takes a few round trips more than one that knows where it goes.
    assert real.stall <= 1.2 * oracle.stall + 7 * world.get("latency", 1000)
    assert real.stall <= nothing.stall * 1.02


@pytest.mark.parametrize("name", [name for name in LOADERS if name != "backwards"])
def test_little_memory_slows_and_does_not_waste(name: str):
    trace = load(f"{name}-4096")
    real = simulate(trace, Real(trace, 8 * MIB), World(slots=8))
    oracle = simulate(trace, Oracle(trace, 8 * MIB), World(slots=8))
    assert real.stall <= 1.4 * oracle.stall
    assert real.fetched <= 1.35 * real.asked


@pytest.mark.parametrize("kernel", KERNELS)
def test_random_4k_fetches_one_block_each(kernel: int):
    real, _, nothing = replay("random_4k", kernel)
    assert real == nothing
    assert real.fetches == real.fetched // (256 * 1024)
    assert real.wasted == 0


@pytest.mark.parametrize("kernel", KERNELS)
def test_random_256k_fetches_at_most_twice_what_is_asked(kernel: int):
    real, _, nothing = replay("random_256k", kernel)
    assert real.ratio <= 2
    assert real.fetched <= 1.1 * nothing.fetched


@pytest.mark.parametrize(("kernel", "more"), [(4096, 1.25), (128, 1.4)])
def test_random_page_faults_fetch_little_more_than_the_kernel_asks(kernel: int, more: float):
    real, _, nothing = replay("memmap_rows", kernel)
    assert real.fetched <= more * nothing.fetched


@pytest.mark.parametrize("kernel", KERNELS)
def test_a_stride_goes_faster_and_costs_what_is_passed_over(kernel: int):
    real, oracle, nothing = replay("strided", kernel)
    assert real.stall <= min(1.75 * oracle.stall, 0.85 * nothing.stall)
    assert real.fetched <= 192 * MIB + 64 * MIB


@pytest.mark.parametrize("kernel", KERNELS)
def test_a_look_at_the_directory_of_a_zip_costs_a_few_chunks(kernel: int):
    real, oracle, _ = replay("zip_header", kernel)
    assert real.stall <= 1.4 * oracle.stall
    assert real.fetched <= 8 * MIB + 512 * 1024
