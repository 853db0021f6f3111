"""What the nodes said about refs, merged, with who said it."""

from collections.abc import Mapping
from dataclasses import dataclass

from shardfs.catalog.ask import reasons
from shardfs.core.keys import RefName
from shardfs.core.refs import live, newest


@dataclass(frozen=True, slots=True)
class RefView:
    """One answer to "which refs are there".

    `refs`: all that was seen or is remembered, settled and sorted. `by_node`: what each node that answered holds.
    `failed`: why the others did not answer. `majority`: so many answered that something could be published.
    `complete`: so many that no generation can be missing.
    """

    refs: tuple[RefName, ...]
    by_node: Mapping[str, frozenset[RefName]]
    failed: Mapping[str, str]
    majority: bool
    complete: bool

    @property
    def answered(self) -> tuple[str, ...]:
        """The nodes that answered, in the order of the cluster file."""
        return tuple(self.by_node)

    @property
    def newest(self) -> dict[str, RefName]:
        """The newest ref of each model, tombstones included."""
        return newest(self.refs)

    @property
    def models(self) -> dict[str, RefName]:
        """The newest generation of each model that exists, sorted by name."""
        return live(self.newest)

    @property
    def doubt(self) -> str:
        """Why something that was published may be missing; empty when it cannot."""
        return "" if self.complete else f"only some nodes answered; {reasons(self.failed)}"

    def find(self, generation: int | None) -> RefName | None:
        """In a view of one model: that generation, or the newest; None when it is not there or was deleted."""
        found = [ref for ref in self.refs if generation in (None, ref.generation)]
        return found[-1] if found and not found[-1].deleted else None

    @property
    def everything(self) -> frozenset[RefName]:
        """The union of what the nodes hold, contested and moved refs included."""
        return frozenset[RefName]().union(*self.by_node.values())
