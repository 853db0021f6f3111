"""What a chunk server is told, and every limit it keeps."""

from dataclasses import dataclass, field
from pathlib import Path

from shardfs.store.base import LIST_LIMIT


@dataclass(frozen=True, slots=True, kw_only=True)
class ServerOptions:
    """`node` serves the folder `data` at `host`:`port` (0: any free port)."""

    node: str
    data: Path
    host: str = "127.0.0.1"
    port: int = 7300
    token: str | None = field(default=None, repr=False)
    """What clients must show as `Authorization: Bearer`. None: anybody may read, write and delete."""
    insecure: bool = False
    """Listen on other than loopback addresses although there is no token."""

    connections_max: int = 512
    """For one more, the one that has been idle longest is closed; when each has a request, it is answered with 503."""
    uploads_max: int = 16
    """PUTs whose body is read at the same time, each through 1 MiB of memory; more wait, but for those up to 64 KiB."""
    upload_wait_seconds_max: float = 25.0
    """How long they wait before they are answered with 503. Shorter than our clients wait for the answer."""
    upload_quiet_seconds_max: float = 4.5
    """They are sent away sooner when none of the uploads that are being read has moved for so long. Shorter than the
    stall limit; longer than the 256 KiB take, at the least rate, for which a body that is being read is looked at."""
    upload_stall_seconds_max: float = 5.0
    """Without a byte of a body that is being read."""
    answer_stall_seconds_max: float = 30.0
    """Without a byte of an answer taken. Longer, because a reader's system takes large pieces, with pauses between."""
    disk_threads_max: int = 16
    """Threads that touch the disk. They never wait for a client."""
    header_bytes_max: int = 16 * 1024
    header_seconds_max: float = 10.0
    """From the first byte of a request to the end of its head; of a connection's first one, from the start."""
    idle_seconds_max: float = 75.0
    """Between two requests; longer than clients keep an idle connection, so that they close first."""
    grace_seconds: float = 10.0
    rate_min_bytes_per_second: int = 64 * 1024
    """A client may keep us waiting for `grace_seconds` + n / rate for the first n bytes of a body, in or out."""
    stop_seconds_max: float = 5.0
    """For requests that run when the server is told to stop."""
    list_limit_max: int = LIST_LIMIT
    """Keys in one page of a listing."""
