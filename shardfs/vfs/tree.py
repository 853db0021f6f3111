"""One generation as a tree: which names each of its folders has. Immutable, shared by all that look at it.

A tree with its manifest may be large, so it is kept for what is open and little more (`shardfs.vfs.trees`). What inodes
need of a generation for as long as the kernel knows them is a `Generation`, which is small.
"""

from dataclasses import dataclass
from sys import getsizeof

from shardfs.core.keys import RefName
from shardfs.core.manifest import FileEntry, Manifest

# Measured with tracemalloc for one large file, one folder, many, nested ones, long names: the estimate is 1.0 to 1.8
# times what they take.
_TREE_BYTES = 1000
_FILE_BYTES = 200  # one file besides its texts, of which there are two: the path, and its last part as a name
_FOLDER_BYTES = 300


@dataclass(frozen=True, slots=True)
class Generation:
    """What is shown of a generation without its manifest. `single`: its one file, when it is no folder."""

    ref: RefName
    created: int
    chunk_size: int
    chunks: int
    single: FileEntry | None


@dataclass(frozen=True, slots=True)
class Folder:
    """`children`: name -> a FileEntry, or the path of a folder within the generation."""

    path: str
    children: dict[str, "FileEntry | str"]


class Tree:
    """A generation's folders by path; the top is "". A single-file model has none."""

    def __init__(self, ref: RefName, manifest: Manifest) -> None:
        self.manifest = manifest
        single = manifest.files[0] if manifest.single else None
        self.generation = Generation(ref, manifest.created, manifest.chunk_size, manifest.chunks, single)
        self.folders: dict[str, Folder] = {}
        if single is None:
            self._folder("")
            for path in manifest.folders:
                self._folder(path)
            for entry in manifest.files:
                parent, _, name = entry.path.rpartition("/")
                self._folder(parent).children[name] = entry

    @property
    def memory_bytes(self) -> int:
        """What tree and manifest occupy, about: measured, and rather too much than too little."""
        manifest = self.manifest
        texts = sum(getsizeof(file.path) for file in manifest.files) + sum(map(getsizeof, self.folders))
        records = _TREE_BYTES + _FILE_BYTES * len(manifest.files) + _FOLDER_BYTES * len(self.folders)
        return len(manifest.digests) + 2 * texts + records

    def _folder(self, path: str) -> Folder:
        folder = self.folders.get(path)
        if folder is None:
            folder = self.folders[path] = Folder(path, {})
            if path:
                parent, _, name = path.rpartition("/")
                self._folder(parent).children[name] = path
        return folder
