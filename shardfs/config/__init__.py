"""What stands outside of the program: the cluster file and the secrets. Found, read and checked here, nowhere else."""

from shardfs.config.cluster_file import find_cluster, load_cluster
from shardfs.config.token import read_token

__all__ = ["find_cluster", "load_cluster", "read_token"]
