"""How reports look: rich tables on a terminal, plain aligned columns elsewhere, one JSON document with `--json`.

Plain text has no borders, colours or wrapping: `awk` and `grep` work on it. JSON keys are part of the interface and are
named in each command's help; digests are hex, sizes bytes, times seconds since 1970, what is unknown null.

Names come from others. A control character in one never reaches a terminal: it is shown as `\\x9b`, in JSON `\\u009b`.
"""

from __future__ import annotations

import json
import re
import sys
import time
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import click

from shardfs.core.units import format_size
from shardfs.errors import ShardfsError

if TYPE_CHECKING:  # it brings trio, which the help does not need
    from shardfs.admin.copies import Replaced
    from shardfs.api.catalogue import Reach


_UNFIT = re.compile(r"[\x00-\x1f\x7f-\x9f\ud800-\udfff]")
"""Controls, and what stands for bytes of a local name that are no UTF-8."""


class NotWritten(ShardfsError):
    """A report could not be written: stdout is closed, or its disk full."""


@dataclass(frozen=True, slots=True)
class Column:
    """A heading; numbers stand to the right."""

    title: str
    right: bool = False


def emit_json(document: Mapping[str, Any]) -> None:
    """One document on stdout."""
    text = json.dumps(document, indent=2, ensure_ascii=False, default=str)  # which escapes those below 0x20
    say("\n".join(_UNFIT.sub(lambda found: f"\\u{ord(found[0]):04x}", line) for line in text.split("\n")))


def table(columns: Sequence[Column], rows: Iterable[Sequence[str]]) -> None:
    """Rows under headings."""
    body = [[printable(str(cell)) for cell in row] for row in rows]
    if sys.stdout is not None and sys.stdout.isatty():
        _rich_table(columns, body)
    else:
        _plain_table(columns, body)


def facts(pairs: Iterable[tuple[str, str]]) -> None:
    """Labels and values, one a line, aligned."""
    listed = list(pairs)
    width = max((len(label) for label, _ in listed), default=0)
    for label, value in listed:
        say(f"{label:<{width}}  {printable(value)}")


def warn(message: str) -> None:
    """A line on stderr that does not stop anything."""
    click.echo(f"shardfs: {printable(message)}", err=True)


def say(text: str = "") -> None:
    """Lines of a report on stdout. NotWritten, or BrokenPipeError when its reader has gone."""
    if sys.stdout is None:  # it was closed when the program began
        raise NotWritten("cannot write to stdout: it is closed")
    try:
        click.echo(text)
    except BrokenPipeError:
        raise
    except OSError as error:
        raise not_written(error) from None


def not_written(error: OSError) -> NotWritten:
    """What it means that stdout failed so."""
    return NotWritten(f"cannot write to stdout: {error.strerror}")


def printable(text: str) -> str:
    """`text` on one line, with what a terminal would obey shown as `\\x1b`."""
    return _UNFIT.sub(_escaped, text)


def _escaped(found: re.Match[str]) -> str:
    number = ord(found[0])
    return f"\\x{number - 0xDC00 if 0xDC80 <= number <= 0xDCFF else number:02x}"


def reach_json(reach: Reach) -> dict[str, Any]:
    """The part of a document that says who answered."""
    return {"answered": list(reach.answered), "failed": dict(reach.failed), "majority": reach.majority}


def warn_reach(reach: Reach) -> None:
    """Say when what was printed may not be the newest."""
    if not reach.majority:
        away = "; ".join(f"{node}: {reason}" for node, reason in reach.failed.items())
        warn(f"fewer than a majority of the nodes answered, something newer may exist ({away})")


def warn_replaced(nodes: Mapping[str, Replaced]) -> None:
    """Say which owners did not get what they should have."""
    for node, replaced in nodes.items():
        warn(f"node {node}: {replaced.reason}; {replaced.chunks} chunks went to other nodes instead")


def exact_size(count: int) -> str:
    """`1.50 GiB (1610612736 bytes)`."""
    return f"{format_size(count)} ({count} bytes)" if count >= 1024 else f"{count} bytes"


def shown_size(size: int | None) -> str:
    return "?" if size is None else format_size(size)


def shown_time(seconds: int | None) -> str:
    """Local time to the minute, also of a year with five digits, which a manifest may have and `datetime` has not."""
    if seconds is None:
        return "?"
    return time.strftime("%Y-%m-%d %H:%M", time.localtime(seconds))


def _plain_table(columns: Sequence[Column], body: list[list[str]]) -> None:
    lines = [[column.title for column in columns], *body]
    widths = [max(len(line[i]) for line in lines) for i in range(len(columns))]
    for line in lines:
        cells = [
            cell.rjust(width) if column.right else cell.ljust(width)
            for cell, width, column in zip(line, widths, columns, strict=True)
        ]
        say("  ".join(cells).rstrip())


def _rich_table(columns: Sequence[Column], body: list[list[str]]) -> None:
    from rich.box import SIMPLE_HEAD
    from rich.console import Console
    from rich.table import Table
    from rich.text import Text

    shown = Table(box=SIMPLE_HEAD, pad_edge=False, header_style="bold")
    for column in columns:
        shown.add_column(column.title, justify="right" if column.right else "left", overflow="fold")
    for line in body:
        shown.add_row(*(Text(cell) for cell in line))
    Console().print(shown)
