"""The frame around every command: lazy import, and what a failure looks like to the user.

| ended by | stderr | exit status |
|---|---|---|
| success | | 0 |
| wrong usage, `UsageError` | one line (click's own in its usual form) | 2 |
| another `ShardfsError` | `shardfs: ...` | 1 |
| Ctrl-C | | 130 |
| the reader of a pipe went away | | 1 |
| anything else | one line, hint to `--debug` | 1 |

A nursery wraps errors in groups; the frame shows what is inside.
"""

import importlib
import os
import sys
import traceback
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import click

from shardfs.errors import ShardfsError


class CommandTable(click.Group):
    """A group whose commands are modules `shardfs.cli.<name>`, imported when they are needed.

    `table` gives each name its line in the help, so that the help imports nothing.
    """

    def __init__(self, *args: Any, table: Mapping[str, str], **extra: Any) -> None:
        super().__init__(*args, **extra)
        self.table = table

    def list_commands(self, ctx: click.Context) -> list[str]:  # noqa: ARG002 - click's signature
        return list(self.table)

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:  # noqa: ARG002 - click's signature
        if cmd_name not in self.table:
            return None
        command = importlib.import_module(f"shardfs.cli.{cmd_name}").command
        assert isinstance(command, click.Command)
        return command

    def format_commands(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:  # noqa: ARG002 - click's signature
        with formatter.section("Commands"):
            formatter.write_dl(list(self.table.items()))

    def main(
        self,
        args: Sequence[str] | None = None,
        prog_name: str | None = None,
        complete_var: str | None = None,
        standalone_mode: bool = True,
        **extra: Any,
    ) -> Any:
        """Run and exit. Without `standalone_mode`, exceptions come out as they are."""
        if not standalone_mode:
            return super().main(args, prog_name, complete_var, standalone_mode=False, **extra)
        seen: dict[str, Any] = {}
        try:
            status = super().main(args, prog_name, complete_var, standalone_mode=False, obj=seen, **extra) or 0
            sys.stdout.flush()
        except BaseException as error:  # noqa: BLE001 - the one place that turns them into an exit status
            status = report(error, debug=seen.get("debug", False))
        sys.exit(status)


def report(error: BaseException, *, debug: bool) -> int:
    """Say on stderr what ended the command; return its exit status."""
    causes = list(leaves(error))
    for kind in (KeyboardInterrupt, click.exceptions.Abort):
        if any(isinstance(cause, kind) for cause in causes):
            return 130
    first = causes[0]
    if all(isinstance(cause, BrokenPipeError) for cause in causes):
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())  # or the interpreter's last flush complains
        return 1
    if isinstance(first, click.ClickException):
        first.show()
        return first.exit_code
    if isinstance(first, SystemExit):
        return first.code if isinstance(first.code, int) else 1
    if debug:
        traceback.print_exception(error)
    if all(isinstance(cause, ShardfsError) for cause in causes):
        click.echo(f"shardfs: {first}", err=True)
        return max(cause.exit_status for cause in causes if isinstance(cause, ShardfsError))
    unexpected = next(cause for cause in causes if not isinstance(cause, ShardfsError))
    hint = "" if debug else " (for the traceback: shardfs --debug ...)"
    click.echo(f"shardfs: unexpected {type(unexpected).__name__}: {unexpected}{hint}", err=True)
    return 1


def leaves(error: BaseException) -> Iterator[BaseException]:
    """The exceptions inside of exception groups, however deep."""
    if isinstance(error, BaseExceptionGroup):
        for inner in error.exceptions:
            yield from leaves(inner)
    else:
        yield error
