"""The demo's reader: a process of its own that loads files through safetensors as any program would.

A file that a mount cannot deliver kills whoever has mapped it (SIGBUS); as a process of its own that is a line in the
demo's output and not its end. It also imports torch, which takes seconds, while the demo is busy with other things.

Protocol, one JSON document a line: it says {framework} when it is ready, is told [file, original], and answers
{tensors, bytes, seconds, differing}, `seconds` for loading and touching every byte of `file`.
"""

import contextlib
import importlib
import importlib.util
import json
import signal
import subprocess
import sys
import time
from collections.abc import Mapping
from pathlib import Path
from types import TracebackType
from typing import Any, Self

from shardfs.errors import ShardfsError


class SampleReader:
    """Starts it on entering, without waiting for it; ends it on leaving."""

    def __enter__(self) -> Self:
        self._process = subprocess.Popen(
            [sys.executable, "-m", "shardfs.cli.sample_reader"],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
            start_new_session=True,
        )
        return self

    def __exit__(
        self, kind: type[BaseException] | None, value: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._process.kill()
        self._process.communicate()

    def framework(self) -> str:
        """Wait until it is ready; what it reads with, `torch` or `numpy`."""
        return str(self._answer()["framework"])

    def read(self, file: Path, original: Path) -> dict[str, Any]:
        """Load `file`, compare it with `original`; ShardfsError when it cannot be read or is not equal."""
        assert self._process.stdin is not None
        with contextlib.suppress(BrokenPipeError):  # it is dead: `_answer` says of what
            self._process.stdin.write(json.dumps([str(file), str(original)]) + "\n")
            self._process.stdin.flush()
        answer = self._answer()
        if answer["differing"]:
            raise ShardfsError(f"{file}: not what was uploaded: {', '.join(answer['differing'])}")
        return answer

    def _answer(self) -> dict[str, Any]:
        assert self._process.stdout is not None
        line = self._process.stdout.readline()
        if not line:
            status = self._process.wait()
            cause = signal.Signals(-status).name if status < 0 else f"status {status}"
            raise ShardfsError(f"the program that read the model ended ({cause}); see the log of the mount")
        answer: dict[str, Any] = json.loads(line)
        return answer


def main() -> None:
    """Answer until stdin ends."""
    framework = "numpy" if importlib.util.find_spec("torch") is None else "torch"
    library = importlib.import_module(f"safetensors.{framework}")
    _say({"framework": framework})
    for line in sys.stdin:
        file, original = json.loads(line)
        started = time.monotonic()
        loaded = _bytes(library.load_file(file))
        seconds = time.monotonic() - started
        expected = _bytes(library.load_file(original))
        names = sorted(loaded.keys() | expected.keys())
        _say(
            {
                "tensors": len(expected),
                "bytes": sum(map(len, expected.values())),
                "seconds": seconds,
                "differing": [name for name in names if loaded.get(name) != expected.get(name)],
            }
        )


def _bytes(tensors: Mapping[str, Any]) -> dict[str, bytes]:
    """The content of each tensor; of torch's, which lie in the mapped file, this reads every page."""
    return {name: (t.numpy() if hasattr(t, "numpy") else t).tobytes() for name, t in tensors.items()}


def _say(document: Mapping[str, Any]) -> None:
    sys.stdout.write(json.dumps(document) + "\n")
    sys.stdout.flush()


if __name__ == "__main__":
    main()
