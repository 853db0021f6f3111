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
    placement,
    probes,
    put,
    readers,
    scale,
    user,
    warm,
)


@dataclass(frozen=True, slots=True)
class Group:
    """`needs`: what must be there besides FUSE; a group whose needs are not met says so in the report.

    `least` and `each`: seconds that it takes in any case, and for a GiB in a round, on the two cores of the README.
    """

    name: str
    what: str
    needs: str
    run: Callable[[Bench], None]
    least: float
    each: float


ENGINE = "pip's access to a package index for S3, and Java for HDFS"

GROUPS = {
    group.name: group
    for group in (
        Group("cold", "first read, against the cold ceiling", "", cold.run, 10, 20),
        Group(
            "warm",
            "reads from the disk cache and from memory, nodes up and stopped, and by the kernel",
            "root and Linux 6.9 for --passthrough",
            warm.run,
            20,
            40,
        ),
        Group("loaders", "safetensors and torch, beside a sequential read", "safetensors, torch", loaders.run, 60, 100),
        Group("probes", "small cold reads, beside raw requests", "", probes.run, 30, 30),
        Group("readers", "1, 4 and 16 readers at once", "", readers.run, 6, 12),
        Group("put", "uploading two copies", "", put.run, 5, 13),
        Group("faults", "one of three nodes dead, hung, slow", "", faults.run, 6, 10),
        Group("kill", "a node killed in the middle of a read", "", kill.run, 5, 5),
        Group("outage", "all nodes dead, and back", "", outage.run, 11, 7),
        Group("scale", "1 to 3 copies, 2 to 8 nodes", "", scale.run, 20, 17),
        Group("daemon", "CPU and memory of a mount", "", daemon.run, 10, 15),
        Group("catalogue", "10,000 models, and one of 1 TiB", "", catalogue.run, 25, 0),
        Group("placement", "how even chunks lie on nodes, and what a new node moves", "", placement.run, 30, 0),
        Group("user", "a mount without root", "root, setpriv, fusermount3, unshare, nsenter", user.run, 5, 5),
        Group("engines", "S3 and HDFS as nodes, beside s3fs, and from afar", f"{ENGINE}; s3fs", engines.run, 60, 20),
        Group("imported", "models that lie on S3 and HDFS already", ENGINE, imported.run, 60, 50),
        Group("peers", "other filesystems on the same bytes (--peers)", "those that are installed", peers.run, 40, 75),
    )
}
