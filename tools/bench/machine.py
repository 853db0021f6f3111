"""What the figures were measured on: enough to judge them, nothing that names the place."""

import os
import platform
from datetime import UTC, datetime
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path

from bench.measure import GIB

PACKAGES = ("shardfs", "pyfuse3", "trio", "blake3", "xxhash", "safetensors", "torch")


def machine() -> dict[str, object]:
    """Cores, memory, kernel, processor, versions and the date."""
    return {
        "date": datetime.now(UTC).strftime("%Y-%m-%d %H:%M UTC"),
        "cores": len(os.sched_getaffinity(0)),
        "memory_gib": round(os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") / GIB, 1),
        "processor": processor(),
        "kernel": platform.release().partition("-")[0],
        "python": platform.python_version(),
        "root": os.geteuid() == 0,
        "congestion_control": congestion_control(),
        "versions": {name: found for name in PACKAGES if (found := _version(name))},
    }


def congestion_control() -> str:
    """The system's choice for TCP, which other programs on this machine use over loopback as well (see ADR 18)."""
    return Path("/proc/sys/net/ipv4/tcp_congestion_control").read_text().strip()


def processor() -> str:
    for line in Path("/proc/cpuinfo").read_text().splitlines():
        if line.startswith("model name"):
            return line.partition(":")[2].strip()
    return platform.machine()


def _version(name: str) -> str | None:
    try:
        return version(name)
    except PackageNotFoundError:
        return None
