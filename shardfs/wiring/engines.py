"""Which engine serves which url, with its credentials."""

from pathlib import Path
from urllib.parse import unquote, urlsplit

from shardfs.config import read_token
from shardfs.config.aws import AwsCredentials, AwsProfile
from shardfs.config.hadoop import hadoop_user
from shardfs.core.cluster import Node
from shardfs.core.location import parse_hdfs, parse_s3, parse_webhdfs
from shardfs.store.base import Store
from shardfs.store.dav import DavStore
from shardfs.store.file import FileStore
from shardfs.store.hdfs import HdfsStore
from shardfs.store.http import HttpStore
from shardfs.store.s3 import S3Store
from shardfs.store.s3_client import S3Site
from shardfs.store.webhdfs import WebHdfsStore


def open_store(node: Node) -> Store:
    """The engine for the node's url. Connects to nothing yet. UsageError when its token cannot be read."""
    url = urlsplit(node.url)
    if url.scheme == "file":
        return FileStore(node.id, Path(unquote(url.path)))
    if url.scheme == "s3":
        return _open_s3(node)
    if url.scheme == "hdfs":
        return HdfsStore(node.id, parse_hdfs(node.url))
    if url.scheme == "webhdfs":
        return WebHdfsStore(node.id, parse_webhdfs(node.url), user=hadoop_user(node.id))
    if url.scheme in ("dav", "davs"):
        return DavStore(node.id, node.url, token=read_token(node))
    return HttpStore(node.id, node.url, token=read_token(node))


def _open_s3(node: Node) -> Store:
    place = parse_s3(node.url)
    profile = AwsProfile(place.profile)
    region = place.region or profile.region()
    endpoint = (place.endpoint or profile.endpoint()).rstrip("/")
    if endpoint:
        url = f"{endpoint}/{place.bucket}"
    else:
        suffix = ".cn" if region.startswith("cn-") else ""
        url = f"https://{place.bucket}.s3.{region}.amazonaws.com{suffix}"
        if "." in place.bucket:  # a certificate covers one label
            url = f"https://s3.{region}.amazonaws.com{suffix}/{place.bucket}"
    return S3Store(node.id, S3Site(url, place.prefix, region), AwsCredentials(node.id, place.profile))
