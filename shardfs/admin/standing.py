"""What stands under the name of a chunk already when it is to be stored: its bytes, a pointer to them, or rubbish.

Both are good chunks, and both are small or large enough to be told apart by their size. Bytes stay, whatever comes. A
pointer makes room for the bytes: whoever uploads wants them to be stored. For another pointer it makes room when the
object that it leads to is not any more what was imported, since the new one was looked at just now.
"""

from collections.abc import Sequence

import trio

from shardfs.core.chunk import RAW, ChunkHeader, parse_header, parse_pointer, verify_chunk
from shardfs.core.digest import Bytes
from shardfs.core.keys import ObjectKey, key_digest
from shardfs.core.pointer import POINTER_BYTES_MAX, Pointer
from shardfs.errors import InvalidFormat, NotFound, StoreError, Unavailable
from shardfs.store.fleet import Fleet
from shardfs.store.watched import WatchedStore


class Unusable(StoreError):
    """The node has something else under this name. Only a repair can cure that."""


class Standing:
    """`question`: seconds for a small answer."""

    def __init__(self, fleet: Fleet, *, question: float) -> None:
        self._fleet = fleet
        self._question = question

    async def superseded(self, store: WatchedStore, key: ObjectKey, parts: Sequence[Bytes], present: int) -> bytes:
        """The object of `present` bytes that has to make room for `parts`; empty when it may stay.

        Raises Unusable when it is no chunk of this name, Unavailable when the node does not say.
        """
        wanted = parse_header(parts[0], key_digest(key))
        if present == wanted.stored_size:
            return b""
        if not wanted.size < present < wanted.size + min(POINTER_BYTES_MAX + 1, wanted.plain_size):
            raise self._unusable(store, key, wanted, present)
        data = await self._read(store, key, present)
        try:
            pointer = parse_pointer(verify_chunk(data, key_digest(key)), data, key_digest(key))
        except InvalidFormat:
            raise self._unusable(store, key, wanted, present) from None
        if wanted.codec != RAW and (data == b"".join(parts) or await self._stands(pointer)):
            return b""
        return data

    async def _read(self, store: WatchedStore, key: ObjectKey, size: int) -> bytes:
        with trio.move_on_after(self._question):
            try:
                return await store.read(key, limit=size)
            except NotFound:
                raise Unavailable(store.node, f"{key} went away in this moment") from None
        raise Unavailable(store.node, f"no answer within {self._question:.0f} s")

    async def _stands(self, pointer: Pointer) -> bool:
        """Whether the object is still the one that was imported; a node that does not answer is believed."""
        server = self._fleet.get(pointer.node)
        if server is None or not server.holds_external:
            return False
        with trio.move_on_after(self._question):
            try:
                now = await server.external_stat(pointer.path)
            except NotFound:
                return False
            except StoreError:
                return True
            return (now.size, now.tag) == (pointer.size, pointer.tag)
        return True

    def _unusable(self, store: WatchedStore, key: ObjectKey, wanted: ChunkHeader, present: int) -> Unusable:
        return Unusable(store.node, f"has {present} bytes instead of {wanted.stored_size} as {key}")
