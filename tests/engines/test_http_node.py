"""A stock nginx as a node of kind http: it cannot list, nor create conditionally; all else is as it must be."""

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import pytest

from shardfs.store.base import Store
from shardfs.store.http import HttpStore
from shardfs.testing import exam_interruptions, exam_objects
from shardfs.testing.check import Check
from shardfs.testing.span_exam import SPAN_EXAM
from tests.engines.kit import Engine

pytestmark = pytest.mark.engines


@pytest.mark.parametrize(
    "check",
    [
        exam_objects.check_put_and_get,
        exam_objects.check_parts,
        exam_objects.check_ranges,
        exam_objects.check_empty_buffer,
        exam_objects.check_missing,
        exam_objects.check_read_limit,
        exam_interruptions.check_arrived_raises,
        exam_interruptions.check_cancel_get,
        exam_objects.check_stat,
        *SPAN_EXAM,
    ],
    ids=lambda check: check.__name__,
)
async def test_nginx(nginx: Engine, check: Check, fresh: str) -> None:
    url = nginx.at(fresh).replace("dav://", "http://")

    @asynccontextmanager
    async def make() -> AsyncIterator[Store]:
        store = HttpStore("a", url)
        yield store
        await store.aclose()

    await check(make)
