"""The interface every engine implements. `shardfs.testing.store_exam` is its executable definition.

Rules for every call:

- Cancellable at any await. A cancelled call leaves no task, no thread that still writes into the caller's buffer,
  and no connection in an unknown state. Deadlines and retries are the caller's, not the store's.
- Failures are `StoreError` subclasses that name the node, or NotFound. `Unavailable` covers everything that another try
  or another node may cure: refused, reset, cut short, longer than promised, 5xx, unparsable answers.
- Objects are immutable. `put` makes one visible only when it is whole and durable; a second `put` of the same key
  changes nothing.
- A store does not verify what it delivers: whoever asked knows the digest and checks.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Protocol, TypeAlias, runtime_checkable

from shardfs.core.digest import Bytes
from shardfs.core.keys import ObjectKey

LIST_LIMIT = 1000
EXTERNAL_FILES_MAX = 1_000_000


@dataclass(frozen=True, slots=True)
class StoreStat:
    """What a node says of itself. None where the engine cannot say."""

    capacity_bytes: int | None = None
    free_bytes: int | None = None
    version: str = ""


class Store(Protocol):
    """One node."""

    @property
    def node(self) -> str:
        """The node's id, for messages and metrics."""
        ...

    async def get(
        self,
        key: ObjectKey,
        into: memoryview,
        *,
        offset: int = 0,
        arrived: Callable[[int], None] | None = None,
    ) -> int:
        """Read bytes [offset, offset + len(into)) of the object into `into`; return how many there were.

        Fewer than `len(into)` only where the object ends. `arrived(n)` is called synchronously each time more bytes
        have landed, with their number so far; what it raises ends the call and comes out unchanged.
        Raises NotFound when the object does not exist.
        """
        ...

    async def read(self, key: ObjectKey, *, limit: int) -> bytes:
        """A whole small object of at most `limit` bytes (more: Unavailable). Raises NotFound."""
        ...

    async def put(self, key: ObjectKey, parts: Sequence[Bytes]) -> bool:
        """Store the concatenation of `parts` unless the object exists. True when this call created it."""
        ...

    async def size(self, key: ObjectKey) -> int | None:
        """Stored bytes of the object, or None when it does not exist."""
        ...

    async def list(self, prefix: str, *, after: str = "", limit: int = LIST_LIMIT) -> list[ObjectKey]:
        """Up to `limit` keys that begin with `prefix` and sort after `after`, sorted. Fewer only at the end.

        `prefix` is `chunks/`, `chunks/<2 hex>/`, `manifests/`, `refs/` or what `ref_prefix` makes. Objects that are
        not finished and names that are no keys are not listed.
        """
        ...

    async def delete(self, key: ObjectKey) -> bool:
        """Remove the object; False when it was not there."""
        ...

    async def stat(self) -> StoreStat:
        """Space and version; also the cheapest question, which tells whether the node is well."""
        ...

    async def aclose(self) -> None:
        """Release connections and descriptors. No call may follow."""
        ...


SPANS_MAX = 4
"""Spans of one `get_spans`."""

SpanInto: TypeAlias = tuple[int, memoryview]
"""Where a span of an object begins, and where its bytes go; the length of the memory is the span's."""


@runtime_checkable
class SpanSource(Protocol):
    """A store that can deliver several spans of an object in one answer, which costs one request instead of several.

    Whether the node really does may be known only from its first answer.
    """

    @property
    def has_spans(self) -> bool:
        """False from when the node has answered such a request in some other way."""
        ...

    async def get_spans(
        self,
        key: ObjectKey,
        spans: Sequence[SpanInto],
        *,
        arrived: Callable[[int, int], None] | None = None,
    ) -> Sequence[int] | None:
        """Read 2 to SPANS_MAX spans, none empty, ascending, none overlapping; how many bytes there were of each.

        As `Store.get` for each; `arrived(number, n)` says that of that span, counted from 0, n bytes have landed so
        far. None when the node cannot: nothing has landed, and each span has to be got by itself.
        """
        ...


class ExternalPath(str):
    """A checked path from the root of the engine, where an `ObjectKey` is one from the root of the node."""

    __slots__ = ()


@dataclass(frozen=True, slots=True)
class ExternalStat:
    """An object of somebody else as it is now: bytes, and what the engine calls this version of it."""

    size: int
    tag: str


@runtime_checkable
class ExternalSource(Protocol):
    """A store whose engine also holds objects that shardfs did not write, which it can read where they lie.

    Paths are relative to the root of the engine behind the node: the bucket, the root of HDFS or of the web server, and
    for `file://` the node's folder. They have passed `check_path`. The rules for every call are those of `Store`; links
    are never followed.
    """

    async def get_external(
        self,
        path: str,
        into: memoryview,
        *,
        offset: int,
        arrived: Callable[[int], None] | None = None,
    ) -> int:
        """As `Store.get`, for the object `path`. Raises NotFound when it does not exist."""
        ...

    async def external_stat(self, path: str) -> ExternalStat:
        """The object as it is now. Raises NotFound, also for a folder."""
        ...

    async def list_external(self, path: str, *, limit: int = EXTERNAL_FILES_MAX) -> Sequence[str]:
        """The paths of all objects below the folder `path`, in any order. NotFound when there is nothing.

        More than `limit`, or a name that is against the rules, is a UsageError or an InvalidName that names it.
        """
        ...
