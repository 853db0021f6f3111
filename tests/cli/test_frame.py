"""What every command has in common: help that is quick, exit statuses, one line for an error, quiet ends."""

import os
import signal
import socket
import subprocess
import sys

import click
import pytest
from click.testing import CliRunner

import shardfs
from shardfs.cli import COMMANDS, main
from shardfs.cli.frame import CommandTable, report
from shardfs.errors import InvalidName, NotFound, StoreError


def run(*arguments, **options):
    """In a process of its own, as a user runs it."""
    command = [sys.executable, "-m", "shardfs", *arguments]
    return subprocess.run(command, capture_output=True, text=True, timeout=60, check=False, **options)


@pytest.fixture
def failing():
    """The frame around a command that raises what it is given."""

    def make(error):
        table = CommandTable("shardfs", table={})

        @table.command()
        def go():
            raise error

        table.get_command = lambda ctx, name: go
        return CliRunner().invoke(table, ["go"], prog_name="shardfs")

    return make


def test_help_lists_every_command_and_imports_none_of_their_libraries():
    heavy = ["trio", "rich", "numpy", "msgspec", "blake3", "h11", "pyfuse3", "tomllib", "asyncio"]
    script = f"""
import sys
from shardfs.cli import main
try:
    main(["--help"], prog_name="shardfs")
except SystemExit as end:
    assert end.code == 0
sys.stderr.write(",".join(name for name in {heavy} if name in sys.modules))
"""
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True)
    assert done.stderr == ""
    for name, line in COMMANDS.items():
        assert name in done.stdout
        assert line in done.stdout


@pytest.mark.parametrize("name", COMMANDS)
def test_every_command_has_a_help(name):
    help_of_command = CliRunner().invoke(main, [name, "-h"], prog_name="shardfs")
    assert help_of_command.exit_code == 0
    assert help_of_command.stdout.startswith(f"Usage: shardfs {name}")


def test_version():
    assert run("--version").stdout == f"shardfs {shardfs.__version__}\n"


@pytest.mark.parametrize("arguments", [["no-such-command"], ["ls", "--no-such-option"], ["info"], ["info", "a@x"]])
def test_wrong_usage_is_2(arguments):
    assert run(*arguments).returncode == 2


@pytest.mark.parametrize(
    ("error", "status", "line"),
    [
        (NotFound("m: no such model"), 1, "shardfs: m: no such model\n"),
        (InvalidName("bad"), 2, "shardfs: bad\n"),
        (ExceptionGroup("nursery", [ExceptionGroup("inner", [NotFound("deep")])]), 1, "shardfs: deep\n"),
        (ExceptionGroup("nursery", [NotFound("first"), InvalidName("second")]), 2, "shardfs: first\n"),
        (StoreError("a", "refused"), 1, "shardfs: node a: refused\n"),
        (NotFound("m\x9b2J\x1b[m"), 1, "shardfs: m\\x9b2J\\x1b[m\n"),
        (
            ValueError("a bug"),
            1,
            "shardfs: unexpected ValueError: a bug (for the traceback: shardfs --debug ...)\n",
        ),
        (
            ExceptionGroup("nursery", [NotFound("x"), ValueError("a bug")]),
            1,
            "shardfs: unexpected ValueError: a bug (for the traceback: shardfs --debug ...)\n",
        ),
        (BaseExceptionGroup("nursery", [KeyboardInterrupt(), NotFound("x")]), 130, ""),
        (click.exceptions.Abort(), 130, "Aborted!\n"),
        (click.exceptions.Exit(3), 3, ""),
        (SystemExit(143), 143, ""),
    ],
)
def test_what_a_failure_looks_like(failing, error, status, line):
    done = failing(error)
    assert (done.exit_code, done.stderr, done.stdout) == (status, line, "")


def test_debug_shows_the_traceback(capfd):
    with pytest.raises(ValueError, match="a bug") as caught:
        raise ValueError("a bug")
    assert report(caught.value, debug=True) == 1
    text = capfd.readouterr().err
    assert text.startswith("Traceback")
    assert text.endswith("shardfs: unexpected ValueError: a bug\n")


def test_an_error_in_a_process_of_its_own_is_one_line(tmp_path):
    done = run("ls", "--cluster", str(tmp_path / "none.toml"))
    assert (done.returncode, done.stdout) == (2, "")
    assert done.stderr == f"shardfs: {tmp_path}/none.toml: no such cluster file (named by --cluster)\n"


def test_a_reader_that_went_away_is_no_error_message(models):
    environment = os.environ | {"SHARDFS_CLUSTER": str(models.cluster_file)}
    reading, writing = os.pipe()
    os.close(reading)
    with os.fdopen(writing, "wb") as pipe:
        done = subprocess.run(
            [sys.executable, "-m", "shardfs", "ls"], stdout=pipe, stderr=subprocess.PIPE, env=environment, check=False
        )
    assert (done.returncode, done.stderr) == (1, b"")


def test_a_report_that_cannot_be_written_is_one_line(models):
    environment = os.environ | {"SHARDFS_CLUSTER": str(models.cluster_file)}
    for to, why, unbuffered in [
        (">&-", "it is closed", ""),
        (">/dev/full", "No space left on device", ""),
        (">/dev/full", "No space left on device", "1"),
    ]:
        for arguments in (["ls"], ["ls", "-l", "--json"], ["info", "one"]):
            done = subprocess.run(
                ["sh", "-c", f'exec "$@" {to}', "sh", sys.executable, "-m", "shardfs", *arguments],
                capture_output=True,
                text=True,
                env=environment | {"PYTHONUNBUFFERED": unbuffered},
                check=False,
            )
            assert (done.returncode, done.stderr) == (1, f"shardfs: cannot write to stdout: {why}\n")


def test_closed_descriptors_are_not_given_to_files():
    """A traceback of the interpreter would be written to whatever has the number of stderr."""
    script = """
import os
from shardfs.cli import main
try:
    main(["--version"], prog_name="shardfs")
except SystemExit as end:
    assert end.code == 0
assert os.open(".", os.O_RDONLY) > 2
"""
    done = subprocess.run(["sh", "-c", 'exec "$@" <&- >&- 2>&-', "sh", sys.executable, "-c", script], check=False)
    assert done.returncode == 0


IMPORTING = """
import os, runpy, signal, sys
from importlib.abc import MetaPathFinder

at, sys.argv = sys.argv[1], ["shardfs", *sys.argv[2:]]

class Interrupt(MetaPathFinder):
    def find_spec(self, name, path, target=None):
        if name == at:
            os.kill(os.getpid(), signal.SIGINT)

sys.meta_path.insert(0, Interrupt())
runpy.run_module("shardfs", run_name="__main__", alter_sys=True)
"""


@pytest.mark.parametrize("at", ["click", "shardfs.cli.options", "trio"])
def test_ctrl_c_while_it_imports_is_no_traceback(at):
    command = [sys.executable, "-c", IMPORTING, at, "ls"]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert (done.returncode, done.stdout, done.stderr) == (-signal.SIGINT, "", "")


def test_who_ignores_ctrl_c_goes_on_ignoring_it():
    """As a job that a script has started in the background."""
    command = ["sh", "-c", 'trap "" INT; exec "$@"', "sh", sys.executable, "-c", IMPORTING, "click", "--help"]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert (done.returncode, done.stderr) == (0, "")


def test_ctrl_c_is_130_without_a_traceback(tmp_path):
    with socket.create_server(("127.0.0.1", 0)) as silent:
        cluster = tmp_path / "cluster.toml"
        cluster.write_text(f'replicas = 1\n[[nodes]]\nid = "a"\nurl = "http://127.0.0.1:{silent.getsockname()[1]}"\n')
        process = subprocess.Popen(
            [sys.executable, "-m", "shardfs", "ls", "--cluster", str(cluster)],
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )
        silent.settimeout(30)
        with silent.accept()[0]:  # now it waits for an answer that never comes
            process.send_signal(signal.SIGINT)
            out, errors = process.communicate(timeout=30)
    assert (process.returncode, out, errors.strip()) == (130, "", "")


def test_shell_completion_knows_the_commands():
    environment = os.environ | {
        "_SHARDFS_COMPLETE": "bash_complete",
        "COMP_WORDS": "shardfs stat",
        "COMP_CWORD": "1",
    }
    script = "from shardfs.cli import main; main(prog_name='shardfs')"
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, env=environment, check=False)
    assert done.stdout == "plain,status\n"
