"""What a chunk server counts, in a registry of its own, in the text format of Prometheus."""

from prometheus_client import CollectorRegistry, Counter, Gauge, generate_latest

METHODS = ("GET", "HEAD", "PUT", "DELETE")


class Metrics:
    """Counters of one server."""

    def __init__(self) -> None:
        self.registry = CollectorRegistry()
        self._requests = Counter(
            "shardfs_node_requests", "Answered requests.", ["method", "status"], registry=self.registry
        )
        self.errors = Counter(
            "shardfs_node_errors",
            "What went wrong: bug, disk, gone (client broken off or too slow), malformed, accept, "
            "evicted (idle, closed to make room), refused (too many).",
            ["kind"],
            registry=self.registry,
        )
        self.received = Counter("shardfs_node_received_bytes", "Bytes of bodies received.", registry=self.registry)
        self.sent = Counter("shardfs_node_sent_bytes", "Bytes of bodies sent.", registry=self.registry)
        self.connections = Gauge("shardfs_node_connections", "Open connections.", registry=self.registry)

    def count(self, method: str, status: int) -> None:
        """One answer. Methods from outside do not make labels."""
        self._requests.labels(method if method in METHODS else "other", str(status)).inc()

    def text(self) -> bytes:
        """The page for a scraper."""
        return generate_latest(self.registry)
