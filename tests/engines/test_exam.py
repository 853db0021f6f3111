"""The exam that every store passes, on real servers."""

import itertools
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager
from functools import partial

import pytest

from shardfs.store.base import Store
from shardfs.testing.span_exam import SPAN_EXAM
from shardfs.testing.store_exam import EXAM, REFUSING, Check
from tests.engines.kit import Engine

pytestmark = pytest.mark.engines
ENGINES = ("s3", "hdfs", "webhdfs", "nginx")


@pytest.mark.parametrize("engine", ENGINES, indirect=True)
@pytest.mark.parametrize("check", [*EXAM, *REFUSING], ids=lambda check: check.__name__)
async def test_exam(check: Check, engine: Engine, fresh: str) -> None:
    await check(partial(empty_store, engine, fresh, itertools.count()))


@pytest.mark.parametrize("engine", ["nginx"], indirect=True)
@pytest.mark.parametrize("check", SPAN_EXAM, ids=lambda check: check.__name__)
async def test_span_exam(check: Check, engine: Engine, fresh: str) -> None:
    await check(partial(empty_store, engine, fresh, itertools.count()))


@asynccontextmanager
async def empty_store(engine: Engine, fresh: str, numbers: Iterator[int]) -> AsyncIterator[Store]:
    store = engine.store(f"{fresh}-{next(numbers)}")
    yield store
    await store.aclose()
