"""One question for everybody who accepts an object: are these bytes what their name says?"""

from shardfs.core.chunk import BLOCK_SIZE_MIN, CHUNK_SIZE_MAX, header_size, verify_chunk
from shardfs.core.digest import Bytes
from shardfs.core.keys import CHUNKS, MANIFESTS, ObjectKey, key_digest
from shardfs.core.manifest import MANIFEST_BYTES_MAX, decode_manifest
from shardfs.core.ref import REF_BYTES_MAX, decode_ref


def size_limit(key: ObjectKey) -> int:
    """The most bytes an object of this kind may have; checked before a byte of it is read."""
    if key.kind == CHUNKS:
        return header_size(CHUNK_SIZE_MAX, BLOCK_SIZE_MIN) + CHUNK_SIZE_MAX
    return MANIFEST_BYTES_MAX if key.kind == MANIFESTS else REF_BYTES_MAX


def verify_object(key: ObjectKey, data: Bytes) -> None:
    """Raise InvalidFormat unless `data` is the whole object that `key` names."""
    if key.kind == CHUNKS:
        verify_chunk(data, key_digest(key))
    elif key.kind == MANIFESTS:
        decode_manifest(data, key_digest(key))
    else:
        decode_ref(data, key)
