"""Child processes that report when they are ready and never outlive their parent.

Each child asks the kernel for SIGTERM when the *thread* that started it ends (PR_SET_PDEATHSIG), which also covers a
parent that is killed. So that a caller may start children from a passing thread, one thread that lives as long as
the `Children` starts them all. A session of its own keeps the terminal's Ctrl-C away from a child: the parent decides.
"""

import json
import os
import select
import signal
import subprocess
import sys
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

from shardfs.errors import ShardfsError

READY_SECONDS = 30.0
STOP_SECONDS = 10.0
_LOG_TAIL_BYTES = 2000

# Runs in the child before the command: the parent may have died before the kernel was asked.
_BOOT = """\
import ctypes, os, signal, sys
ctypes.CDLL(None).prctl(1, signal.SIGTERM)
if os.getppid() != int(sys.argv[1]):
    sys.exit(1)
os.execv(sys.executable, [sys.executable, "-m", "shardfs", *sys.argv[2:]])
"""


class DidNotStart(ShardfsError):
    """The process ended, or said nothing, before it was ready. The message has the last line of its log."""


class Child:
    """One running `shardfs` command. `ready` is the JSON document that it printed."""

    def __init__(self, process: subprocess.Popen[bytes], ready: dict[str, Any]) -> None:
        self._process = process
        self.ready = ready
        self.pid = process.pid

    @property
    def running(self) -> bool:
        return self._process.poll() is None

    def send(self, signal_number: int) -> None:
        """A signal, unless the process has ended."""
        if self.running:
            self._process.send_signal(signal_number)

    def pause(self) -> None:
        """SIGSTOP, and wait until it has stopped."""
        self.send(signal.SIGSTOP)
        os.waitid(os.P_PID, self.pid, os.WSTOPPED | os.WEXITED | os.WNOWAIT)

    def kill(self, signal_number: int = signal.SIGKILL) -> None:
        """End it with this signal and wait for that. DidNotStart never; subprocess.TimeoutExpired if it lives on."""
        self.send(signal_number)
        self.send(signal.SIGCONT)
        self._process.wait(STOP_SECONDS)
        self._close()

    def stop(self) -> int:
        """SIGTERM, SIGKILL when that takes too long; the exit status."""
        try:
            self.kill(signal.SIGTERM)
        except subprocess.TimeoutExpired:
            self.kill()
        return self._process.returncode

    def _close(self) -> None:
        assert self._process.stdout is not None
        self._process.stdout.close()


class Children:
    """Starts children; a context manager, whose end must come after that of the children."""

    def __init__(self, environment: dict[str, str]) -> None:
        self._environment = environment
        self._starter = ThreadPoolExecutor(1, "shardfs-children")

    def close(self) -> None:
        self._starter.shutdown()

    def start(self, arguments: list[str], log: Path) -> Child:
        """Run `shardfs ARGUMENTS`, its stderr to `log`, and return when it has printed its line of JSON."""
        command = [sys.executable, "-c", _BOOT, str(os.getpid()), *arguments]
        with log.open("ab") as errors:
            process = self._starter.submit(
                subprocess.Popen,
                command,
                stdin=subprocess.DEVNULL,
                stdout=subprocess.PIPE,
                stderr=errors,
                env=self._environment,
                start_new_session=True,
            ).result()
        try:
            line = _first_line(process)
            return Child(process, json.loads(line))
        except BaseException as error:
            process.kill()
            process.communicate()
            if isinstance(error, ValueError):
                said = _last_line(log) or f"exit status {process.returncode}"
                raise DidNotStart(f"shardfs {arguments[0]} did not start: {said}") from None
            raise


def _first_line(process: subprocess.Popen[bytes]) -> bytes:
    """The first line of stdout; what there is when the process ends or takes too long."""
    assert process.stdout is not None
    descriptor = process.stdout.fileno()
    deadline = time.monotonic() + READY_SECONDS
    line = b""
    while not line.endswith(b"\n"):
        readable, _, _ = select.select([descriptor], [], [], max(0.0, deadline - time.monotonic()))
        piece = os.read(descriptor, 65536) if readable else b""
        if not piece:
            break
        line += piece
    return line


def _last_line(log: Path) -> str:
    with log.open("rb") as file:
        file.seek(max(0, file.seek(0, os.SEEK_END) - _LOG_TAIL_BYTES))
        lines = file.read().decode(errors="replace").strip().splitlines()
    return lines[-1].removeprefix("shardfs: ") if lines else ""
