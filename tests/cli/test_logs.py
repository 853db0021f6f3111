"""The log of a daemon stays small, goes on whatever happens to its file, and has what goes to stderr as well."""

import logging
import os
import subprocess
import sys
import threading

import pytest

from shardfs.cli import log_file
from shardfs.cli.log_file import LOG_BYTES_MAX, BoundedLog

LIMIT = 2000


@pytest.fixture
def path(tmp_path):
    return tmp_path / "state" / "mount.log"


@pytest.fixture
def stderr(tmp_path):
    """A descriptor that stands for stderr."""
    descriptor = os.open(tmp_path / "stderr", os.O_WRONLY | os.O_CREAT)
    yield descriptor
    os.close(descriptor)


@pytest.fixture
def log(path, stderr):
    opened = []

    def opening():
        opened.append(BoundedLog(path, limit_bytes=LIMIT, follow=(stderr,)))
        return opened[-1]

    yield opening
    for handler in opened:
        handler.close()


def say(handler, text):
    handler.handle(logging.LogRecord("shardfs", logging.WARNING, __file__, 1, text, (), None))


def sizes(path):
    """What lies in the folder of the log, with sizes."""
    return {file.name: file.stat().st_size for file in path.parent.iterdir()}


def test_two_files_and_no_more(log, path, stderr):
    handler = log()
    for number in range(1000):
        say(handler, f"line {number}")
        os.write(stderr, b"stderr %d\n" % number)
    assert sizes(path).keys() == {"mount.log", "mount.log.1"}
    assert all(size <= LIMIT + len("stderr 999\n") for size in sizes(path).values())
    both = (path.with_name("mount.log.1").read_text() + path.read_text()).split("\n")
    expected = [f"{kind} {number}" for number in range(1000) for kind in ("line", "stderr")]
    assert both[:-1] == expected[-len(both) + 1 :]


def test_an_earlier_log_is_gone_on_with(log, path):
    path.parent.mkdir()
    path.write_text("of yesterday\n")
    say(log(), "of today")
    assert path.read_text() == "of yesterday\nof today\n"


@pytest.mark.parametrize("quiet", [True, False])
def test_what_floods_stderr_is_cut_off(log, path, stderr, quiet):
    handler = log()
    for number in range(100):
        os.write(stderr, b"%04d\n" % number * LIMIT)
    os.write(stderr, b"the cause\n")
    if quiet:
        handler.look()
    else:
        say(handler, "a line")
    os.write(stderr, b"after\n")
    older = path.with_name("mount.log.1").read_bytes()
    assert older == (b"0099\n" * LIMIT + b"the cause\n")[-LIMIT:]
    assert path.read_text() == ("" if quiet else "a line\n") + "after\n"


def test_a_long_end_is_kept_in_pieces(path):
    """Longer than one piece, and overlapping with where it goes."""
    limit = 2_000_000
    said = b"".join(b"%08d\n" % number for number in range(300_000))
    path.parent.mkdir()
    path.write_bytes(said)
    handler = BoundedLog(path, limit_bytes=limit, follow=())
    handler.look()
    handler.close()
    assert path.with_name("mount.log.1").read_bytes() == said[-limit:]


@pytest.mark.parametrize("mode", [0o600, 0o664])
@pytest.mark.parametrize("what", ["too long", "removed"])
def test_the_next_file_has_the_mode_of_the_last(log, path, mode, what):
    handler = log()
    path.chmod(mode)
    say(handler, "x" * LIMIT)
    if what == "removed":
        path.unlink()
    say(handler, "after")
    assert path.read_text() == "after\n"
    assert path.stat().st_mode & 0o777 == mode
    if what == "too long":
        assert path.with_name("mount.log.1").stat().st_mode & 0o777 == mode


def test_a_file_that_another_has_made_keeps_its_mode(log, path):
    handler = log()
    say(handler, "before")
    path.unlink()
    path.touch()
    path.chmod(0o640)
    say(handler, "after")
    assert path.stat().st_mode & 0o777 == 0o640


@pytest.mark.parametrize("what", ["removed", "moved", "folder removed"])
def test_a_file_that_is_taken_away_is_replaced(log, path, stderr, what):
    handler = log()
    say(handler, "before")
    if what == "moved":  # as logrotate does
        path.rename(path.with_name("mount.log-20260101"))
        path.touch()
    else:
        path.unlink()
    if what == "folder removed":
        path.parent.rmdir()
    say(handler, "after")
    os.write(stderr, b"stderr\n")
    assert path.read_text() == "after\nstderr\n"


def test_a_file_that_is_emptied_in_place(log, path):
    """logrotate's copytruncate."""
    handler = log()
    say(handler, "before")
    os.truncate(path, 0)
    say(handler, "after")
    assert path.read_text() == "after\n"


def test_a_full_disk_costs_lines_and_nothing_else(log, path, capfd):
    path.parent.mkdir()
    path.symlink_to("/dev/full")
    handler = log()
    for number in range(100):
        say(handler, f"line {number}")
    path.unlink()
    say(handler, "after")
    assert path.read_text() == "after\n"
    assert capfd.readouterr() == ("", "")


def test_a_disk_that_is_full_when_the_file_is_due_to_be_replaced(log, path, capfd):
    """What the buffer still has cannot be written, so the close fails too."""
    handler = log()
    say(handler, "x" * LIMIT)
    full = os.open("/dev/full", os.O_WRONLY)
    os.dup2(full, handler.stream.fileno())
    os.close(full)
    handler.stream.write("cannot be written")
    handler.doRollover()
    say(handler, "after")
    assert path.read_text() == "after\n"
    assert sizes(path)["mount.log.1"] == LIMIT
    assert capfd.readouterr() == ("", "")


def test_where_nothing_can_be_renamed_the_file_starts_anew(log, path):
    handler = log()
    path.with_name("mount.log.1").mkdir()
    for number in range(1000):
        say(handler, f"line {number}")
    assert sizes(path)["mount.log"] <= LIMIT
    assert path.read_text().endswith("line 998\nline 999\n")


def test_a_line_that_is_no_line_is_said_so(log, path, capsys):
    """A wrong call of logging is a bug, and is seen."""
    handler = log()
    handler.handle(logging.LogRecord("shardfs", logging.WARNING, __file__, 1, "%d", ("no number",), None))
    assert "Logging error" in capsys.readouterr().err
    say(handler, "after")
    assert path.read_text() == "after\n"


def test_its_lock_is_one_for_every_python_and_nobody_waits_for_it(log, path):
    """Up to 3.12 logging acquires it if it is there, from 3.13 on it enters it unasked."""
    handler = log()
    handler.lock.acquire()
    with handler.lock:
        other = threading.Thread(target=say, args=(handler, "from another thread"), daemon=True)
        other.start()
        other.join(30)
    handler.lock.release()
    assert path.read_text() == "from another thread\n"


PROGRAM = """\
import logging, sys
from pathlib import Path
from shardfs.cli import log_file
from shardfs.cli.log_file import log_to_file
from shardfs.cli.logs import log_to_stderr
log_file.STOP_SECONDS = {stop}
log_to_stderr(debug=False)
with log_to_file(Path(sys.argv[1])):
    {body}
{after}
"""


def program(path, body, after="", stop=30.0):
    """`stop`: how long its end waits for the disk. Where lines are to be there, that is no matter of two seconds."""
    text = PROGRAM.replace("{body}", body).replace("{after}", after).replace("{stop}", str(stop))
    command = [sys.executable, "-c", text, str(path)]
    return subprocess.run(command, capture_output=True, text=True, timeout=60, check=False)


def test_a_process_logs_with_time_and_its_last_lines_are_there(path):
    body = 'logging.getLogger("shardfs").warning("%s", "hello"); sys.stdout.write("and stdout\\n"); sys.stdout.flush()'
    done = program(path, body, after='logging.getLogger("shardfs").warning("on stderr again")')
    assert (done.returncode, done.stdout, done.stderr) == (0, "", "")
    hello, *rest = sorted(path.read_text().splitlines())
    assert rest == ["and stdout", "shardfs: on stderr again"]
    assert hello.startswith("20")
    assert hello.endswith(" WARNING hello")


def test_a_traceback_is_there(path):
    assert program(path, "raise RuntimeError('a bug')").returncode == 1
    assert path.read_text().endswith("RuntimeError: a bug\n")


def test_nobody_waits_for_a_log_that_does_not_take_anything(path):
    """A pipe that nobody empties is a disk that hangs. More lines than may wait are logged, and the program ends."""
    path.parent.mkdir()
    os.mkfifo(path)
    reader = os.open(path, os.O_RDONLY | os.O_NONBLOCK)
    try:
        body = "[logging.getLogger('shardfs').warning('x' * 100) for _ in range(20_000)]"
        assert program(path, body, stop=log_file.STOP_SECONDS).returncode == 0
    finally:
        os.close(reader)


@pytest.mark.fuse
def test_a_log_that_is_a_link_stays_one(path):
    """The daemon ends at once for want of a cluster; before that its first line replaces a file that is full."""
    path.parent.mkdir()
    path.touch()
    os.truncate(path, LOG_BYTES_MAX)
    link = path.with_name("link")
    link.symlink_to(path.name)
    command = [sys.executable, "-m", "shardfs", "mount", str(path.parent / "m"), "--cluster", str(path.parent / "no")]
    command += ["--log-file", str(link)]
    done = subprocess.run(command, capture_output=True, text=True, timeout=60, check=False)
    assert done.returncode != 0
    assert os.readlink(link) == path.name
    assert sizes(path).keys() == {"link", "mount.log", "mount.log.1"}
    assert "mounting" in path.read_text()
