"""`shardfs rm` on a terminal, where it asks before it deletes."""

import os
import pty
import selectors
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest


@pytest.mark.parametrize(
    ("answer", "status", "ending"),
    [
        (signal.SIGINT, 130, "\nAborted!\n"),
        (b"\x04", 130, "\nAborted!\n"),  # Ctrl-D
        (b"n\n", 130, "Aborted!\n"),
        (b"y\n", 0, ""),
    ],
    ids=["ctrl-c", "end", "no", "yes"],
)
def test_the_question_and_its_answers(models, answer, status, ending):
    ours, theirs = pty.openpty()
    process = subprocess.Popen(
        [sys.executable, "-m", "shardfs", "rm", "one", "--cluster", models.cluster_file],
        stdin=theirs,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        bufsize=0,
    )
    os.close(theirs)
    question = b"Delete one with all its generations? [y/N]: "
    with process:
        try:
            asked = read_as_far_as(process.stderr, question)
            if isinstance(answer, bytes):
                os.write(ours, answer)
            else:
                wait_until_it_waits(process.pid)
                process.send_signal(answer)
            _, rest = process.communicate(timeout=60)
        except BaseException:
            process.kill()
            raise
    os.close(ours)
    assert (process.returncode, (asked + rest).decode()) == (status, question.decode() + ending)
    assert [model["name"] for model in models.json("ls")["models"]] == ["one", "team/bert"][status == 0 :]


def wait_until_it_waits(pid, seconds=60):
    """For the answer: a signal just before would be heard only after it."""
    last = time.monotonic() + seconds
    while Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] != "S":
        assert time.monotonic() < last
        time.sleep(0.01)


def read_as_far_as(stream, end, seconds=60):
    """All up to and with `end`; whatever hangs, no longer than that for a piece of it."""
    text = b""
    with selectors.DefaultSelector() as ready:
        ready.register(stream, selectors.EVENT_READ)
        while not text.endswith(end):
            assert ready.select(seconds), text
            piece = stream.read(1)
            assert piece, text
            text += piece
    return text
