"""The ref: the small immutable record "generation g of model n is manifest d". Writing it publishes.

The object's name already says all of it, so a listing resolves names without reading anything. The content
repeats the name as JSON, so that a ref found on a disk explains itself and a damaged or misplaced one is refused.
"""

import msgspec

from shardfs.core.digest import Bytes
from shardfs.core.keys import ObjectKey, RefName, parse_ref
from shardfs.errors import InvalidFormat

REF_BYTES_MAX = 4096


class _Wire(msgspec.Struct, forbid_unknown_fields=True):
    format: str
    model: str
    generation: int
    manifest: str


_FORMAT = "shardfs-ref-1"


def encode_ref(ref: RefName) -> bytes:
    """Canonical bytes: the same ref is the same object on every node."""
    wire = _Wire(_FORMAT, ref.model, ref.generation, ref.manifest.hex())
    return msgspec.json.format(msgspec.json.encode(wire), indent=2) + b"\n"


def decode_ref(data: Bytes, key: ObjectKey) -> RefName:
    """The ref stored under `key`; InvalidFormat unless the content says exactly what the name says."""
    ref = parse_ref(key)
    if len(data) > REF_BYTES_MAX or bytes(data) != encode_ref(ref):
        raise InvalidFormat(f"ref {key}: content does not match its name")
    return ref
