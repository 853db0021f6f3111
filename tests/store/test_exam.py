"""The shipped exam over both engines; the chunk server once in this process and once as its own."""

import importlib
import json
import pkgutil
import sys
from collections.abc import AsyncIterator
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from functools import partial
from pathlib import Path
from subprocess import PIPE

import pytest
import trio

import shardfs.testing
from shardfs.server import ServerOptions, serve
from shardfs.store.base import Store
from shardfs.store.file import FileStore
from shardfs.store.http import HttpStore
from shardfs.testing.memory_store import MemoryStore
from shardfs.testing.span_exam import SPAN_EXAM
from shardfs.testing.store_exam import EXAM, REFUSING, Check


@asynccontextmanager
async def file_store(folder: Path) -> AsyncIterator[Store]:
    store = FileStore("a", folder / "a")
    yield store
    await store.aclose()


@asynccontextmanager
async def http_store(folder: Path) -> AsyncIterator[Store]:
    async with trio.open_nursery() as nursery:
        options = ServerOptions(node="a", data=folder / "a", port=0, token="secret", list_limit_max=5)
        host, port = await nursery.start(partial(serve, options))
        store = HttpStore("a", f"http://{host}:{port}", token="secret")
        yield store
        await store.aclose()
        nursery.cancel_scope.cancel()


@asynccontextmanager
async def process_store(folder: Path) -> AsyncIterator[Store]:
    command = [sys.executable, "-m", "shardfs", "node", "--id", "a", "--data", str(folder / "a")]
    async with trio.open_nursery() as nursery:
        process = await nursery.start(
            partial(trio.run_process, [*command, "--listen", "127.0.0.1:0", "--json"], stdout=PIPE, check=False)
        )
        async with process.stdout as stdout:
            line = b""
            while not line.endswith(b"\n"):
                more = await stdout.receive_some()
                assert more, f"the node has ended: {line!r}"
                line += more
        store = HttpStore("a", json.loads(line)["url"])
        try:
            yield store
        finally:
            await store.aclose()
            process.terminate()


@asynccontextmanager
async def memory_store(folder: Path) -> AsyncIterator[Store]:
    yield MemoryStore("a")


ENGINES = {"file": file_store, "http": http_store, "process": process_store, "memory": memory_store}


def test_no_check_is_left_out() -> None:
    """Checks are written in several modules, and examined when they are in the table."""
    names = [module.name for module in pkgutil.iter_modules(shardfs.testing.__path__, "shardfs.testing.")]
    modules = [importlib.import_module(name) for name in names]
    written = {value for module in modules for name, value in vars(module).items() if name.startswith("check_")}
    examined = [*EXAM, *REFUSING, *SPAN_EXAM]
    assert len(written) == len(examined)
    assert written == set(examined)


@pytest.mark.parametrize("engine", ENGINES)
@pytest.mark.parametrize("check", [*EXAM, *REFUSING], ids=lambda check: check.__name__)
async def test_exam(check: Check, engine: str, tmp_path: Path) -> None:
    def make() -> AbstractAsyncContextManager[Store]:
        return ENGINES[engine](tmp_path)

    await check(make)


@pytest.mark.parametrize("engine", ["file", "http", "process"])
@pytest.mark.parametrize("check", SPAN_EXAM, ids=lambda check: check.__name__)
async def test_span_exam(check: Check, engine: str, tmp_path: Path) -> None:
    def make() -> AbstractAsyncContextManager[Store]:
        return ENGINES[engine](tmp_path)

    await check(make)
