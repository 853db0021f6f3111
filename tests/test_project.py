"""The project about itself: layers, sizes, tools, version, links, and the guard that watches over skipped tests."""

import ast
import importlib
import importlib.metadata
import os
import re
import subprocess
import sys
import tomllib
from collections.abc import Iterator
from pathlib import Path

import pytest

import shardfs

ROOT = Path(__file__).resolve().parent.parent
PACKAGE = ROOT / "shardfs"
SOURCES = sorted(PACKAGE.rglob("*.py"))
TOOLS = sorted(path for path in (ROOT / "tools").iterdir() if path.is_file())

# What fits in the head. An entry below is a debt: it may shrink and must go when it is paid.
FILE_LINES_MAX = 400
FUNCTION_LINES_MAX = 70
LONG_FILES: dict[str, int] = {}
LONG_FUNCTIONS: dict[str, int] = {}


def name_of(path: Path) -> str:
    return str(path.relative_to(ROOT))


def project() -> dict:
    return tomllib.loads((ROOT / "pyproject.toml").read_text())


def layers() -> list[str]:
    (contract,) = [c for c in project()["tool"]["importlinter"]["contracts"] if c["type"] == "layers"]
    return [name for layer in contract["layers"] for name in re.findall(r"\w+", layer)]


# ------------------------------------------------------------------------------------------------------ layers


def test_every_package_has_a_place_in_the_layers():
    found = {path.name.removesuffix(".py") for path in PACKAGE.iterdir() if path.is_dir() or path.suffix == ".py"}
    found -= {"__init__", "__main__", "__pycache__"}
    assert found <= set(layers())


def test_every_folder_with_code_is_a_package():
    # import-linter and the wheel see packages only: code elsewhere would escape them.
    assert [name_of(path) for path in SOURCES if not (path.parent / "__init__.py").exists()] == []


# ------------------------------------------------------------------------------------------------------- sizes


def functions(path: Path) -> Iterator[tuple[str, int]]:
    """The functions of a file, as "file::Class.function", each with its length in lines, decorators aside."""

    def walk(node: ast.AST, prefix: str) -> Iterator[tuple[str, int]]:
        for child in ast.iter_child_nodes(node):
            inner = prefix
            if isinstance(child, ast.ClassDef | ast.FunctionDef | ast.AsyncFunctionDef):
                inner = f"{prefix}.{child.name}" if prefix else child.name
                if not isinstance(child, ast.ClassDef):
                    yield f"{name_of(path)}::{inner}", child.end_lineno - child.lineno + 1
            yield from walk(child, inner)

    yield from walk(ast.parse(path.read_text()), "")


def ratchet(sizes: dict[str, int], limit: int, debts: dict[str, int]) -> list[str]:
    """What breaks the limit, beyond the debts; and debts that are smaller by now than their entry says."""
    wrong = [
        f"{name}: {size} lines, {debts.get(name, limit)} at most"
        for name, size in sizes.items()
        if size > debts.get(name, limit)
    ]
    for name, debt in debts.items():
        size = sizes.get(name, 0)
        if size <= limit:
            wrong.append(f"{name}: paid, take the entry out")
        elif size < debt:
            wrong.append(f"{name}: {size} lines now, lower the entry")
    return wrong


def test_files_fit_in_the_head():
    sizes = {name_of(path): len(path.read_text().splitlines()) for path in SOURCES}
    assert ratchet(sizes, FILE_LINES_MAX, LONG_FILES) == []


def test_functions_fit_on_a_screen():
    sizes = dict(found for path in SOURCES for found in functions(path))
    assert ratchet(sizes, FUNCTION_LINES_MAX, LONG_FUNCTIONS) == []


def test_the_ratchet_turns_one_way():
    sizes = {"a": 10, "b": 25, "c": 31}
    assert ratchet(sizes, 20, {"b": 25, "c": 31}) == []
    assert ratchet(sizes, 20, {"b": 25, "c": 30}) == ["c: 31 lines, 30 at most"]
    assert ratchet(sizes, 20, {"a": 25, "b": 27, "c": 31}) == [
        "a: paid, take the entry out",
        "b: 25 lines now, lower the entry",
    ]


# ------------------------------------------------------------------------------------------- tools and version


@pytest.mark.parametrize("path", [*TOOLS, ROOT / ".ci" / "run"], ids=name_of)
def test_tools_can_be_run(path: Path):
    assert os.access(path, os.X_OK)
    assert path.read_bytes().startswith(b"#!/usr/bin/env ")


def test_one_version_everywhere():
    assert shardfs.__version__ == project()["project"]["version"] == importlib.metadata.version("shardfs")


def run(*command: str | Path, **environment: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        list(map(str, command)),
        capture_output=True,
        text=True,
        check=False,
        stdin=subprocess.DEVNULL,
        timeout=200,
        env=os.environ | environment,
    )


def test_shardfs_put_is_the_command_put():
    tool = run(ROOT / "tools" / "shardfs-put", "--help")
    command = run(sys.executable, "-m", "shardfs", "put", "--help")
    assert (tool.returncode, tool.stdout, tool.stderr) == (0, command.stdout, "")


@pytest.mark.parametrize("there", [[], ["click"]], ids=["nothing there", "click there"])
def test_shardfs_put_says_what_is_missing(tmp_path: Path, there: list[str]):
    # A checkout without an environment, started by a Python that has none of the packages, or the one of the help.
    (tmp_path / "tools").mkdir()
    script = tmp_path / "tools" / "shardfs-put"
    script.write_bytes((ROOT / "tools" / "shardfs-put").read_bytes())
    (tmp_path / "pyproject.toml").symlink_to(ROOT / "pyproject.toml")
    (tmp_path / "shardfs").symlink_to(PACKAGE)
    packages = tmp_path / "packages"
    packages.mkdir()
    for name in there:
        (packages / name).symlink_to(Path(importlib.import_module(name).__file__ or "").parent)
    ended = run("env", f"PYTHONPATH={packages}", sys.executable, "-S", script, "model")
    assert (ended.returncode, ended.stdout) == (1, "")
    said = re.fullmatch(r"shardfs-put: error: missing packages: (.+); run tools/setup\n", ended.stderr)
    assert said, ended.stderr
    needed = {re.split("[^a-z0-9-]", line)[0].replace("-", "_") for line in project()["project"]["dependencies"]}
    assert set(said[1].split(", ")) == needed - set(there)


def test_setup_knows_its_extras():
    ended = run(ROOT / "tools" / "setup", "everything")
    assert (ended.returncode, ended.stdout) == (2, "")
    (line,) = ended.stderr.splitlines()
    assert set(project()["project"]["optional-dependencies"]) == set(line.split("there are:")[1].split())


# ------------------------------------------------------------------------------------------------------- links


def broken_links(page: Path) -> list[str]:
    """Relative links of a page that lead nowhere; what stands in code is not a link."""
    text = re.sub(r"^(```|~~~).*?^\1|`[^`\n]*`", "", page.read_text(), flags=re.MULTILINE | re.DOTALL)
    targets = re.findall(r"\]\(\s*<?([^)\s>]+)", text) + re.findall(r"^\[[^]]+\]:\s*(\S+)", text, re.MULTILINE)
    relative = [target for target in targets if not re.match(r"[a-z][a-z0-9+.-]*:|#|//", target)]
    return [target for target in relative if not (page.parent / target.split("#")[0]).exists()]


@pytest.mark.parametrize(
    "page", [path for path in [ROOT / "README.md", *(ROOT / "docs").rglob("*.md")] if path.exists()], ids=name_of
)
def test_links_lead_somewhere(page: Path):
    assert broken_links(page) == []


def test_a_broken_link_is_seen(tmp_path: Path):
    page = tmp_path / "page.md"
    page.write_text("[a](page.md#x) [b](gone.md) `[c](no.md)` [d](https://e.org) [e](#x)\n\n[f]: lost.md\n")
    assert broken_links(page) == ["gone.md", "lost.md"]


# --------------------------------------------------------------------------------------------------- the guard

SKIPPING = """
import pytest

@pytest.mark.frameworks
def test_skips():
    pytest.skip("not today")

def test_passes():
    pass
"""
SKIPPING_AS_A_WHOLE = """
import pytest

pytest.importorskip("a_package_that_is_not_there")
pytestmark = pytest.mark.frameworks
"""


@pytest.mark.parametrize(
    ("text", "why"),
    [(SKIPPING, "not today"), (SKIPPING_AS_A_WHOLE, "a_package_that_is_not_there")],
    ids=["test", "file"],
)
@pytest.mark.parametrize(("ci", "left_out", "fails"), [("true", "0", True), ("", "0", False), ("true", "1", False)])
def test_a_silent_skip_fails_the_run(tmp_path: Path, text: str, why: str, ci: str, left_out: str, fails: bool):
    (tmp_path / "test_sample.py").write_text(text)
    (tmp_path / "test_other.py").write_text("def test_passes(): pass\n")
    (tmp_path / "pytest.ini").write_text("[pytest]\nmarkers = frameworks\n")
    ended = run(
        *(sys.executable, "-m", "pytest", "-p", "plugin_guard", "-c", tmp_path / "pytest.ini", tmp_path),
        PYTHONPATH=str(ROOT / "tests"),
        CI=ci,
        SHARDFS_NO_FRAMEWORKS=left_out,
    )
    assert ended.returncode == (1 if fails else 0), ended.stdout
    said = ended.stdout.partition("skipped although they could have run")[2]
    assert ("frameworks: this is CI" in said and why in said) == fails
