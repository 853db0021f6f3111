"""How the Hugging Face cache lies on disk, as far as publishing from it needs to know.

    models--org--name/blobs/<hash>                       the bytes
    models--org--name/refs/main                          the commit that `main` means
    models--org--name/snapshots/<commit>/config.json  -> ../../blobs/<hash>

`hf download --local-dir DIR` writes plain files into DIR and keeps its books in `DIR/.cache/huggingface`.
"""

import os
import re

BOOKKEEPING = os.path.join(".cache", "huggingface")

_REPO = r"(?:models|datasets|spaces)--"
_SNAPSHOT = re.compile(rf"(?P<repo>.*/{_REPO}(?P<id>[^/]+))/snapshots/[^/]+(?P<below>/.*)?", re.DOTALL)
_CACHE_FOLDER = re.compile(rf".*/{_REPO}[^/]+(?:/snapshots)?", re.DOTALL)


def blobs(path: str) -> str | None:
    """The folder that links in `path` (absolute, within a snapshot) may lead to; None outside of a snapshot."""
    found = _SNAPSHOT.fullmatch(path)
    return os.path.join(found["repo"], "blobs") if found else None


def model_name(path: str) -> str | None:
    """`org/name` when `path` (absolute) is a whole snapshot."""
    found = _SNAPSHOT.fullmatch(path)
    return found["id"].replace("--", "/") if found and not found["below"] else None


def snapshot_to_use(path: str) -> str | None:
    """When `path` (absolute) is a cache folder above the snapshots: which of them was meant, most likely."""
    if not _CACHE_FOLDER.fullmatch(path):
        return None
    repo = path.removesuffix("/snapshots")
    try:
        with open(os.path.join(repo, "refs", "main"), encoding="ascii") as file:
            commit = file.read(200).strip()
    except (OSError, UnicodeError):
        commit = "<commit>"
    return os.path.join(repo, "snapshots", commit)
