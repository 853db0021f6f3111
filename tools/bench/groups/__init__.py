"""All groups, in the order in which they run. A new group is a module with `run(bench)` and a line here."""

from collections.abc import Callable
from dataclasses import dataclass

from bench.context import Bench
from bench.groups import cold, kill, outage, put, warm


@dataclass(frozen=True, slots=True)
class Group:
    """`needs`: what must be there; a group whose needs are not met says so in the report."""

    name: str
    what: str
    needs: str
    run: Callable[[Bench], None]


GROUPS = {
    group.name: group
    for group in (
        Group("cold", "first read, against the cold ceiling", "FUSE", cold.run),
        Group("warm", "reads from the disk cache and from memory, nodes up and stopped", "FUSE", warm.run),
        Group("put", "uploading two copies", "", put.run),
        Group("kill", "a node killed in the middle of a read", "FUSE", kill.run),
        Group("outage", "all nodes dead, and back", "FUSE", outage.run),
    )
}
