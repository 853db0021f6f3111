"""All groups, in the order in which they run. A new group is a module with `run(bench)` and a line here."""

from collections.abc import Callable
from dataclasses import dataclass

from bench.context import Bench
from bench.groups import (
    catalogue,
    cold,
    daemon,
    engines,
    faults,
    imported,
    kill,
    loaders,
    outage,
    peers,
    probes,
    put,
    readers,
    scale,
    user,
    warm,
)


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
        Group(
            "warm",
            "reads from the disk cache and from memory, nodes up and stopped, and by the kernel",
            "FUSE",
            warm.run,
        ),
        Group("loaders", "safetensors and torch, beside a sequential read", "safetensors, torch", loaders.run),
        Group("probes", "small cold reads, beside raw requests", "FUSE", probes.run),
        Group("readers", "1, 4 and 16 readers at once", "FUSE", readers.run),
        Group("put", "uploading two copies", "nothing else", put.run),
        Group("faults", "one of three nodes dead, hung, slow", "FUSE", faults.run),
        Group("kill", "a node killed in the middle of a read", "FUSE", kill.run),
        Group("outage", "all nodes dead, and back", "FUSE", outage.run),
        Group("scale", "1 to 3 copies, 2 to 8 nodes", "FUSE", scale.run),
        Group("daemon", "CPU and memory of a mount", "FUSE", daemon.run),
        Group("catalogue", "10,000 models, and one of 1 TiB", "FUSE", catalogue.run),
        Group("user", "a mount without root", "root, setpriv, fusermount3", user.run),
        Group(
            "engines", "S3 and HDFS as nodes, beside s3fs, and from afar", "Java for HDFS, s3fs for s3fs", engines.run
        ),
        Group("imported", "models that lie on S3 and HDFS already", "Java for HDFS", imported.run),
        Group("peers", "other filesystems on the same bytes (--peers)", "whichever of them are installed", peers.run),
    )
}
