"""The folders of a download, below the one that the user names. Links there are not followed.

As rsync and bsdtar do by default: whoever planted the link, or forgot it, would decide where files are written. It is
checked before each file, which does not help against somebody who changes the folders at the same time.
"""

import stat
from pathlib import Path

from shardfs.errors import SourceError


def make_folder(dest: Path, below: str) -> Path:
    """The folder `below` in `dest`, made if need be with those around it. "" is `dest` itself, which may be a link.

    SourceError names what is in the way; OSError when it cannot be made.
    """
    folder = dest
    folder.mkdir(parents=True, exist_ok=True)
    for part in below.split("/") if below else ():
        folder = folder / part
        try:
            mode = folder.lstat().st_mode
        except FileNotFoundError:
            folder.mkdir(exist_ok=True)
            continue
        if stat.S_ISLNK(mode):
            raise SourceError(
                f"{folder}: is a symbolic link, and links below {dest} are not followed; "
                "replace it by a folder (or a bind mount)"
            )
        if not stat.S_ISDIR(mode):
            raise SourceError(f"{folder}: is in the way, a folder is to be there")
    return folder
