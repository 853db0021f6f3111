"""The frame around every command: lazy import, and what a failure looks like to the user.

| ended by | stderr | exit status |
|---|---|---|
| success | | 0 |
| wrong usage, `UsageError` | one line (click's own in its usual form) | 2 |
| another `ShardfsError` | `shardfs: ...` | 1 |
| Ctrl-C or no at a question | `Aborted!` | 130 |
| Ctrl-C | | 130; while it imports, the signal itself, which a shell shows as 130 |
| Ctrl-C and SIGTERM in a put, import or get | `shardfs: stopped ...`, see `shardfs.cli.stopping` | 130, 143 |
| the reader of a pipe went away | | 1 |
| stdout is closed or its disk full | `shardfs: cannot write to stdout: ...` | 1 |
| anything else | one line, hint to `--debug` | 1 |

A nursery wraps errors in groups; the frame shows what is inside.
"""

import importlib
import os
import signal
import sys
import traceback
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import click

from shardfs.cli.output import not_written, printable
from shardfs.errors import ShardfsError

IMPORTS_FIRST = "imports_first"
"""Attribute of a command's function: until it calls `shardfs.cli.options.run` there is nothing to clean up."""


def hear_ctrl_c() -> None:
    """From here on Ctrl-C is KeyboardInterrupt, as usual in Python.

    Before, it ends the program (`shardfs.__main__` sees to that): Python would print it and go on when it comes in a
    callback of the import system, and print a traceback when it comes before the frame is there.
    """
    if signal.getsignal(signal.SIGINT) == signal.SIG_DFL:
        signal.signal(signal.SIGINT, signal.default_int_handler)


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
        if not getattr(command.callback, IMPORTS_FIRST, False):
            hear_ctrl_c()
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
        own_process = signal.getsignal(signal.SIGINT) == signal.SIG_DFL
        try:
            _open_standard_descriptors()
            status = super().main(args, prog_name, complete_var, standalone_mode=False, obj=seen, **extra) or 0
            _flush_stdout()
        except BaseException as error:  # noqa: BLE001 - the one place that turns them into an exit status
            status = report(error, debug=seen.get("debug", False))
        if own_process:
            signal.signal(signal.SIGINT, signal.SIG_DFL)
        _give_up_stdout()
        sys.exit(status)


def report(error: BaseException, *, debug: bool) -> int:
    """Say on stderr what ended the command; return its exit status."""
    causes = list(leaves(error))
    if any(isinstance(cause, KeyboardInterrupt | click.exceptions.Abort) for cause in causes):
        if isinstance(causes[0], click.exceptions.Abort):
            click.echo("Aborted!", err=True)
        return 130
    first = causes[0]
    if all(isinstance(cause, BrokenPipeError) for cause in causes):
        return 1
    if isinstance(first, click.ClickException):
        first.show()
        return first.exit_code
    if isinstance(first, SystemExit):
        return first.code if isinstance(first.code, int) else 1
    if debug:
        traceback.print_exception(error)
    if all(isinstance(cause, ShardfsError) for cause in causes):
        click.echo(f"shardfs: {printable(str(first))}", err=True)
        return max(cause.exit_status for cause in causes if isinstance(cause, ShardfsError))
    unexpected = next(cause for cause in causes if not isinstance(cause, ShardfsError))
    hint = "" if debug else " (for the traceback: shardfs --debug ...)"
    click.echo(f"shardfs: unexpected {type(unexpected).__name__}: {printable(str(unexpected))}{hint}", err=True)
    return 1


def _open_standard_descriptors() -> None:
    """Let no file or connection get the number of a closed one: what is written to stderr would land in it."""
    for number in range(3):
        try:
            os.fstat(number)
        except OSError:
            os.open(os.devnull, os.O_RDWR)  # the lowest number that is free


def _flush_stdout() -> None:
    try:
        if sys.stdout is not None:
            sys.stdout.flush()
    except BrokenPipeError:
        raise
    except OSError as error:
        raise not_written(error) from None


def _give_up_stdout() -> None:
    """What stdout has not taken until now it never will, and the interpreter's last flush would complain."""
    try:
        if sys.stdout is not None:
            sys.stdout.flush()
    except OSError:
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())


def leaves(error: BaseException) -> Iterator[BaseException]:
    """The exceptions inside of exception groups, however deep."""
    if isinstance(error, BaseExceptionGroup):
        for inner in error.exceptions:
            yield from leaves(inner)
    else:
        yield error
