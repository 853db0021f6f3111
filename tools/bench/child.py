"""Helper processes of the benchmark: started, spoken to line by line, never waited for without a limit, always ended.

Everything that touches a mount happens in such a process: a reader of a mount that hangs cannot be killed, and one
that maps a file dies of SIGBUS where a read would fail.
"""

import json
import os
import select
import signal
import subprocess
import sys
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any, Self

TOOLS = Path(__file__).resolve().parent.parent
RUN_SECONDS = 900.0
READY_SECONDS = 60.0
STOP_SECONDS = 5.0


class Child:
    """A program of `bench.programs`, or any that speaks in lines."""

    def __init__(self, command: Sequence[str], *, log: Path | None = None) -> None:
        path = os.pathsep.join(filter(None, (str(TOOLS), os.environ.get("PYTHONPATH"))))
        self._log = log.open("ab") if log else None
        self.process = subprocess.Popen(
            list(command),
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=self._log or subprocess.PIPE,
            env=os.environ | {"PYTHONPATH": path},
        )
        self._rest = b""

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.stop()

    def line(self, seconds: float = RUN_SECONDS) -> str:
        """The next line it says. TimeoutError, or RuntimeError with its last words when it has ended."""
        assert self.process.stdout is not None
        deadline = time.monotonic() + seconds
        while b"\n" not in self._rest:
            left = deadline - time.monotonic()
            if left <= 0 or not select.select([self.process.stdout], [], [], left)[0]:
                raise TimeoutError(f"{self._name()}: said nothing for {seconds:.0f} s")
            data = os.read(self.process.stdout.fileno(), 65536)
            if not data:
                raise RuntimeError(f"{self._name()}: {self._last_words()}")
            self._rest += data
        line, _, self._rest = self._rest.partition(b"\n")
        return line.decode()

    def ready(self) -> None:
        """Wait until it says so."""
        said = self.line(READY_SECONDS)
        if said != "ready":
            raise RuntimeError(f"{self._name()}: said {said[:200]!r} instead of being ready")

    def go(self, command: str = "") -> None:
        assert self.process.stdin is not None
        self.process.stdin.write(command.encode() + b"\n")
        self.process.stdin.flush()

    def ask(self, command: str) -> dict[str, Any]:
        """The answer to a command, for programs that take several."""
        self.go(command)
        return self.answer()

    def has_line(self) -> bool:
        """Whether it has said something that nobody has read."""
        assert self.process.stdout is not None
        return bool(self._rest) or bool(select.select([self.process.stdout], [], [], 0)[0])

    def answer(self, seconds: float = RUN_SECONDS) -> dict[str, Any]:
        """The JSON document of its next line; RuntimeError when that is an error."""
        document = json.loads(self.line(seconds))
        assert isinstance(document, dict)
        if "error" in document:
            raise RuntimeError(f"{self._name()}: {document['error']}")
        return document

    def stop(self) -> None:
        """SIGTERM, then SIGKILL; a process that not even that ends is left to the kernel."""
        for number in (signal.SIGTERM, signal.SIGKILL):
            if self.process.poll() is None:
                self.process.send_signal(number)
                with suppress(subprocess.TimeoutExpired):
                    self.process.wait(STOP_SECONDS)
        for stream in (self.process.stdin, self.process.stdout, self.process.stderr, self._log):
            if stream is not None:
                with suppress(OSError):
                    stream.close()

    def _name(self) -> str:
        words = [str(word) for word in self.process.args] if isinstance(self.process.args, list) else []
        return next((word for word in words if word.startswith("bench.")), words[0] if words else "child")

    def _last_words(self) -> str:
        with suppress(subprocess.TimeoutExpired):
            self.process.wait(STOP_SECONDS)
        said = ""
        if self.process.stderr is not None:
            said = self.process.stderr.read().decode(errors="replace").strip()
        elif self._log is not None:
            said = Path(self._log.name).read_text(errors="replace").strip()
        return f"ended with {self.process.returncode}: {said.splitlines()[-1] if said else 'nothing said'}"


def program(name: str, *arguments: str | Path | float, user: Sequence[str] = ()) -> Child:
    """Start `bench.programs.NAME`. `user`: the words before the command that change the user."""
    return Child([*user, sys.executable, "-m", f"bench.programs.{name}", *map(str, arguments)])


@contextmanager
def reader(how: str, path: Path, *span: int, user: Sequence[str] = ()) -> Iterator[Child]:
    """A reader of `path` that is ready to go."""
    with program("reader", how, path, *span, user=user) as child:
        child.ready()
        yield child


def run_reader(child: Child, expected_bytes: int | None = None) -> float:
    """Let a reader go; the seconds it took. RuntimeError when it did not read `expected_bytes`."""
    child.go()
    return elapsed(child.answer(), expected_bytes)


def elapsed(answer: Mapping[str, Any], expected_bytes: int | None = None) -> float:
    if expected_bytes is not None and answer["bytes"] != expected_bytes:
        raise RuntimeError(f"read {answer['bytes']} of {expected_bytes} bytes")
    return float(answer["ended"] - answer["started"])
