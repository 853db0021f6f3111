"""Real engines, started once for the session when the first test asks for them, and stopped at its end."""

import itertools
import os
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.engines.kit import Engine, OverHttp

_COUNT = itertools.count()
START_SECONDS_MAX = 600
"""The first test of an engine waits for its download, its installation and its start."""


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    for item in items:
        if item.get_closest_marker("engines") and not item.get_closest_marker("timeout"):
            item.add_marker(pytest.mark.timeout(START_SECONDS_MAX))


def _engine(name: str, folder: Path) -> Iterator[Engine]:
    engine = Engine(name, folder)
    problem = engine.start()
    if problem:
        engine.stop()
        if os.environ.get("CI") == "true":
            pytest.fail(problem)
        pytest.skip(problem)
    yield engine
    engine.stop()


@pytest.fixture(scope="session")
def engines_folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("engines")


@pytest.fixture(scope="session")
def s3(engines_folder: Path) -> Iterator[Engine]:
    yield from _engine("s3", engines_folder)


@pytest.fixture(scope="session")
def hdfs(engines_folder: Path) -> Iterator[Engine]:
    yield from _engine("hdfs", engines_folder)


@pytest.fixture(scope="session")
def webhdfs(hdfs: Engine) -> Engine:
    return OverHttp(hdfs)


@pytest.fixture(scope="session")
def nginx(engines_folder: Path) -> Iterator[Engine]:
    yield from _engine("nginx", engines_folder)


@pytest.fixture
def engine(request: pytest.FixtureRequest) -> Engine:
    """The engine that the test's parameter names."""
    return request.getfixturevalue(request.param)


@pytest.fixture(autouse=True)
def credentials(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """Those of the S3 server, and nothing of the machine's own."""
    for name in list(os.environ):
        if name.startswith(("AWS_", "HADOOP_")):
            monkeypatch.delenv(name)
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.setenv("AWS_ACCESS_KEY_ID", "test:tester")
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", "testing")


@pytest.fixture
def fresh() -> str:
    """The name of a folder that nobody has used."""
    return f"t{os.getpid()}-{next(_COUNT)}"
