"""BLAKE3-256 digests: the only names that content has.

A `Digest` is 32 bytes and can only be made from 32 bytes or from 64 lower-case hex digits, so that no
string from outside becomes part of a path without having been checked.
"""

import re
from typing import Self, TypeAlias

from blake3 import blake3

from shardfs.errors import InvalidFormat

Bytes: TypeAlias = bytes | bytearray | memoryview
"""Anything contiguous that can be hashed, sent or parsed without a copy."""

DIGEST_BYTES = 32
_HEX = re.compile(r"[0-9a-f]{64}", re.ASCII)


class Digest(bytes):
    """A BLAKE3-256 digest. Compares, hashes and sorts as its 32 bytes."""

    __slots__ = ()

    def __new__(cls, value: bytes) -> Self:
        if len(value) != DIGEST_BYTES:
            raise InvalidFormat(f"a digest has {DIGEST_BYTES} bytes, not {len(value)}")
        return super().__new__(cls, value)

    @classmethod
    def parse(cls, text: str) -> Self:
        """The digest written as 64 lower-case hex digits; InvalidFormat for anything else."""
        if not _HEX.fullmatch(text):
            raise InvalidFormat(f"not a digest: {text[:80]!r}")
        return cls(bytes.fromhex(text))

    def __str__(self) -> str:
        return self.hex()

    def __repr__(self) -> str:
        return f"Digest({self.hex()[:12]}…)"


ZERO_DIGEST = Digest(bytes(DIGEST_BYTES))
"""Names nothing: a hole in a file, or the manifest of a deleted model."""


def digest_of(data: Bytes) -> Digest:
    """BLAKE3-256 of a contiguous buffer. Releases the GIL for large buffers."""
    return Digest(blake3(data).digest())
