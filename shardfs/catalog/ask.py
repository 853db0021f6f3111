"""One question to all nodes at once: what came back from whom, and why the others did not answer.

Nobody waits for a sick node. As soon as enough have answered the others get a short grace, then the question is
withdrawn. A node that could not answer is a reason in the result, never an exception. So is one over whose answer the
program breaks: a bug must cost one node and not all.
"""

from collections.abc import Awaitable, Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Generic, TypeVar

import trio

from shardfs.core.keys import RefName, parse_ref
from shardfs.errors import ShardfsError, StoreError, Unavailable
from shardfs.store.base import LIST_LIMIT, Store
from shardfs.store.watched import WatchedStore

T = TypeVar("T")

_NAMED_MAX = 8


@dataclass(frozen=True, slots=True)
class Answers(Generic[T]):
    """What each node said: an answer or a reason, both in the order of the stores."""

    answered: Mapping[str, T]
    failed: Mapping[str, str]

    def reasons(self) -> str:
        return reasons(self.failed)


def reasons(failed: Mapping[str, str]) -> str:
    """`a: refused; b: timed out`, shortened where a cluster is large."""
    named = [f"{node}: {reason}" for node, reason in list(failed.items())[:_NAMED_MAX]]
    more = [f"and {len(failed) - _NAMED_MAX} more"] if len(failed) > _NAMED_MAX else []
    return "; ".join(named + more)


async def ask_all(
    stores: Sequence[WatchedStore],
    question: Callable[[Store], Awaitable[T]],
    *,
    enough: int,
    grace: float,
    strict: bool = False,
    at_once: int = 128,
) -> Answers[T]:
    """Ask all of `stores`. `question` sets its own deadline, by raising trio.TooSlowError.

    Done when all have finished, or `grace` seconds after `enough` have answered, or (unless `strict`) `grace` seconds
    after every available node has finished and at least one has answered.
    """
    answered: dict[str, T] = {}
    failed: dict[str, str] = {}
    slots = trio.Semaphore(at_once)
    waiting = {store.node for store in stores if store.available}

    async def ask(store: WatchedStore) -> None:
        async with slots:
            try:
                answered[store.node] = await question(store)
            except ShardfsError as error:
                failed[store.node] = error.reason if isinstance(error, StoreError) else str(error)
            except trio.TooSlowError:
                failed[store.node] = "no answer in time"
                store.late("no answer in time")
            except Exception as error:  # noqa: BLE001 - it is logged
                failed[store.node] = store.bug(error)
        waiting.discard(store.node)
        if len(answered) >= enough or (answered and not waiting and not strict):
            scope = nursery.cancel_scope
            scope.deadline = min(scope.deadline, trio.current_time() + grace)

    async with trio.open_nursery() as nursery:
        for store in sorted(stores, key=lambda store: not store.available):
            nursery.start_soon(ask, store)
    for store in stores:
        if store.node not in answered:
            failed.setdefault(store.node, "slower than the others")
    order = [store.node for store in stores]
    return Answers(
        {node: answered[node] for node in order if node in answered},
        {node: failed[node] for node in order if node in failed},
    )


async def list_refs(store: Store, prefix: str, *, page_timeout: float, refs_max: int) -> frozenset[RefName]:
    """Every ref of `store` that begins with `prefix`, page by page; what is no ref there is a fault of the node."""
    found: set[RefName] = set()
    after = ""
    while True:
        with trio.fail_after(page_timeout):
            page = await store.list(prefix, after=after, limit=LIST_LIMIT)
        for key in page:
            if key <= after or not key.startswith(prefix):
                raise Unavailable(store.node, f"its list is out of order at {str(key)[:100]!r}")
            found.add(parse_ref(key))
            after = key
        if len(page) < LIST_LIMIT:
            return frozenset(found)
        if len(found) > refs_max:
            raise Unavailable(store.node, f"it lists more than {refs_max} refs")
