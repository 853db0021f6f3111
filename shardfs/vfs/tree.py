"""One generation as a tree: which names each of its folders has. Immutable, shared by all that look at it."""

from dataclasses import dataclass

from shardfs.core.keys import RefName
from shardfs.core.manifest import FileEntry, Manifest


@dataclass(frozen=True, slots=True)
class Folder:
    """`children`: name -> a FileEntry, or the path of a folder within the generation."""

    path: str
    children: dict[str, "FileEntry | str"]


class Tree:
    """A generation's folders by path; the top is "". A single-file model has `single` instead."""

    def __init__(self, ref: RefName, manifest: Manifest) -> None:
        self.ref = ref
        self.manifest = manifest
        self.folders: dict[str, Folder] = {}
        self.single = manifest.files[0] if manifest.single else None
        if self.single is None:
            self._folder("")
            for path in manifest.folders:
                self._folder(path)
            for entry in manifest.files:
                parent, _, name = entry.path.rpartition("/")
                self._folder(parent).children[name] = entry

    def _folder(self, path: str) -> Folder:
        folder = self.folders.get(path)
        if folder is None:
            folder = self.folders[path] = Folder(path, {})
            if path:
                parent, _, name = path.rpartition("/")
                self._folder(parent).children[name] = path
        return folder
