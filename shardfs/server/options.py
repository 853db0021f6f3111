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
    """More are answered with 503 and closed."""
    uploads_max: int = 16
    """PUTs whose body is read at the same time, each through 1 MiB of memory; more wait."""
    disk_threads_max: int = 16
    """Threads that touch the disk. They never wait for a client."""
    header_bytes_max: int = 16 * 1024
    header_seconds_max: float = 10.0
    """From the first byte of a request to the end of its head."""
    idle_seconds_max: float = 75.0
    """Between two requests; longer than clients keep an idle connection, so that they close first."""
    grace_seconds: float = 10.0
    rate_min_bytes_per_second: int = 64 * 1024
    """A body of n bytes, in or out, has `grace_seconds` + n / rate; who needs longer is cut off."""
    stop_seconds_max: float = 5.0
    """For requests that run when the server is told to stop."""
    list_limit_max: int = LIST_LIMIT
    """Keys in one page of a listing."""

    def body_seconds(self, size: int) -> float:
        """How long a body of `size` bytes may take."""
        return self.grace_seconds + size / self.rate_min_bytes_per_second
