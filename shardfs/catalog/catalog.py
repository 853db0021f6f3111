"""The catalogue of a cluster: models, generations, manifests.

Reading asks everybody and goes on with whoever answers; what was learned once is not unlearned because a node that knew
it is away, or comes back with an old disk. Writing (publish, delete) needs a majority, and says no otherwise.

No cache of listings: each call asks. Who wants to ask less often keeps the view.
"""

import difflib
import random
from collections.abc import Callable, Iterable
from pathlib import Path

from shardfs.catalog.ask import ask_all, list_refs, reasons
from shardfs.catalog.manifests import Manifests
from shardfs.catalog.options import CatalogOptions
from shardfs.catalog.publish import Published, Publisher
from shardfs.catalog.view import RefView
from shardfs.core.cluster import Cluster
from shardfs.core.digest import ZERO_DIGEST, Digest, digest_of
from shardfs.core.keys import REFS, RefName, manifest_key, ref_prefix
from shardfs.core.manifest import MANIFEST_BYTES_MAX, Manifest
from shardfs.core.names import ModelName, check_model
from shardfs.core.ref import encode_ref
from shardfs.core.refs import folder_conflict, settle
from shardfs.errors import Conflict, InvalidFormat, NoCopy, NotEnoughNodes, NotFound
from shardfs.store.base import Store
from shardfs.store.fleet import Fleet

_NEAR_NAMES = 3
_GENERATIONS_NAMED = 10


class Catalog:
    """Given: fleet, cluster, options, chance. Changing, by the event loop only: the newest known ref of each model."""

    def __init__(
        self,
        fleet: Fleet,
        cluster: Cluster,
        *,
        options: CatalogOptions | None = None,
        manifests: Path | None = None,
        chance: Callable[[], float] = random.random,
    ) -> None:
        self._fleet = fleet
        self._cluster = cluster
        self._options = options or CatalogOptions()
        self._chance = chance
        self._manifests = Manifests(fleet, options=self._options, folder=manifests)
        self._known: dict[str, RefName] = {}

    # --------------------------------------------------------------------------------------------------- reading

    async def refs(self, model: str | None = None) -> RefView:
        """All refs, or those of one model, as the nodes that answer hold them, and the newest known from before.

        NotEnoughNodes when no node answered and nothing is known.
        """
        return await self._look(model, strict=False)

    async def models(self, prefix: str = "") -> dict[str, RefName]:
        """The newest generation of each model whose name begins with `prefix`, sorted; deleted ones are absent."""
        view = await self.refs()
        return {model: ref for model, ref in view.models.items() if model.startswith(prefix)}

    async def resolve(self, name: ModelName) -> RefName:
        """The ref that `name` means. NotFound says what there is instead.

        An explicit generation of a deleted model can be named until its space is taken back.
        """
        view = await self.refs(name.model)
        if ref := view.find(name.generation):
            return ref
        raise NotFound(await self._why_not(name, view))

    async def versions(self, model: str) -> list[RefName]:
        """Every generation of `model` that is stored, oldest first, tombstones included. NotFound when none is."""
        view = await self.refs(model)
        if not view.refs:
            raise NotFound(await self._why_not(ModelName(model), view))
        return list(view.refs)

    async def manifest(self, digest: Digest) -> Manifest:
        """The verified manifest named `digest`. NoCopy lists each node with its reason."""
        return await self._manifests.get(digest)

    async def tidy(self) -> None:
        """See `Manifests.tidy`. Once, at the start of a program that lives long."""
        await self._manifests.tidy()

    # --------------------------------------------------------------------------------------------------- writing

    async def publish(self, model: str, manifest: Manifest) -> Published:
        """Make `manifest` the newest generation of `model`. Its chunks are stored already.

        Equal content (but for the time) publishes nothing and completes what nodes lack. Raises NotEnoughNodes when no
        majority takes the manifest and the ref, Conflict when the name is a folder of another model or others published
        the same name at the same time again and again.
        """
        check_model(model)
        data = manifest.encode()
        if len(data) > MANIFEST_BYTES_MAX:
            raise InvalidFormat(
                f"{model}: its manifest would have {len(data)} bytes, the limit is {MANIFEST_BYTES_MAX}"
            )
        digest = digest_of(data)
        publisher = self._publisher()
        view = await self._look(None, strict=True)
        if other := folder_conflict(model, view.models):
            raise Conflict(f"{model}: the name is taken, because {other} is a model and would be a folder too")
        if (held := view.models.get(model)) and await self._same(held, manifest):
            return await self._complete(publisher, held)
        await publisher.store(manifest_key(digest), data, what=f"the manifest of {model}")
        published = await publisher.claim(model, digest, view)
        await self._manifests.keep(digest, manifest, data)
        self._remember([published.ref])
        return published

    async def delete(self, model: str) -> RefName:
        """Write a tombstone on a majority. The space comes back later. NotFound when there is no such model."""
        view = await self._look(model, strict=True)
        if model not in view.models:
            raise NotFound(await self._why_not(ModelName(check_model(model)), view))
        published = await self._publisher().claim(model, ZERO_DIGEST, view)
        self._remember([published.ref])
        return published.ref

    async def _same(self, held: RefName, manifest: Manifest) -> bool:
        try:
            return (await self.manifest(held.manifest)).same_content(manifest)
        except NoCopy:
            return False  # what nobody can read is worth publishing again

    async def _complete(self, publisher: Publisher, held: RefName) -> Published:
        stored = await self.manifest(held.manifest)
        what = f"generation {held.generation} of {held.model}"
        await publisher.store(manifest_key(held.manifest), stored.encode(), what=f"the manifest of {what}")
        nodes = await publisher.store(held.key, encode_ref(held), what=what)
        return Published(held, raced=False, unchanged=True, nodes=nodes)

    def _publisher(self) -> Publisher:
        async def look() -> RefView:
            return await self._look(None, strict=True, remember=False)

        return Publisher(self._fleet, self._cluster.majority, look, options=self._options, chance=self._chance)

    # ------------------------------------------------------------------------------------------------------ refs

    async def _look(self, model: str | None, *, strict: bool, remember: bool = True) -> RefView:
        """Ask all nodes; with `strict`, NotEnoughNodes unless a majority answers."""
        options = self._options
        prefix = f"{REFS}/" if model is None else ref_prefix(model)

        async def question(store: Store) -> frozenset[RefName]:
            return await list_refs(store, prefix, page_timeout=options.node_timeout, refs_max=options.refs_max)

        majority = self._cluster.majority
        answers = await ask_all(
            self._fleet.stores,
            question,
            enough=majority,
            grace=options.grace,
            strict=strict,
            at_once=options.asked_at_once,
        )
        count = len(answers.answered)
        seen = frozenset[RefName]().union(*answers.answered.values())
        if remember:
            self._remember(seen)
        known = self._known.values() if model is None else filter(None, [self._known.get(model)])
        view = RefView(
            settle([*seen, *known]),
            answers.answered,
            answers.failed,
            count >= majority,
            count >= self._cluster.witnesses,
        )
        if strict and not view.majority:
            raise NotEnoughNodes(f"{count} of the {majority} nodes needed to publish answered ({answers.reasons()})")
        if not count and not view.refs:
            raise NotEnoughNodes(f"no node answered ({answers.reasons()})")
        return view

    def _remember(self, refs: Iterable[RefName]) -> None:
        for ref in refs:
            held = self._known.get(ref.model)
            if held is None or ref > held:
                self._known[ref.model] = ref

    async def _why_not(self, name: ModelName, view: RefView) -> str:
        """Why `name` was not found in `view`, with what to try instead."""
        missing = "" if view.majority else f" (only some nodes answered; {reasons(view.failed)})"
        generations = [ref.generation for ref in view.refs if not ref.deleted]
        if name.generation is not None and generations:
            shown = ", ".join(str(number) for number in generations[-_GENERATIONS_NAMED:])
            return f"{name}: no such generation, there is {shown}{missing}"
        if view.refs and view.refs[-1].deleted:
            return f"{name.model}: was deleted as generation {view.refs[-1].generation}{missing}"
        models = list((await self.refs()).models)
        inside = [model for model in models if model.startswith(name.model + "/")]
        near = inside or difflib.get_close_matches(name.model, models, _NEAR_NAMES, 0.6)
        hint = f"; did you mean {' or '.join(near[:_NEAR_NAMES])}?" if near else ""
        return f"{name.model}: no such model{hint}{missing}"
