"""What is to be done at the disk for single files of the cache, by a few threads of its own.

One errand of a file at a time, in the order in which they were asked for: a file whose disk hangs costs one thread and
holds up nobody else. When all threads hang, errands wait; whoever needs one done waits only for as long as he likes.
The threads do not keep the process alive.
"""

import logging
import threading
from collections import deque
from collections.abc import Callable
from queue import SimpleQueue

THREADS = 8
"""For all files together."""

Job = Callable[[], object]

_log = logging.getLogger(__name__)


class Errands:
    """Thread-safe. `threads` at most, begun when needed; with 0, and after `close`, everything is done by the caller.

    Files are numbers.
    """

    def __init__(self, threads: int) -> None:
        self.threads_max = threads
        self._changed = threading.Condition(threading.Lock())  # guards all below
        self._waiting: dict[int, deque[Job]] = {}  # for each file that somebody is at, or that waits for a thread
        self._ready: SimpleQueue[int | None] = SimpleQueue()
        self._handed_over = 0
        self._threads = 0

    def do(self, file: int, job: Job, *, here: bool = False, once: bool = False) -> None:
        """Have `job` done, after those of the file that wait. What it raises is logged.

        `here`: it needs no disk, so by the caller if it is next; `once`: not again if it waits already.
        """
        with self._changed:
            queue = self._waiting.get(file)
            if queue is not None:
                if not once or job not in queue:
                    queue.append(job)
                return
            self._waiting[file] = deque([job])
            if self.threads_max and not here:
                self._hand_over(file)
                return
        self._run(file, one=True)

    def undo(self, file: int, job: Job) -> None:
        """Forget about a job unless it has begun."""
        with self._changed:
            queue = self._waiting.get(file)
            if queue is not None and job in queue:
                queue.remove(job)

    def busy(self, file: int) -> bool:
        """Whether anything is being done for the file, or waits."""
        return file in self._waiting

    def wait(self) -> None:
        """Until all is done."""
        with self._changed:
            while self._waiting:
                self._changed.wait()

    def close(self) -> None:
        """Let the threads go when they are done."""
        with self._changed:
            self.threads_max = 0
            for _ in range(self._threads):
                self._ready.put(None)

    # ---------------------------------------------------------------------------------------------------- inner

    def _hand_over(self, file: int) -> None:
        """The lock is held."""
        self._ready.put(file)
        self._handed_over += 1
        if self._handed_over > self._threads and self._threads < self.threads_max:
            try:
                threading.Thread(target=self._work, name="cache errands", daemon=True).start()
            except RuntimeError as error:  # as many as the system allows: the next one begins it
                _log.warning("cache: %s", error)
            else:
                self._threads += 1

    def _work(self) -> None:
        while (file := self._ready.get()) is not None:
            self._run(file, one=False)
            with self._changed:
                self._handed_over -= 1

    def _run(self, file: int, *, one: bool) -> None:
        """What waits for a file; after `one` the threads go on, if there are any."""
        while True:
            with self._changed:
                queue = self._waiting[file]
                if not queue:
                    del self._waiting[file]
                    self._changed.notify_all()
                    return
                job = queue.popleft()
            try:
                job()
            except Exception:  # noqa: BLE001 - a bug must cost this errand, not all that come after it
                _log.exception("cache")
            with self._changed:
                if one and self.threads_max and self._waiting[file]:
                    self._hand_over(file)
                    return
