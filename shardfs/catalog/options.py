"""The knobs of the catalogue, with their reasons."""

from dataclasses import dataclass

MiB = 1024 * 1024


@dataclass(frozen=True, slots=True)
class CatalogOptions:
    """Times in seconds, sizes in bytes."""

    node_timeout: float = 2.0
    """For one page of a listing from one node: small answers, so a node that needs longer is not well."""

    grace: float = 0.1
    """How long the others may still answer once a majority has: enough for a healthy network, too short to feel."""

    write_timeout: float = 30.0
    """For storing one manifest (up to 64 MiB) or ref on one node."""

    write_grace: float = 1.0
    """How long the others may still store once a majority has: more copies now is less to repair later."""

    large_turn: float = 2.0
    """How long one large manifest waits for another before it is fetched beside it."""

    manifest_timeout: float = 30.0
    """For one manifest from one node."""

    manifest_hedge: float = 0.25
    """After this long without an answer the next node is asked too."""

    manifest_racers: int = 3
    """Nodes asked for one manifest at the same time, at most: each may hold 64 MiB in memory."""

    memory_bytes: int = 64 * MiB
    """Decoded manifests kept in memory, by an estimate of what they occupy."""

    folder_bytes: int = 1024 * MiB
    """What manifests kept in the local folder may take of its disk, at every instant; the longest unused go first."""

    folder_timeout: float = 0.5
    """For one file of that folder, read or written: a disk that needs longer hangs, and the nodes have what it has."""

    folder_pause: float = 30.0
    """How long the folder is left alone after a late answer: each question may cost a thread and `folder_timeout`."""

    folder_threads: int = 8
    """Threads at that folder, at most: a disk that hangs keeps them, and must not keep those of others."""

    refs_max: int = 1_000_000
    """Refs believed of one node: more is refused, so that a node cannot fill the memory."""

    asked_at_once: int = 128
    """Nodes asked at the same time: each costs a descriptor."""

    publish_tries: int = 8
    """Numbers tried when others publish the same model at the same time."""

    publish_pause: float = 0.05
    """Least head start that an uploader who yields gives to each rival before it, see `shardfs.catalog.publish`."""

    publish_pause_max: float = 10.0
    """The most, however slow the nodes are."""
