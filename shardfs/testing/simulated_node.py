"""A node on a simulated network: latency, bandwidth and seeded faults, in trio's virtual time.

It keeps the contract of `Store`, and uses all that the contract leaves open to be nasty: until a call has returned, the
part of the buffer that has not been announced by `arrived` may hold anything, so it is filled with rubbish on failure
and on cancellation; and a cancelled call takes its time to end. Whoever reads such memory, or gives it to somebody
else before the call has returned, delivers wrong bytes.
"""

import random
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from typing import cast

import trio

from shardfs.core.digest import Bytes
from shardfs.core.keys import ObjectKey
from shardfs.errors import Denied, NotFound, Unavailable
from shardfs.store.base import EXTERNAL_FILES_MAX, LIST_LIMIT, ExternalPath, ExternalStat, SpanInto, StoreStat
from shardfs.testing.faults import Ask, Fault, Kind, Plan, well
from shardfs.testing.landing import Landing, damaged

CANCEL_SECONDS = 0.001


class SimulatedNode:
    """See `Store`, `SpanSource` (unless `spans` is False) and `ExternalSource` of `shardfs.store.base`; read-only.

    `externals` are objects of others. `hits` counts the faults that took effect, `asked` the calls.

    `latency` seconds before the first byte, then `bandwidth` bytes a second, in pieces of at most `piece` bytes.
    Besides the plan, which is asked about each `get`, the whole node may be down (`up` = False) or `hung`.
    """

    def __init__(
        self,
        node: str,
        objects: dict[ObjectKey, bytes],
        *,
        chance: random.Random,
        latency: float = 0.001,
        bandwidth: float = 1e9,
        piece: int = 4096,
        plan: Plan = well,
    ) -> None:
        self.node = node
        self.objects = objects
        self.externals: dict[str, bytes] = {}
        self.tags: dict[str, str] = {}
        self.latency = latency
        self.bandwidth = bandwidth
        self.piece = piece
        self.plan = plan
        self.spans = True
        self.up = True
        self.hung = False
        self.open_calls = 0
        self.asked: Counter[str] = Counter()
        self.calls: list[Sequence[tuple[int, int]]] = []
        self.ranges: list[tuple[str, int, int]] = []
        self.hits: Counter[Kind] = Counter()
        self.cancelled = 0
        self.probes = 0
        self._chance = chance

    async def get(
        self,
        key: ObjectKey,
        into: memoryview,
        *,
        offset: int = 0,
        arrived: Callable[[int], None] | None = None,
    ) -> int:
        return (await self._get(key, Landing.of_one(offset, into, arrived)))[0]

    @property
    def has_spans(self) -> bool:
        return self.spans

    async def get_spans(
        self, key: ObjectKey, spans: Sequence[SpanInto], *, arrived: Callable[[int, int], None] | None = None
    ) -> Sequence[int] | None:
        return await self._get(key, Landing(spans, arrived))

    async def get_external(
        self,
        path: str,
        into: memoryview,
        *,
        offset: int,
        arrived: Callable[[int], None] | None = None,
    ) -> int:
        return (await self._get(ExternalPath(path), Landing.of_one(offset, into, arrived)))[0]

    async def external_stat(self, path: str) -> ExternalStat:
        await self._reach()
        if path not in self.externals:
            raise NotFound(f"node {self.node}: no object {path}")
        return ExternalStat(len(self.externals[path]), self.tags.get(path, ""))

    async def list_external(self, path: str, *, limit: int = EXTERNAL_FILES_MAX) -> Sequence[str]:
        await self._reach()
        return [name for name in self.externals if name.startswith(f"{path}/")][:limit]

    async def _get(self, key: str, landing: Landing) -> Sequence[int]:
        self.asked[key] += 1
        self.calls.append([(offset, len(into)) for offset, into in landing.spans])
        self.ranges += [(key, *span) for span in self.calls[-1]]
        self.open_calls += 1
        try:
            await self._answer(key, landing)
        except trio.Cancelled:
            self.cancelled += 1
            with trio.CancelScope(shield=True):
                # Bytes may land until the call has returned.
                await trio.sleep(self._chance.choice((0, 0, CANCEL_SECONDS)))
                landing.litter()
            raise
        except (NotFound, Unavailable, Denied):
            landing.litter()
            raise
        finally:
            self.open_calls -= 1
        return landing.counts

    async def stat(self) -> StoreStat:
        self.probes += 1
        await self._reach()
        return StoreStat(version="simulated")

    async def size(self, key: ObjectKey) -> int | None:
        await self._reach()
        return len(self.objects[key]) if key in self.objects else None

    async def read(self, key: ObjectKey, *, limit: int) -> bytes:
        await self._reach()
        if key not in self.objects:
            raise NotFound(f"node {self.node}: no object {key}")
        if len(self.objects[key]) > limit:
            raise Unavailable(self.node, f"{key} has more than {limit} bytes")
        return self.objects[key]

    async def list(self, prefix: str, *, after: str = "", limit: int = LIST_LIMIT) -> list[ObjectKey]:
        await self._reach()
        return sorted(key for key in self.objects if key.startswith(prefix) and key > after)[:limit]

    async def put(self, key: ObjectKey, parts: Sequence[Bytes]) -> bool:
        raise Denied(self.node, f"{key}: read-only, and {len(parts)} parts are too many")

    async def delete(self, key: ObjectKey) -> bool:
        raise Denied(self.node, f"{key}: read-only")

    async def aclose(self) -> None:
        return

    async def _reach(self) -> None:
        await trio.lowlevel.checkpoint()
        if not self.up:
            self.hits[Kind.REFUSE] += 1
            raise Unavailable(self.node, "connection refused")
        await self._hang_if_hung()
        await trio.sleep(self.latency)

    async def _hang_if_hung(self) -> None:
        if self.hung:
            self.hits[Kind.HANG] += 1
            await trio.sleep_forever()

    async def _answer(self, key: str, landing: Landing) -> None:
        fault = self.plan(Ask(self.node, key, landing.spans[0][0], landing.length, trio.current_time()))
        if fault is not None and fault.kind is Kind.REFUSE:
            self.hits[fault.kind] += 1
            raise Unavailable(self.node, "connection refused")
        slower = fault.factor if fault is not None and fault.kind is Kind.SLOW else 1.0
        if slower > 1:
            self.hits[Kind.SLOW] += 1
        await self._reach()
        await trio.sleep(self.latency * (slower - 1))
        content = self._content(key, landing, fault)
        stop = fault.at if fault is not None and fault.kind in (Kind.RESET, Kind.HANG) else len(content) + 1
        sent = 0
        while sent < len(content) or stop <= sent:
            if sent >= stop:
                await self._break(fault)
            end = min(sent + self.piece, len(content), max(stop, sent + 1))
            await trio.sleep((end - sent) / self.bandwidth * slower)
            if not self.up:
                self.hits[Kind.RESET] += 1
                raise Unavailable(self.node, "connection reset")
            await self._hang_if_hung()
            landing.write(content[sent:end])
            sent = end
        if fault is not None and fault.kind is Kind.ENDLESS:
            self.hits[Kind.ENDLESS] += 1
            raise Unavailable(self.node, "more bytes than asked for")

    async def _break(self, fault: Fault | None) -> None:
        assert fault is not None
        self.hits[fault.kind] += 1
        if fault.kind is Kind.HANG:
            await trio.sleep_forever()
        raise Unavailable(self.node, f"connection reset after {fault.at} bytes")

    def _content(self, key: str, landing: Landing, fault: Fault | None) -> bytes:
        """What this answer delivers."""
        kind = fault.kind if fault is not None else None
        if kind is Kind.DENIED:
            self.hits[Kind.DENIED] += 1
            raise Denied(self.node, "401")
        held = self._held(key)
        if key not in held or kind is Kind.MISSING:
            if kind is Kind.MISSING:
                self.hits[Kind.MISSING] += 1
            raise NotFound(f"node {self.node}: no object {key}")
        right = landing.cut(held[key])
        wrong = right if fault is None else damaged(fault, held[key], self._another(key), landing.cut, self._chance)
        if wrong == right:
            return right
        assert kind is not None
        self.hits[kind] += 1
        return wrong

    def _held(self, key: str) -> Mapping[str, bytes]:
        """Objects of the kind of `key`."""
        return self.externals if isinstance(key, ExternalPath) else cast(Mapping[str, bytes], self.objects)

    def _another(self, key: str) -> bytes:
        return next((data for other, data in sorted(self._held(key).items()) if other != key), bytes(64))
