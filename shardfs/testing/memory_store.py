"""A node in memory that keeps the whole `Store` contract, and fails on request.

    store = MemoryStore("a")
    store.faults.append(Fault(op="put", error="disk on fire"))      # the next puts raise Unavailable
    store.faults.append(Fault(key="manifests/", hang=True))         # never answers
    store.faults.append(Fault(op="put", after=True, error="reset", times=1))  # stored, but nobody is told
    store.pause = lambda op, key: next(delays)                      # virtual seconds before each operation

The first fault that fits a call applies. Contents are one dict, `objects`, which tests may damage at will.
"""

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field

import trio

from shardfs.core.digest import Bytes
from shardfs.core.keys import ObjectKey
from shardfs.core.objects import size_limit, verify_object
from shardfs.errors import Corrupt, InvalidFormat, NotFound, StoreError, Unavailable
from shardfs.store.base import LIST_LIMIT, StoreStat


@dataclass(slots=True)
class Fault:
    """What goes wrong, and for which calls: `op` is a method's name, `key` a prefix of its key; empty fits all.

    `delay` seconds, then nothing (`hang`), an error (a reason for Unavailable, or an error), or the normal answer.
    With `after` the operation takes effect first. `times` counts down to 0, then the fault no longer applies.
    """

    op: str = ""
    key: str = ""
    delay: float = 0.0
    hang: bool = False
    error: str | StoreError | None = None
    after: bool = False
    times: float = math.inf
    hits: int = 0


@dataclass(slots=True)
class MemoryStore:
    """See `shardfs.store.base.Store`. `calls` lists (op, key or prefix) of all calls, in order."""

    node: str
    capacity_bytes: int = 1 << 40
    objects: dict[ObjectKey, bytes] = field(default_factory=dict)
    faults: list[Fault] = field(default_factory=list)
    pause: Callable[[str, str], float] | None = None
    calls: list[tuple[str, str]] = field(default_factory=list)
    closed: bool = False

    async def get(
        self,
        key: ObjectKey,
        into: memoryview,
        *,
        offset: int = 0,
        arrived: Callable[[int], None] | None = None,
    ) -> int:
        fault = await self._before("get", key)
        part = self._content(key)[offset : offset + len(into)]
        into[: len(part)] = part
        if arrived is not None and part:
            arrived(len(part))
        await self._after(fault)
        return len(part)

    async def read(self, key: ObjectKey, *, limit: int) -> bytes:
        fault = await self._before("read", key)
        data = self._content(key)
        if len(data) > limit:
            raise Unavailable(self.node, f"{key} has more than {limit} bytes")
        await self._after(fault)
        return data

    async def put(self, key: ObjectKey, parts: Sequence[Bytes]) -> bool:
        fault = await self._before("put", key)
        data = b"".join(parts)
        try:
            if len(data) > size_limit(key):
                raise InvalidFormat(f"{key}: more than {size_limit(key)} bytes")
            verify_object(key, data)
        except InvalidFormat as error:
            raise Corrupt(self.node, str(error)) from None
        created = key not in self.objects
        self.objects.setdefault(key, data)
        await self._after(fault)
        return created

    async def size(self, key: ObjectKey) -> int | None:
        fault = await self._before("size", key)
        data = self.objects.get(key)
        await self._after(fault)
        return None if data is None else len(data)

    async def list(self, prefix: str, *, after: str = "", limit: int = LIST_LIMIT) -> list[ObjectKey]:
        fault = await self._before("list", prefix)
        keys = sorted(key for key in self.objects if key.startswith(prefix) and key > after)[:limit]
        await self._after(fault)
        return keys

    async def delete(self, key: ObjectKey) -> bool:
        fault = await self._before("delete", key)
        gone = self.objects.pop(key, None) is not None
        await self._after(fault)
        return gone

    async def stat(self) -> StoreStat:
        fault = await self._before("stat", "")
        used = sum(map(len, self.objects.values()))
        await self._after(fault)
        return StoreStat(self.capacity_bytes, self.capacity_bytes - used, "memory")

    async def aclose(self) -> None:
        self.closed = True

    def _content(self, key: ObjectKey) -> bytes:
        if key not in self.objects:
            raise NotFound(f"node {self.node}: no object {key}")
        return self.objects[key]

    async def _before(self, op: str, key: str) -> Fault | None:
        self.calls.append((op, key))
        if self.closed:
            raise RuntimeError(f"{op} on the closed store of node {self.node}")
        await trio.lowlevel.checkpoint()
        if self.pause is not None and (seconds := self.pause(op, key)) > 0:
            await trio.sleep(seconds)
        for fault in self.faults:
            if fault.op in ("", op) and key.startswith(fault.key) and fault.times > 0:
                fault.times -= 1
                fault.hits += 1
                if fault.after:
                    return fault
                await self._suffer(fault)
                break
        return None

    async def _after(self, fault: Fault | None) -> None:
        if fault is not None:
            await self._suffer(fault)

    async def _suffer(self, fault: Fault) -> None:
        if fault.delay:
            await trio.sleep(fault.delay)
        if fault.hang:
            await trio.sleep_forever()
        if isinstance(fault.error, StoreError):
            raise fault.error
        if fault.error is not None:
            raise Unavailable(self.node, fault.error)
