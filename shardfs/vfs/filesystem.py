"""Every operation of the read-only filesystem, in terms of inodes and handles.

Raises `shardfs.errors` and `shardfs.vfs.errors`; turning those into errno is the adapter's business. Deadlines are the
caller's; every operation can be cancelled at any await and leaves the tables as they were.
"""

import itertools
from dataclasses import dataclass, field
from weakref import WeakKeyDictionary

import trio

from shardfs.cache import DiskCache, Lent
from shardfs.core.manifest import FileEntry
from shardfs.core.names import PART_BYTES_MAX
from shardfs.core.readahead import ReadAheadOptions
from shardfs.core.shards import ModelReadAhead
from shardfs.errors import AllDenied, InvalidFormat, NoCopy, NotFound
from shardfs.fetch import Engine, Reading
from shardfs.vfs.attributes import names_of, value_of
from shardfs.vfs.content import Content, model_readahead
from shardfs.vfs.errors import IsAFolder, NameTooLong, NoAttribute, NotAFolder, StaleInode, TooManyHandles
from shardfs.vfs.inodes import Attributes, FileNode, FolderNode, InodeTable, NamesNode, Node
from shardfs.vfs.namespace import Namespace
from shardfs.vfs.tree import Generation, Tree


@dataclass(frozen=True, slots=True)
class FileSystemOptions:
    """`name_seconds`: how long the kernel may believe a model name; `handles_max` bounds open files and listings.

    A listing of models needs the manifest of each: it goes on while they come, at least one in `manifest_seconds`, for
    `listing_seconds` at most. An open waits `map_seconds` at most for the map of its file in the disk cache; after that
    all is a miss until it is there.
    """

    name_seconds: float = 1.0
    map_seconds: float = 0.5
    handles_max: int = 65536
    manifests_at_once: int = 16
    manifest_seconds: float = 2.0
    listing_seconds: float = 7.5
    readahead: ReadAheadOptions = field(default_factory=ReadAheadOptions)


class FileSystem:
    """Given: namespace, engine, cache. Changing, guarded by the event loop: inodes, handles, listings."""

    def __init__(
        self,
        namespace: Namespace,
        engine: Engine,
        *,
        disk: DiskCache | None,
        started: int,
        options: FileSystemOptions = FileSystemOptions(),
    ) -> None:
        self._namespace = namespace
        self._engine = engine
        self._disk = disk
        self._options = options
        self._inodes = InodeTable(name_seconds=options.name_seconds, started=started)
        self._files: dict[int, FileNode] = {}
        self._listings: dict[int, list[tuple[str, Node]]] = {}
        self._readaheads: WeakKeyDictionary[Tree, ModelReadAhead] = WeakKeyDictionary()
        self._numbers = itertools.count(1)

    async def lookup(self, parent: int, name: bytes) -> Attributes:
        """Entry `name` of folder `parent`; counts as one reference to its inode until `forget`."""
        if len(name) > PART_BYTES_MAX:
            raise NameTooLong(f"{name[:40]!r}...")
        try:
            text = name.decode()
        except UnicodeDecodeError:
            raise NotFound(repr(name)) from None
        node = await self._child(self._node(parent), text)
        self._inodes.remember(node)
        return self._inodes.attributes(node)

    def getattr(self, inode: int) -> Attributes:
        return self._inodes.attributes(self._node(inode))

    def forget(self, inode: int, count: int) -> None:
        """The kernel dropped `count` references to `inode`."""
        self._inodes.forget(inode, count)

    async def opendir(self, inode: int) -> int:
        """A handle on the folder's entries as they are now."""
        node = self._node(inode)
        if isinstance(node, NamesNode):
            entries = await self._name_entries(node)
        elif isinstance(node, FolderNode):
            folder = (await self._namespace.tree(node.generation.ref)).folders[node.path]
            entries = [
                (name, self._entry_node(node.generation, child)) for name, child in sorted(folder.children.items())
            ]
        else:
            raise NotAFolder(str(inode))
        handle = self._new_handle()
        self._listings[handle] = entries
        return handle

    def entries(self, handle: int, start: int) -> list[tuple[str, Attributes]]:
        """The entries of an open folder from position `start` on."""
        listing = self._listings.get(handle)
        if listing is None:
            raise StaleInode(f"folder handle {handle}")
        return [(name, self._inodes.attributes(node)) for name, node in listing[start:]]

    def told(self, handle: int, position: int) -> None:
        """The kernel took entry `position` of an open folder: one more reference to its inode."""
        self._inodes.remember(self._listings[handle][position][1])

    def releasedir(self, handle: int) -> None:
        self._listings.pop(handle, None)

    async def open(self, inode: int) -> int:
        """A handle on the file's bytes. They never change and never go away while it is open.

        Waits for the cache disk, but not for long. NoCopy when its manifest is not in memory and no node delivers it.
        """
        node = self._node(inode)
        if not isinstance(node, FileNode):
            raise IsAFolder(str(inode))
        tree = node.tree or await self._namespace.tree(node.generation.ref)
        handle = self._new_handle()
        if node.content is None:
            node.tree = tree
            node.content = Content(
                tree.manifest, node.entry, engine=self._engine, disk=self._disk, readahead=self._readahead(tree)
            )
        node.handles += 1
        self._files[handle] = node
        try:
            await node.content.settle(self._options.map_seconds)
        except BaseException:
            self.release(handle)
            raise
        return handle

    def _readahead(self, tree: Tree) -> ModelReadAhead:
        """What is known of the way in which a generation's files are read."""
        found = self._readaheads.get(tree)
        if found is None:
            found = model_readahead(tree.manifest, self._engine, self._options.readahead)
            self._readaheads[tree] = found
        return found

    def request(self, handle: int, offset: int, size: int) -> memoryview | Reading:
        """Exactly the bytes that exist in [offset, offset + size), valid until the next checkpoint.

        At once when they are in memory, else to be awaited; that raises NoCopy.
        """
        node = self._files.get(handle)
        if node is None or node.content is None:
            raise StaleInode(f"file handle {handle}")
        return node.content.request(offset, size)

    async def read(self, handle: int, offset: int, size: int) -> memoryview:
        """As `request`, and wait for the answer."""
        answer = self.request(handle, offset, size)
        return answer if isinstance(answer, memoryview) else await answer

    @property
    def lends(self) -> bool:
        """Whether there is a disk cache that can lend files."""
        return self._disk is not None and self._disk.lends

    def lend(self, handle: int) -> Lent | None:
        """The open file as it lies in the disk cache, whole and verified, for somebody who reads it without us.

        None when it does not. May block on the disk: call it from a thread.
        """
        node = self._files.get(handle)
        return None if node is None or node.content is None else node.content.lend()

    def release(self, handle: int) -> None:
        node = self._files.pop(handle, None)
        if node is None:
            return
        node.handles -= 1
        if not node.handles and node.content is not None:
            node.content.close()
            node.content = node.tree = None
            self._inodes.drop_if_unused(node)

    def xattrs(self, inode: int) -> list[str]:
        """The full names of an inode's extended attributes."""
        return names_of(self._node(inode))

    async def getxattr(self, inode: int, name: str) -> bytes:
        value = await value_of(self._node(inode), name, self._disk, self._namespace)
        if value is None:
            raise NoAttribute(name)
        return value

    def is_folder(self, inode: int) -> bool:
        return not isinstance(self._node(inode), FileNode)

    def statistics(self) -> dict[str, int]:
        return {"inodes": len(self._inodes), "open_files": len(self._files), "open_folders": len(self._listings)}

    def _node(self, inode: int) -> Node:
        node = self._inodes.get(inode)
        if node is None:
            raise StaleInode(str(inode))
        return node

    async def _child(self, parent: Node, name: str) -> Node:
        match parent:
            case NamesNode(prefix=prefix):
                ref = await self._namespace.find(prefix + name)
                return (
                    self._inodes.names(f"{prefix}{name}/")
                    if ref is None
                    else self._top(await self._namespace.generation(ref))
                )
            case FolderNode(generation=generation, path=path):
                folder = (await self._namespace.tree(generation.ref)).folders[path]
                if name not in folder.children:
                    raise NotFound(name)
                return self._entry_node(generation, folder.children[name])
        raise NotAFolder(str(parent.inode))

    def _top(self, generation: Generation) -> Node:
        single = generation.single
        return self._inodes.folder(generation, "") if single is None else self._inodes.file(generation, single)

    def _entry_node(self, generation: Generation, child: FileEntry | str) -> Node:
        inodes = self._inodes
        return inodes.folder(generation, child) if isinstance(child, str) else inodes.file(generation, child)

    async def _name_entries(self, node: NamesNode) -> list[tuple[str, Node]]:
        """Models and folders of models.

        A model whose manifest nobody has, or delivers in time, is left out: it is not known whether it is a folder.
        AllDenied when nothing is left because credentials are refused: an empty folder would be a lie.
        """
        children = await self._namespace.children(node.prefix)
        found: dict[str, Node] = {}
        denied: list[AllDenied] = []
        limit = trio.CapacityLimiter(self._options.manifests_at_once)

        async def look(name: str) -> None:
            ref = children[name]
            if ref is None:
                found[name] = self._inodes.names(f"{node.prefix}{name}/")
                return
            async with limit:
                try:
                    found[name] = self._top(await self._namespace.generation(ref))
                except AllDenied as error:
                    denied.append(error)
                    return
                except (NoCopy, InvalidFormat):
                    return
            patience.deadline = min(until, trio.current_time() + self._options.manifest_seconds)

        until = trio.current_time() + self._options.listing_seconds
        with trio.move_on_after(self._options.manifest_seconds) as patience:
            async with trio.open_nursery() as nursery:
                for name in children:
                    nursery.start_soon(look, name)
        if denied and not found:
            raise denied[0]
        return sorted(found.items())

    def _new_handle(self) -> int:
        if len(self._files) + len(self._listings) >= self._options.handles_max:
            raise TooManyHandles(f"{self._options.handles_max} handles are open")
        return next(self._numbers)
