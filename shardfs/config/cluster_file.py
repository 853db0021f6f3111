"""Where the cluster file is, and what it says. Its rules are in `shardfs.core.cluster`."""

import os
from pathlib import Path

from shardfs.core.cluster import Cluster, parse_cluster
from shardfs.errors import InvalidCluster, UsageError

CLUSTER_BYTES_MAX = 1024 * 1024
VARIABLE = "SHARDFS_CLUSTER"
EXAMPLE = 'nodes = [{id = "a", url = "http://10.0.0.1:7300"}, {id = "b", url = "file:///mnt/nas/shardfs/b"}]'


def find_cluster(explicit: str | None) -> Path:
    """The cluster file: `explicit`, else $SHARDFS_CLUSTER, else ./cluster.toml, else ~/.config/shardfs/cluster.toml.

    A place that was named must exist; it is not silently replaced by the next. UsageError says where was looked.
    """
    for named, by in ((explicit, "--cluster"), (os.environ.get(VARIABLE), f"${VARIABLE}")):
        if named:
            path = Path(os.path.expanduser(named))
            if not os.path.exists(path):
                raise UsageError(f"{named}: no such cluster file (named by {by})")
            return path
    places = [Path("cluster.toml"), _settings_folder() / "cluster.toml"]
    for path in places:
        if os.path.exists(path):  # unlike Path.exists it says no, and not an error, of a folder that it may not enter
            return path
    looked = ", ".join(str(path) if path.is_absolute() else f"./{path}" for path in places)
    raise UsageError(
        f"no cluster file: looked for --cluster FILE, ${VARIABLE}, {looked}; "
        f"`shardfs demo` makes a cluster to play with; a file of your own may be {EXAMPLE}"
    )


def load_cluster(path: Path) -> Cluster:
    """The checked cluster that the file at `path` describes. InvalidCluster names file, line and cause."""
    try:
        with path.open("rb") as file:
            raw = file.read(CLUSTER_BYTES_MAX + 1)
    except OSError as error:
        raise InvalidCluster(f"{path}: {error.strerror}") from None
    if len(raw) > CLUSTER_BYTES_MAX:
        raise InvalidCluster(f"{path}: larger than {CLUSTER_BYTES_MAX} bytes, not a cluster file")
    try:
        text = raw.decode()
    except UnicodeDecodeError as error:
        line = raw.count(b"\n", 0, error.start) + 1
        raise InvalidCluster(f"{path}:{line}: not UTF-8") from None
    return parse_cluster(text, str(path))


def _settings_folder() -> Path:
    base = os.environ.get("XDG_CONFIG_HOME")
    return Path(base or os.path.expanduser("~/.config")) / "shardfs"
