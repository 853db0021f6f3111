"""What an S3 server's answers mean: which failure an error is, and which keys a listing holds. Pure."""

from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass
from urllib.parse import unquote

from shardfs.core.keys import ObjectKey, parse_key
from shardfs.errors import Denied, InvalidFormat, NoSpace, StoreError, Unavailable
from shardfs.store.http_connection import Answer
from shardfs.store.xml import parse_xml

_SHOWN_CHARACTERS = 160
_DENIED = frozenset(
    [
        "AccessDenied",
        "AccountProblem",
        "AllAccessDisabled",
        "AuthorizationHeaderMalformed",
        "AuthorizationQueryParametersError",
        "ExpiredToken",
        "InvalidAccessKeyId",
        "InvalidSecurity",
        "InvalidToken",
        "NotSignedUp",
        "RequestExpired",
        "RequestTimeTooSkewed",
        "SignatureDoesNotMatch",
        "TokenRefreshRequired",
        "UnauthorizedAccess",
    ]
)
_THROTTLED = frozenset(["SlowDown", "RequestLimitExceeded", "TooManyRequests", "Throttling", "ThrottlingException"])
_FULL = frozenset(
    ["EntityTooLargeForQuota", "InsufficientCapacity", "InsufficientStorage", "QuotaExceeded", "XMinioStorageFull"]
)


@dataclass(frozen=True, slots=True)
class S3Error:
    """Code and message of an error; empty when the server sent none that can be read."""

    code: str = ""
    message: str = ""
    region: str = ""


@dataclass(frozen=True, slots=True)
class Names:
    """A page of names in the server's order; `more` follow."""

    names: list[str]
    more: bool


@dataclass(frozen=True, slots=True)
class Listing:
    """A page of keys in the server's order. `last` is the last name on it, a key or not; `more` follow."""

    keys: list[ObjectKey]
    last: str
    more: bool


def read_error(answer: Answer, body: bytes, hide: Callable[[str], str]) -> S3Error:
    """The error in `body`, as far as it can be read. `hide` takes what is secret out of the server's words."""
    region = answer.headers.get(b"x-amz-bucket-region", b"").decode("ascii", "replace")
    try:
        root = parse_xml(body)
    except InvalidFormat:
        return S3Error(region=region)
    if root.name != "Error":
        return S3Error(region=region)
    code, message, there = (_shown(hide(root.value(name))) for name in ("Code", "Message", "Region"))
    return S3Error(code, message, there or region)


def failure(node: str, what: str, answer: Answer, error: S3Error) -> StoreError:
    """The failure that an error answer means, with its cause in words that help."""
    said = ": ".join(part for part in (error.code, error.message) if part)
    reason = f"{what}: HTTP {answer.status}" + (f", {said}" if said else "")
    if error.code == "RequestTimeTooSkewed":
        theirs = answer.headers.get(b"date", b"").decode("ascii", "replace")
        return Denied(node, f"{reason}; the clocks differ too much, the server's says {_shown(theirs)}")
    if error.code == "AuthorizationHeaderMalformed" or 300 <= answer.status < 400:
        place = f"; the bucket is in region {error.region}" if error.region else ""
        if 300 <= answer.status < 400:
            return Unavailable(node, f"{reason}{place}; redirects are not followed, check endpoint and region")
        return Denied(node, f"{reason}{place}")
    if error.code in _FULL or answer.status == 507:
        return NoSpace(node, reason)
    if error.code in _THROTTLED or answer.status == 429 or (answer.status == 503 and b"retry-after" in answer.headers):
        return Unavailable(node, f"throttled: {reason}")
    if error.code in _DENIED or answer.status in (401, 403):
        return Denied(node, reason)
    return Unavailable(node, reason)


def read_names(body: bytes, prefix: str) -> Names:
    """A page of ListObjectsV2 below `prefix`. InvalidFormat."""
    root = parse_xml(body)
    if root.name != "ListBucketResult":
        raise InvalidFormat(f"not a listing: {root.name[:40]!r}")
    encoded = root.value("EncodingType") == "url"
    names = [unquote(name) if encoded else name for name in (e.value("Key") for e in root.all("Contents"))]
    if not all(name.startswith(prefix) for name in names):
        raise InvalidFormat("a listing of other names than were asked for")
    return Names(names, root.value("IsTruncated") == "true")


def read_listing(body: bytes, prefix: str) -> Listing:
    """A page of ListObjectsV2 below `prefix` as keys. InvalidFormat."""
    page = read_names(body, prefix)
    keys: list[ObjectKey] = []
    for name in page.names:
        with suppress(InvalidFormat):  # somebody else's object
            keys.append(parse_key(name[len(prefix) :]))
    return Listing(keys, page.names[-1] if page.names else "", page.more)


def _shown(text: str) -> str:
    line = " ".join(text.split())[:_SHOWN_CHARACTERS]
    return "".join(c if c.isprintable() and c.isascii() else "?" for c in line)
