"""Small valid objects of every kind, the same for the same arguments."""

import random
from dataclasses import dataclass

from shardfs.core.chunk import BLOCK_SIZE, make_header
from shardfs.core.digest import Digest, digest_of
from shardfs.core.keys import ObjectKey, RefName, chunk_key, manifest_key
from shardfs.core.manifest import make_manifest
from shardfs.core.pointer import make_pointer
from shardfs.core.ref import encode_ref


@dataclass(frozen=True, slots=True)
class Sample:
    """An object and its name."""

    key: ObjectKey
    data: bytes


def sample_chunk(seed: int, size: int = 1000, block_size: int = BLOCK_SIZE) -> Sample:
    """A chunk of `size` plain bytes that no other seed makes."""
    plain = random.Random(seed).randbytes(size)
    digest, header = make_header(plain, block_size)
    return Sample(chunk_key(digest), header.encode() + plain)


def sample_external(seed: int, size: int = 100_000) -> Sample:
    """A chunk of `size` plain bytes that lie elsewhere."""
    digest, header = make_header(random.Random(seed).randbytes(size))
    pointer = make_pointer("elsewhere", f"models/{seed}.bin", 12345, size=10**9, tag=f'"{seed}"', length=size)
    return Sample(chunk_key(digest), header.as_external().encode() + pointer.encode())


def sample_manifest(seed: int) -> Sample:
    """The manifest of one file with one chunk."""
    digest = make_header(random.Random(seed).randbytes(10))[0]
    data = make_manifest([("model.bin", 10, False)], bytes(digest), created=seed).encode()
    return Sample(manifest_key(digest_of(data)), data)


def sample_ref(model: str, generation: int, seed: int = 0) -> Sample:
    """A ref; `seed` chooses the manifest it points at."""
    ref = RefName(model, generation, Digest(random.Random(seed).randbytes(32)))
    return Sample(ref.key, encode_ref(ref))
