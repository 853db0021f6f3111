"""Which reads reach the daemon: one line of text for each, for studying and replaying what loaders do.

    START TOOK OFFSET SIZE MODEL/FILE      microseconds on the monotonic clock, then bytes

A line is written when its read has ended, so lines are in the order of ending. The filesystem that records is a
class of its own: the one that does not pays nothing. Nothing is recorded but names, places and times; a trace that
cannot be written ends with a warning and the mount goes on.
"""

import logging
import time
from io import FileIO
from pathlib import Path
from types import TracebackType
from typing import Any, Self

import trio

from shardfs.fetch import Reading
from shardfs.vfs.filesystem import FileSystem

logger = logging.getLogger(__name__)

LINES_MAX = 4096


class Recorder:
    """Appends lines to `file`, at most `LINES_MAX` of them in memory. OSError when it cannot be opened."""

    def __init__(self, file: Path) -> None:
        self._file = file
        self._output: FileIO | None = FileIO(file, "a")
        self._lines: list[str] = []

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, value: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.flush()
        self._end()

    def add(self, line: str) -> None:
        self._lines.append(line)
        if len(self._lines) >= LINES_MAX:
            self.flush()

    def flush(self) -> None:
        """Write what is in memory."""
        data = memoryview("".join(self._lines).encode(errors="surrogateescape"))
        self._lines.clear()
        try:
            while data and self._output is not None:
                data = data[self._output.write(data) :]
        except OSError as error:
            logger.warning("trace %s: %s; nothing more is recorded", self._file, error.strerror)
            self._end()

    def _end(self) -> None:
        if self._output is not None:
            self._output.close()
            self._output = None


class TracedFileSystem(FileSystem):
    """A filesystem that tells `recorder` of each read.

    `delay_seconds` is added to each read, so that the reads which the kernel has under way at once are seen at once.
    """

    def __init__(self, *given: Any, recorder: Recorder, delay_seconds: float = 0.0, **options: Any) -> None:
        super().__init__(*given, **options)
        self._recorder = recorder
        self._delay_seconds = delay_seconds

    def request(self, handle: int, offset: int, size: int) -> Reading:
        return self._traced(handle, offset, size)

    async def _traced(self, handle: int, offset: int, size: int) -> memoryview:
        started = time.monotonic_ns() // 1000
        if self._delay_seconds:
            await trio.sleep(self._delay_seconds)
        try:
            answer = super().request(handle, offset, size)
            return answer if isinstance(answer, memoryview) else await answer
        finally:
            took = time.monotonic_ns() // 1000 - started
            node = self._files.get(handle)
            if node is not None:
                name = "/".join(filter(None, (node.generation.ref.model, node.entry.path))).replace("\n", "?")
                self._recorder.add(f"{started} {took} {offset} {size} {name}\n")
