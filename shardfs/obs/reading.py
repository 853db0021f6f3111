"""Counters of the read path, in a registry of their own so that several can live in one process."""

from prometheus_client import CollectorRegistry, Counter


class ReadMetrics:
    """One set for each mount or command that reads."""

    def __init__(self) -> None:
        self.registry = CollectorRegistry()
        self.fetched_bytes = self._counter("fetched_bytes", "Verified bytes fetched from nodes", "node")
        self.failures = self._counter("fetch_failures", "Fetches that a node failed", "node")
        self.corrupt = self._counter("corrupt_wire", "Answers that did not verify", "node")
        self.hedges = self._counter("hedges", "Second requests sent because this node was late", "node")
        self.disk_bytes = self._counter("cache_bytes", "Bytes served from the disk cache")
        self.reads_failed = self._counter("reads_failed", "Chunks that no node could deliver in time")

    def _counter(self, name: str, text: str, *labels: str) -> Counter:
        return Counter(name, text, labels, namespace="shardfs", registry=self.registry)

    def total(self, counter: Counter) -> int:
        """The sum over all labels."""
        return int(sum(s.value for m in counter.collect() for s in m.samples if s.name.endswith("_total")))
