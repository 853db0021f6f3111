"""Reading the documentation as data: its fenced blocks, its tables, and the places in the code that it names."""

import dataclasses
import importlib
import inspect
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parent.parent
PAGES = [ROOT / "README.md", ROOT / "CONTRIBUTING.md", *sorted((ROOT / "docs").rglob("*.md"))]

_FENCE = re.compile(r"^(?P<fence>```+|~~~+)(?P<info>[^\n]*)\n(?P<body>.*?)^(?P=fence)\s*$", re.MULTILINE | re.DOTALL)
_UNITS = {"": 1, "B": 1, "bytes": 1, "KiB": 2**10, "MiB": 2**20, "GiB": 2**30, "ms": 0.001, "s": 1, "%": 0.01}


def blocks(page: Path) -> Iterator[tuple[str, str]]:
    """Info string and text of every fenced block."""
    for found in _FENCE.finditer(page.read_text()):
        yield found["info"].strip(), found["body"]


def without_blocks(page: Path) -> str:
    return _FENCE.sub("", page.read_text())


def table(page: Path, *, under: str) -> list[list[str]]:
    """The rows of the first table below the heading `under`, as cells of plain text."""
    text = without_blocks(page)
    start = re.search(rf"^#+ {re.escape(under)}$", text, re.MULTILINE)
    assert start, f"{page.name} has no heading {under!r}"
    found = re.search(r"(?:^\|.*\n)+", text[start.end() :], re.MULTILINE)
    assert found, f"{page.name} has no table under {under!r}"
    return rows(found.group())[1:]


def rows(text: str) -> list[list[str]]:
    """The rows of the tables in `text`, headings included, rulers not."""
    lines = [line for line in text.splitlines() if line.startswith("|") and not re.fullmatch(r"[|\s:-]+", line)]
    return [[cell.strip() for cell in re.split(r"(?<!\\)\|", line)[1:-1]] for line in lines]


def number(text: str) -> float:
    """The number that a cell says: `4 MiB`, `0.25 s`, `2^62`, `1000000`, `5 %`."""
    power = re.fullmatch(r"(\d+)\^(\d+)", text)
    if power:
        return int(power[1]) ** int(power[2])
    plain = re.fullmatch(r"([0-9]+(?:\.[0-9]+)?) ?([A-Za-z%]*)", text)
    assert plain, f"not a number: {text!r}"
    assert plain[2] in _UNITS, f"unknown unit: {text!r}"
    factor = _UNITS[plain[2]]
    return int(plain[1]) * factor if plain[1].isdigit() else float(plain[1]) * factor


def in_code(dotted: str) -> Any:
    """What `shardfs.module.NAME`, `shardfs.module.Record.field` (its default) or `...Class.argument` is in the code."""
    parts = dotted.split(".")
    for cut in range(len(parts) - 1, 0, -1):
        try:
            module = importlib.import_module(".".join(parts[:cut]))
        except ModuleNotFoundError:
            continue
        rest = parts[cut:]
        owner = getattr(module, rest[0])
        if len(rest) == 1:
            return owner
        if dataclasses.is_dataclass(owner):
            return next(field.default for field in dataclasses.fields(owner) if field.name == rest[1])
        return inspect.signature(owner).parameters[rest[1]].default
    raise AssertionError(f"no such module: {dotted}")
