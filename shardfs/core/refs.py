"""Which refs win. Pure: a set of refs in, one ordered truth out, the same on every machine.

Nodes may hold different refs, because a node was away while something was published. The union is the truth:
refs are immutable, so nothing contradicts anything, and the greatest (generation, digest) of a model is its newest.

A number is *contested* when it has two manifests. Either an uploader died between writing and looking again, or it
saw its rival and moved on to a higher number without being able to take its own ref back everywhere. The latter can be
told: the same manifest stands at a higher number. Such a ref is *moved* and no longer counts.

A tombstone must stay stored for as long as a reader may remember an older generation: without it the numbers would
begin again at 1, below what is remembered.
"""

from collections import defaultdict
from collections.abc import Iterable, Mapping

from shardfs.core.keys import RefName
from shardfs.core.names import GENERATION_MAX
from shardfs.errors import Conflict


def newest(refs: Iterable[RefName]) -> dict[str, RefName]:
    """The greatest ref of each model, tombstones included, sorted by name."""
    found: dict[str, RefName] = {}
    for ref in refs:
        held = found.get(ref.model)
        if held is None or ref > held:
            found[ref.model] = ref
    return dict(sorted(found.items()))


def live(newest_refs: Mapping[str, RefName]) -> dict[str, RefName]:
    """The models that exist: those whose newest ref is no tombstone."""
    return {model: ref for model, ref in newest_refs.items() if not ref.deleted}


def settle(refs: Iterable[RefName]) -> tuple[RefName, ...]:
    """All refs once, sorted, without those that moved to a higher number."""
    ordered = sorted(set(refs))
    at_number: dict[tuple[str, int], int] = defaultdict(int)
    highest: dict[tuple[str, bytes], int] = {}
    for ref in ordered:
        at_number[ref.model, ref.generation] += 1
        highest[ref.model, ref.manifest] = ref.generation  # ordered by generation: the last one stays
    settled: list[RefName] = []
    for ref in ordered:
        number = (ref.model, ref.generation)
        if at_number[number] > 1 and highest[ref.model, ref.manifest] > ref.generation:
            at_number[number] -= 1  # the last one left at a number always stays
        else:
            settled.append(ref)
    return tuple(settled)


def next_generation(model: str, refs: Iterable[RefName]) -> int:
    """The number after every one in use, tombstones included; Conflict when they are used up."""
    generation = 1 + max((ref.generation for ref in refs if ref.model == model), default=0)
    if generation > GENERATION_MAX:
        raise Conflict(f"{model}: the generation numbers are used up")
    return generation


def rivals(own: RefName, refs: Iterable[RefName]) -> list[RefName]:
    """The other refs that claim the number of `own`."""
    return [ref for ref in refs if ref.model == own.model and ref.generation == own.generation and ref != own]


def folder_conflict(model: str, models: Iterable[str]) -> str | None:
    """A model that would have to be a folder for `model` to exist, or the other way round."""
    for other in models:
        if other.startswith(model + "/") or model.startswith(other + "/"):
            return other
    return None
