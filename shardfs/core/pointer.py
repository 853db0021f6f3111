"""Where the bytes of an external chunk lie: a span of an object that somebody else wrote to a node's engine.

    msgpack array [node, path, offset, size, tag], in the shortest form

`node` is an id of the cluster file. `path` is relative to the root of the engine behind that node, not to the node's
own folder, and follows the name rules. The chunk is the bytes of the object from `offset` on; `size` is the object's at
the import and `tag` what the engine said of its version then, for messages only: the chunk's digests decide.

Nothing of this is believed: it says where to ask, and what comes is verified like every other chunk.
"""

from dataclasses import dataclass

import msgspec

from shardfs.core.digest import Bytes
from shardfs.core.names import check_node_id, check_path
from shardfs.errors import InvalidFormat, InvalidName

POINTER_BYTES_MAX = 8 * 1024
TAG_CHARACTERS_MAX = 512
OBJECT_BYTES_MAX = 2**62


class _Wire(msgspec.Struct, array_like=True, forbid_unknown_fields=True):
    node: str
    path: str
    offset: int
    size: int
    tag: str


@dataclass(frozen=True, slots=True)
class Pointer:
    """A checked pointer. Build one with `make_pointer` or `decode_pointer`."""

    node: str
    path: str
    offset: int
    size: int
    tag: str

    def encode(self) -> bytes:
        return msgspec.msgpack.encode(_Wire(self.node, self.path, self.offset, self.size, self.tag))


def clean_tag(text: str) -> str:
    """What an engine calls a version of an object, fit for a pointer."""
    return "".join(c if c.isprintable() else "?" for c in text[:TAG_CHARACTERS_MAX])


def make_pointer(node: str, path: str, offset: int, *, size: int, tag: str, length: int) -> Pointer:
    """The pointer to `length` bytes at `offset` of the object `path`. InvalidFormat or InvalidName: what is wrong."""
    check_node_id(node)
    check_path(path, "path of the object")
    if not 0 <= size <= OBJECT_BYTES_MAX or not 0 <= offset <= size - length or length <= 0:
        raise InvalidFormat(f"pointer: {length} bytes at {offset} are not within {size}")
    if len(tag) > TAG_CHARACTERS_MAX or not tag.isprintable():
        raise InvalidFormat("pointer: a tag that is too long or not printable")
    return Pointer(node, path, offset, size, tag)


def decode_pointer(data: Bytes, length: int) -> Pointer:
    """The pointer in `data`, for a chunk of `length` plain bytes; InvalidFormat for anything else.

    It has to be shorter than what it stands for, so that the size of a stored chunk tells whether it is external.
    """
    if len(data) > POINTER_BYTES_MAX or len(data) >= length:
        raise InvalidFormat(f"pointer: {len(data)} bytes for a chunk of {length}")
    try:
        wire = msgspec.msgpack.decode(data, type=_Wire)
        pointer = make_pointer(wire.node, wire.path, wire.offset, size=wire.size, tag=wire.tag, length=length)
        again = pointer.encode()
    except (msgspec.DecodeError, UnicodeError, InvalidName, RecursionError) as error:
        raise InvalidFormat(f"pointer: {error}") from None
    if again != bytes(data):
        raise InvalidFormat("pointer: not in canonical encoding")
    return pointer
