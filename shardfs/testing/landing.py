"""The bytes of one simulated answer: where they land, what may be wrong with them, and the rubbish a failure leaves."""

import random
from collections.abc import Callable, Sequence

from shardfs.store.base import SpanInto
from shardfs.testing.faults import Fault, Kind

RUBBISH = 0xA5


class Landing:
    """One or several spans of an object, filled one after the other. `counts` are the bytes that are there of each."""

    def __init__(self, spans: Sequence[SpanInto], arrived: Callable[[int, int], None] | None) -> None:
        self.spans = spans
        self.length = sum(len(into) for _, into in spans)
        self.counts = [0] * len(spans)
        self._arrived = arrived
        self._lengths = [len(into) for _, into in spans]

    @classmethod
    def of_one(cls, offset: int, into: memoryview, arrived: Callable[[int], None] | None) -> "Landing":
        """What `Store.get` is asked for."""
        return cls([(offset, into)], None if arrived is None else lambda _, count: arrived(count))

    def cut(self, stored: bytes) -> bytes:
        """What these spans are of an object, one after the other."""
        parts = [stored[offset : offset + len(into)] for offset, into in self.spans]
        self._lengths = [len(part) for part in parts]
        return b"".join(parts)

    def write(self, data: bytes) -> None:
        """The next bytes have come."""
        for number, (_, into) in enumerate(self.spans):
            at = self.counts[number]
            part, data = data[: self._lengths[number] - at], data[self._lengths[number] - at :]
            if part:
                into[at : at + len(part)] = part
                self.counts[number] = at + len(part)
                if self._arrived is not None:
                    self._arrived(number, self.counts[number])

    def litter(self) -> None:
        """Rubbish wherever nothing has been announced."""
        for (_, into), count in zip(self.spans, self.counts, strict=True):
            into[count:] = bytes([RUBBISH]) * (len(into) - count)


def damaged(fault: Fault, stored: bytes, another: bytes, cut: Callable[[bytes], bytes], chance: random.Random) -> bytes:
    """What an answer delivers that suffers `fault`: `cut` makes it from the object `stored`, or from `another` one."""
    right = cut(stored)
    length = len(right)
    if not length:
        return right
    match fault.kind:
        case Kind.TRUNCATE:
            return right[: min(fault.at, length - 1)]
        case Kind.FLIP:
            at = fault.at % length
            return right[:at] + bytes([right[at] ^ 1 << chance.randrange(8)]) + right[at + 1 :]
        case Kind.GARBAGE:
            return chance.randbytes(length)
        case Kind.OTHER_CHUNK:
            return cut(another[: len(stored)].ljust(len(stored), b"\0"))
        case Kind.OTHER_DATA if stored.startswith(b"SHFC"):
            header = 16 + 36 * (-(-int.from_bytes(stored[12:16], "little") // int.from_bytes(stored[8:12], "little")))
            return cut(stored[:header] + another[header : len(stored)].ljust(len(stored) - header, b"\0"))
        case _:
            return right
