"""Where a node is: what its url may say, by scheme. Pure.

    http://host:port/path   https://...      a shardfs node, or a server of static files
    file:///absolute/path                    a folder
    s3://bucket/prefix?endpoint=URL&region=NAME&profile=NAME
    hdfs://namenode:port/path                HDFS, by its own protocol
    webhdfs://namenode:port/path             HDFS, by HTTP alone; the port is that of the web pages, 9870 when left out
    dav://host:port/path    davs://...       a WebDAV server; nginx with `dav_methods PUT DELETE` is enough

No url holds a secret: user, password and anything that looks like a key are refused here.
"""

import re
from dataclasses import dataclass
from urllib.parse import SplitResult, parse_qsl, unquote, urlsplit

from shardfs.errors import UsageError

SCHEMES = ("http", "https", "file", "s3", "hdfs", "webhdfs", "dav", "davs")
TOKEN_SCHEMES = ("http", "https", "dav", "davs")
"""Where `token_env` and `token_file` are looked at. Other engines have credential chains of their own."""

WEBHDFS_PORT = 9870
"""Of a NameNode's web server since Hadoop 3. Before it was 50070, which then has to be said."""

_BUCKET = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{1,254}", re.ASCII)
_REGION = re.compile(r"[A-Za-z0-9-]{1,64}", re.ASCII)
_PROFILE = re.compile(r"[A-Za-z0-9._@+-]{1,128}", re.ASCII)
_HOST = re.compile(r"(?=.{1,253}\Z)[A-Za-z0-9_-]{1,63}(\.[A-Za-z0-9_-]{1,63})*\.?", re.ASCII)
_ADDRESS = re.compile(r"[0-9A-Fa-f:.]{2,45}(%[A-Za-z0-9._-]{1,32})?", re.ASCII)
_PATH = re.compile(r"[\x21-\x7e]*", re.ASCII)
_QUOTED = re.compile(r"(['\"]).*\1", re.DOTALL)
_S3_OPTIONS = ("endpoint", "region", "profile")


@dataclass(frozen=True, slots=True)
class S3Place:
    """A folder of a bucket. `prefix` is empty or ends with a slash; empty strings: not said."""

    bucket: str
    prefix: str
    endpoint: str = ""
    region: str = ""
    profile: str = ""


@dataclass(frozen=True, slots=True)
class HdfsPlace:
    """A folder in HDFS. `authority` is host:port of a NameNode, or the name of a name service."""

    authority: str
    path: str


def check_url(text: str) -> SplitResult:
    """`text` in its parts when it is the url of a node, else UsageError."""
    try:
        url = urlsplit(text)
        _ = url.port
    except ValueError as error:
        raise UsageError(f"url {text!r}: {error}") from None
    if "@" in url.netloc:
        raise UsageError("url must not hold a user or password; use token_env or token_file")
    if url.scheme not in SCHEMES:
        raise UsageError(f"url {text!r} must begin with one of {', '.join(s + '://' for s in SCHEMES)}")
    if not text.isprintable():  # urlsplit leaves some of these out without a word
        raise UsageError(f"url {text!r} has a character that cannot be printed")
    if url.scheme == "file":
        _check_file(url, text)
    elif url.scheme == "s3":
        parse_s3(text)
    elif url.scheme == "hdfs":
        parse_hdfs(text)
    elif url.scheme == "webhdfs":
        parse_webhdfs(text)
    else:
        _check_http(url, f"url {text!r}")
    return url


def is_host(name: str) -> bool:
    """Whether `name` can be asked for in a look-up of names: a name in ASCII, or an address without brackets."""
    return bool((_HOST if ":" not in name else _ADDRESS).fullmatch(name))


def is_region(name: str) -> bool:
    """Whether `name` may be that of a region of S3."""
    return bool(_REGION.fullmatch(name))


def _check_file(url: SplitResult, text: str) -> None:
    if url.netloc or not url.path.startswith("/"):
        raise UsageError(f"url {text!r}: a folder is written file:///absolute/path")
    if url.query or url.fragment:
        raise UsageError(f"url {text!r}: in a path ? is written %3F and # is written %23")
    if "\0" in unquote(url.path):
        raise UsageError(f"url {text!r}: the path has a character that no file name can have")


def _check_http(url: SplitResult, shown: str) -> None:
    """The url of a server: what goes into the head of each request as it is. `shown` names it in messages."""
    if not url.hostname:
        raise UsageError(f"{shown} names no host")
    if url.query or url.fragment:
        raise UsageError(f"{shown}: neither ? nor # is known here")
    if not is_host(url.hostname):
        raise UsageError(f"{shown}: {url.hostname[:100]!r} cannot be the name of a host (others than ASCII: xn--...)")
    if not _PATH.fullmatch(url.path):
        raise UsageError(f"{shown}: in the path, write what is not ASCII and blanks with %, such as %20")


def parse_s3(text: str) -> S3Place:
    """What an `s3://` url says. UsageError names what is wrong, and repeats nothing that may be a secret."""
    url = urlsplit(text)
    shown = f"url s3://{url.netloc}{url.path}"
    if not _BUCKET.fullmatch(url.netloc):
        raise UsageError(f"{shown}: {url.netloc!r} cannot be the name of a bucket")
    if url.fragment:
        raise UsageError(f"{shown}: a # must be written %23")
    options: dict[str, str] = {}
    for key, value in parse_qsl(url.query, keep_blank_values=True):
        if key not in _S3_OPTIONS or key in options:
            hint = "" if key in options else "; credentials come from the environment or ~/.aws, never from here"
            raise UsageError(f"{shown}: {'repeated' if key in options else 'unknown'} option {key!r}{hint}")
        options[key] = value
    place = S3Place(url.netloc, _folder(unquote(url.path), shown), **options)
    if place.endpoint:
        check_endpoint(place.endpoint, shown)
    if place.region and not is_region(place.region):
        raise UsageError(f"{shown}: region {place.region!r} is no name of a region")
    if place.profile and not _PROFILE.fullmatch(place.profile):
        raise UsageError(f"{shown}: profile {place.profile!r} is no name of a profile")
    return place


def parse_hdfs(text: str) -> HdfsPlace:
    """What an `hdfs://` url says. UsageError names what is wrong."""
    return _parse_hadoop(text)


def parse_webhdfs(text: str) -> HdfsPlace:
    """What a `webhdfs://` url says; its authority always has a port. UsageError names what is wrong."""
    place = _parse_hadoop(text)
    if not webhdfs_takes(place.path):
        raise UsageError(f"url {text!r}: WebHDFS servers disagree about that path; use hdfs:// or another folder")
    host, _, port = place.authority.partition(":")
    return HdfsPlace(f"{host}:{port or WEBHDFS_PORT}", place.path)


def webhdfs_takes(path: str) -> bool:
    """Whether every DataNode understands the path: old ones decode a % twice, and garble what is not ASCII beside a +.

    The garbled path may be that of another file.
    """
    return "%" not in path and ("+" not in path or path.isascii())


def check_endpoint(endpoint: str, shown: str) -> None:
    """UsageError unless `endpoint` is the url of an S3 server; `shown` says in the message where it stands."""
    try:
        url = urlsplit(endpoint)
        _ = url.port
    except ValueError as error:
        # Without what it quotes: behind a colon that may be a password, with a slash in it or an @ forgotten.
        raise UsageError(f"{shown}: endpoint: {_QUOTED.sub('...', str(error))}") from None
    plain = url.scheme in ("http", "https") and url.hostname and not (url.query or url.fragment)
    if not plain or "@" in url.netloc:
        raise UsageError(f"{shown}: endpoint must be http://host:port or https://host, without a user")
    _check_http(url, f"{shown}: endpoint")


def _parse_hadoop(text: str) -> HdfsPlace:
    url = urlsplit(text)
    shown = f"url {url.scheme}://{url.netloc}{url.path}"
    if not url.hostname or not _HOST.fullmatch(url.hostname):
        raise UsageError(f"{shown} names no NameNode and no name service")
    if url.query or url.fragment:
        raise UsageError(f"{shown}: neither ? nor # is known here")
    folder = _folder(unquote(url.path), shown)
    if not folder:
        raise UsageError(f"{shown}: name a folder below the root, such as {url.scheme}://{url.netloc}/models")
    return HdfsPlace(url.netloc, "/" + folder.rstrip("/"))


def _folder(path: str, shown: str) -> str:
    """A path as a prefix of names: no slash at its start, one at its end, nothing that leads elsewhere."""
    parts = path.strip("/").split("/") if path.strip("/") else []
    if any(part in ("", ".", "..") for part in parts) or any(not c.isprintable() for c in path):
        raise UsageError(f"{shown}: the path has an empty part, a dot part or a control character")
    return "".join(f"{part}/" for part in parts)
