"""Random readers against random faults: the same seed is the same run, and what failed once stays on the list."""

import random

import pytest
import trio

from shardfs.core.hedge import HedgeOptions
from shardfs.errors import NoCopy
from shardfs.testing.faults import NoGoodCopy, OneGoodCopy
from tests.fetch.world import BLOCK, RUN, World, simulate

REGRESSIONS = [3, 7, 16, 17, 27, 33, 41, 79, 20502]
"""Seeds that found something: a good third copy not asked, wrong bytes once taken for final. Never taken out."""

JOB_SECONDS = 9.0


class Run:
    """One seed. `must_succeed`: each chunk keeps a good copy, so no read may fail."""

    def __init__(self, seed: int, *, must_succeed: bool) -> None:
        self.chance = chance = random.Random(seed)
        self.must_succeed = must_succeed
        sizes = [
            chance.choice(
                (1, BLOCK - 1, BLOCK, BLOCK + 1, RUN - 1, RUN, RUN + 1, 2 * RUN, chance.randrange(1, 3 * RUN))
            )
            for _ in range(chance.randrange(1, 10))
        ]
        nodes = chance.randrange(2, 6)
        self.world = World(
            seed=seed,
            nodes=nodes,
            replicas=chance.randrange(2, min(nodes, 3) + 1),
            sizes=sizes,
            slots=chance.randrange(2, 12),
            latency=chance.choice((0.0002, 0.001, 0.01, 0.1)),
            bandwidth=chance.choice((1e6, 1e8, 1e9)),
            job_timeout=JOB_SECONDS,
        )
        apart = random.Random(f"spans {seed}")  # the seeds below mean what they meant before there were spans
        for node in self.world.nodes.values():
            node.spans = apart.random() < 0.5
        self.faults_end = chance.uniform(1, 20)
        self.failed = 0
        self.read = 0

    async def main(self) -> None:
        world, chance = self.world, self.chance
        if self.must_succeed:
            world.set_plan(OneGoodCopy(chance, world.holders, rate=chance.choice((0.05, 0.3, 0.7))))
        else:
            bad = frozenset(chance.sample(world.names, chance.randrange(1, len(world.names) + 1)))
            world.set_plan(NoGoodCopy(chance, bad, until=self.faults_end))
        with trio.fail_after(3600):
            async with world.running():
                async with trio.open_nursery() as readers:
                    for _ in range(chance.randrange(1, 8)):
                        readers.start_soon(self.reader, random.Random(chance.random()))
                    readers.start_soon(self.trouble)
                await world.settle()
                await self.all_is_well_again()
                await world.settle()
        hedges = world.metrics.total(world.metrics.hedges)
        asked = sum(sum(node.asked.values()) for node in world.nodes.values())
        options = HedgeOptions()
        late = sum(store.health.failures for store in world.fleet.stores)  # leaving a node in trouble is no hedge
        assert hedges <= options.budget_burst + options.budget_share * asked + late

    async def reader(self, chance: random.Random) -> None:
        world = self.world
        for _ in range(chance.randrange(1, 12)):
            chunk = chance.randrange(len(world.digests))
            place = world.place(chunk, chance.randrange(world.runs(chunk)))
            start = chance.randrange(place.length)
            length = chance.randrange(1, place.length - start + 1)
            whole = chance.random() < 0.5
            if chance.random() < 0.2:
                world.engine.prefetch(place)
            elif chance.random() < 0.2:
                with trio.move_on_after(chance.choice((0, 1e-4, 1e-3, 0.05, 0.3)) * chance.random()):
                    await self.one(place, start, length, whole)
            else:
                await self.one(place, start, length, whole)
            if chance.random() < 0.5:
                await trio.sleep(chance.choice((0, 0.001, 0.1, 1)) * chance.random())

    async def one(self, place, start: int, length: int, whole: bool) -> None:
        began = trio.current_time()
        try:
            await self.world.read(place, start, length, whole=whole)
        except NoCopy:
            if self.must_succeed:
                raise
            self.failed += 1
        self.read += 1
        # A reader may wait for memory, for a job that others began, and for two of its own.
        assert trio.current_time() - began <= 3 * JOB_SECONDS + 1

    async def trouble(self) -> None:
        """Nodes stop and hang for a moment, one at a time."""
        chance, world = self.chance, self.world
        for _ in range(chance.randrange(4)):
            await trio.sleep(chance.uniform(0, 2))
            node = world.nodes[chance.choice(world.names)]
            if chance.random() < 0.5:
                node.up = False
            else:
                node.hung = True
            await trio.sleep(chance.uniform(0, 2))
            node.up, node.hung = True, False

    async def all_is_well_again(self) -> None:
        """Once the faults are over, everything can be read, quickly."""
        world = self.world
        await trio.sleep_until(max(self.faults_end, trio.current_time()) + 2)
        world.set_plan(lambda _ask: None)
        for chunk in range(len(world.digests)):
            for run in range(world.runs(chunk)):
                assert await world.read(world.place(chunk, run)) <= 2


def check(seed: int, *, must_succeed: bool) -> Run:
    run = Run(seed, must_succeed=must_succeed)
    try:
        simulate(run.main, seed)
    except BaseException as error:
        error.add_note(f"seed {seed}, must_succeed={must_succeed}")
        raise
    return run


@pytest.mark.parametrize("must_succeed", [True, False], ids=["one good copy", "none"])
@pytest.mark.parametrize("seed", REGRESSIONS)
def test_seeds_that_found_something(seed, must_succeed):
    check(seed, must_succeed=must_succeed)


def test_a_good_copy_is_always_found():
    runs = [check(seed, must_succeed=True) for seed in range(150)]
    assert sum(run.read for run in runs) > 1500
    hits = sum((node.hits for run in runs for node in run.world.nodes.values()), start=runs[0].world.nodes["n0"].hits)
    assert len(hits) >= 12, f"faults that never hit: {hits}"
    assert min(hits.values()) >= 5, hits


def test_failures_are_prompt_and_pass():
    runs = [check(seed, must_succeed=False) for seed in range(150)]
    assert sum(run.failed for run in runs) > 50, "nothing was at risk"


def test_a_stop_in_the_middle_leaves_nothing_behind():
    """Everything is cancelled at a random moment; slots, pins, counters and calls must all be given back."""
    cut_off = 0
    for seed in range(200):
        run = Run(seed, must_succeed=True)
        world, chance = run.world, run.chance
        world.set_plan(OneGoodCopy(chance, world.holders, rate=0.5))

        async def main(run: Run = run, world: World = world, chance: random.Random = chance) -> None:
            nonlocal cut_off
            with trio.move_on_after(chance.choice((0.0005, 0.01, 0.3, 2)) * chance.random()) as scope:
                async with world.running(), trio.open_nursery() as readers:
                    for _ in range(6):
                        readers.start_soon(run.reader, random.Random(chance.random()))
            world.check_quiet()
            cut_off += scope.cancelled_caught

        simulate(main, seed)
    assert cut_off > 100


@pytest.mark.slow
@pytest.mark.parametrize("must_succeed", [True, False], ids=["one good copy", "none"])
@pytest.mark.parametrize("batch", range(10))
def test_many_seeds(batch, must_succeed):
    for seed in range(1000 + batch * 200, 1000 + (batch + 1) * 200):
        check(seed, must_succeed=must_succeed)
