"""Sizes as people write them: `4MiB`, `50GB`, `1048576`."""

import re

from shardfs.errors import UsageError

_FACTORS = {"": 1, "B": 1}
for _power, _letter in enumerate("KMGTP", start=1):
    _FACTORS |= {_letter: 1024**_power, f"{_letter}IB": 1024**_power, f"{_letter}B": 1000**_power}
_SIZE = re.compile(r"\s*([0-9]{1,15}(?:\.[0-9]{1,6})?)\s*([A-Za-z]{0,3})\s*", re.ASCII)


def parse_size(text: str | int) -> int:
    """Bytes. `KiB`, `MiB`... and bare `K`, `M`... are powers of 1024; `KB`, `MB`... of 1000."""
    if isinstance(text, int):
        if isinstance(text, bool) or text < 0:
            raise UsageError(f"not a size: {text!r}")
        return text
    found = _SIZE.fullmatch(text)
    factor = _FACTORS.get(found.group(2).upper()) if found else None
    if found is None or factor is None:
        raise UsageError(f"not a size: {text!r} (write for example 4MiB, 50GB or 1048576)")
    return round(float(found.group(1)) * factor)


def format_size(size: float) -> str:
    """Three significant digits and a binary unit: `512 B`, `1.50 MiB`."""
    for unit in ("B", "KiB", "MiB", "GiB", "TiB"):
        if abs(size) < 1000:
            break
        size /= 1024
    else:
        unit = "PiB"
    if unit == "B":
        return f"{size:.0f} B"
    return f"{size:.2f} {unit}" if abs(size) < 10 else f"{size:.1f} {unit}" if abs(size) < 100 else f"{size:.0f} {unit}"
