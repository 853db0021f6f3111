"""Read-ahead over the files of one model: where one shard ends, the next begins.

A model in shards is read shard by shard in the order of their numbers, each opened when the one before is done. As soon
as everything of a shard has been asked for and at least half of it was read, what is left of the window goes to the
beginning of the next one: the same name with the number one higher. No number, no guess.
"""

import re
from bisect import bisect_left
from collections.abc import Sequence

from shardfs.core.manifest import FileEntry
from shardfs.core.readahead import Plan, Range, ReadAhead, ReadAheadOptions

_NUMBER = re.compile(r"\d+")
_FOLLOWING_MAX = 4


def successors(path: str) -> list[str]:
    """Names that the next shard may have, likeliest first: one number of the file name is one higher."""
    folder, slash, name = path.rpartition("/")
    found = []
    for match in _NUMBER.finditer(name):
        digits = match.group()
        if len(digits) > 9:
            continue
        # "of-00004" and "v2" stay what they are as far as no such file exists: the caller looks.
        following = str(int(digits) + 1).rjust(len(digits), "0")
        found.append(f"{folder}{slash}{name[: match.start()]}{following}{name[match.end() :]}")
    return found


class ModelReadAhead:
    """The read-ahead of a generation's files, by number in its manifest. Keeps the states of `states_max` files."""

    def __init__(
        self,
        files: Sequence[FileEntry],
        chunk_size: int,
        block_size: int,
        options: ReadAheadOptions = ReadAheadOptions(),
        *,
        states_max: int = 64,
    ) -> None:
        self._files = files
        self._next: dict[int, int | None] = {}
        self._given = (chunk_size, block_size, options)
        self._states_max = states_max
        self._states: dict[int, ReadAhead] = {}

    def observe(self, file: int, offset: int, length: int) -> Plan:
        """A read in file number `file`, within its size."""
        state = self.file(file)
        plan = state.observe(offset, length)
        spare = state.spare()
        if spare < self._given[0]:
            return plan
        following = self._following(file, spare)
        return Plan(plan.whole, plan.ahead, plan.drop, tuple(following)) if following else plan

    def file(self, number: int) -> ReadAhead:
        """The state of a file, most recently used last."""
        state = self._states.pop(number, None)
        if state is None:
            state = ReadAhead(self._files[number].size, *self._given)
        self._states[number] = state
        while len(self._states) > self._states_max:
            del self._states[next(iter(self._states))]
        return state

    def _following(self, file: int, budget: int) -> list[tuple[int, Range]]:
        found: list[tuple[int, Range]] = []
        for _ in range(_FOLLOWING_MAX):
            following = self._successor(file)
            if following is None:
                break
            file = following
            state = self.file(file)
            found += ((file, ahead) for ahead in state.expect(budget))
            budget -= state.coverage.ahead_bytes
            if budget < self._given[0] or state.size > state.coverage.ahead_bytes:
                break
        return found

    def _successor(self, file: int) -> int | None:
        if file not in self._next:
            if len(self._next) >= self._states_max:
                self._next.clear()
            found = (self.number(name) for name in successors(self._files[file].path))
            self._next[file] = next((number for number in found if number is not None), None)
        return self._next[file]

    def number(self, path: str) -> int | None:
        """Which file of the manifest that is: its files are sorted by the bytes of their paths."""
        at = bisect_left(self._files, path.encode(), key=lambda file: file.path.encode())
        return at if at < len(self._files) and self._files[at].path == path else None
