"""The names of stored objects, the same on every engine.

    chunks/<2 hex>/<64 hex>
    manifests/<64 hex>
    refs/<escaped model>/<generation, 16 digits>-<manifest digest, 64 hex>

An `ObjectKey` can only be made by the functions here, so a string from the network never becomes a path
unchecked. Sorting keys of one model sorts by generation, then by digest: the last is the newest.
"""

import re
from dataclasses import dataclass

from shardfs.core.digest import ZERO_DIGEST, Digest
from shardfs.core.names import GENERATION_MAX, check_model, escape, unescape
from shardfs.errors import InvalidFormat, InvalidName

CHUNKS, MANIFESTS, REFS = "chunks", "manifests", "refs"

_CHUNK = re.compile(r"chunks/([0-9a-f]{2})/(\1[0-9a-f]{62})", re.ASCII)
_MANIFEST = re.compile(r"manifests/([0-9a-f]{64})", re.ASCII)
_REF = re.compile(r"refs/([A-Za-z0-9._~-]{1,255})/([0-9]{16})-([0-9a-f]{64})", re.ASCII)


class ObjectKey(str):
    """A checked object name. Made by `chunk_key`, `manifest_key`, `RefName.key` and `parse_key` only."""

    __slots__ = ()

    @property
    def kind(self) -> str:
        """One of `chunks`, `manifests`, `refs`."""
        return self.partition("/")[0]


@dataclass(frozen=True, slots=True, order=True)
class RefName:
    """All that a ref says, and its order: the greatest of a model is its newest generation."""

    model: str
    generation: int
    manifest: Digest

    @property
    def deleted(self) -> bool:
        """A tombstone: from this generation on the model does not exist."""
        return self.manifest == ZERO_DIGEST

    @property
    def key(self) -> ObjectKey:
        return ObjectKey(f"{ref_prefix(self.model)}{self.generation:016d}-{self.manifest}")


def chunk_key(digest: Digest) -> ObjectKey:
    text = digest.hex()
    return ObjectKey(f"{CHUNKS}/{text[:2]}/{text}")


def manifest_key(digest: Digest) -> ObjectKey:
    return ObjectKey(f"{MANIFESTS}/{digest}")


def ref_prefix(model: str) -> str:
    """What every ref of `model`, and of no other model, begins with."""
    return f"{REFS}/{escape(check_model(model))}/"


def parse_key(text: str) -> ObjectKey:
    """The key written as `text`, or InvalidFormat."""
    if _CHUNK.fullmatch(text) or _MANIFEST.fullmatch(text):
        return ObjectKey(text)
    return parse_ref(text).key


def parse_ref(text: str) -> RefName:
    """What the ref key `text` says, or InvalidFormat."""
    found = _REF.fullmatch(text)
    if found is None:
        raise InvalidFormat(f"not an object name: {text[:100]!r}")
    segment, generation, manifest = found.groups()
    try:
        model = unescape(segment)
    except InvalidName as error:
        raise InvalidFormat(str(error)) from None
    number = int(generation)
    if not 1 <= number <= GENERATION_MAX:
        raise InvalidFormat(f"generation {generation} is out of range")
    return RefName(model, number, Digest.parse(manifest))


def key_digest(key: ObjectKey) -> Digest:
    """The digest that names a chunk, or that a manifest's bytes must have, or that a ref points at."""
    return Digest.parse(key[-64:])
