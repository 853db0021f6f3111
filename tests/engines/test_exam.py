"""The exam that every store passes, on real servers."""

import itertools
from collections.abc import AsyncIterator
from contextlib import AbstractAsyncContextManager, asynccontextmanager

import pytest

from shardfs.store.base import Store
from shardfs.testing.store_exam import EXAM, REFUSING, Check
from tests.engines.kit import Engine

pytestmark = pytest.mark.engines
ENGINES = ("s3", "hdfs", "webhdfs", "nginx")


@pytest.mark.parametrize("engine", ENGINES, indirect=True)
@pytest.mark.parametrize("check", [*EXAM, *REFUSING], ids=lambda check: check.__name__)
async def test_exam(check: Check, engine: Engine, fresh: str) -> None:
    numbers = itertools.count()

    @asynccontextmanager
    async def empty_store() -> AsyncIterator[Store]:
        store = engine.store(f"{fresh}-{next(numbers)}")
        yield store
        await store.aclose()

    def make() -> AbstractAsyncContextManager[Store]:
        return empty_store()

    await check(make)
