"""A url that is taken can be asked: what it says fits into look-ups, heads of requests and calls of the system."""

from urllib.parse import unquote, urlsplit

import h11
import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from shardfs.core.location import check_url, is_host
from shardfs.errors import UsageError

pieces = st.sampled_from(
    [
        "http",
        "https",
        "file",
        "dav",
        "s3",
        "hdfs",
        "webhdfs",
        "://",
        ":",
        "/",
        "//",
        "[",
        "]",
        "@",
        "?",
        "#",
        "%",
        "%00",
        "%41",
        "..",
        ".",
        "a",
        "b.example",
        "ä",
        " ",
        "\x00",
        "\t",
        "℀",
        "x" * 64,
        "::1",
        "8020",
        "endpoint=http://h",
    ]
)
urls = st.lists(pieces, max_size=10).map("".join) | st.builds(
    "{}://{}{}".format,
    st.sampled_from(["http", "dav", "file", "hdfs"]),
    pieces,
    st.lists(pieces, max_size=5).map("".join),
)


@given(urls | st.text(max_size=30))
@example("http://a..b:1")
@example(f"http://{'a' * 64}")
@example("http://h:1/a b")
@example("http://h:1/ä")
@example("file:///tmp/\0x")
@example("http://h/x?y=1")
def test_any_text_is_a_place_that_can_be_asked_or_refused(text: str) -> None:
    try:
        url = check_url(text)
    except UsageError:
        return
    if url.scheme == "file":
        assert "\0" not in unquote(url.path)
    if url.scheme in ("http", "https", "dav", "davs"):
        assert url.hostname
        url.hostname.encode("idna")
        h11.Request(method="GET", target=f"{url.path}/x", headers=[("Host", url.netloc)])
        assert not url.query
        assert not url.fragment


@pytest.mark.parametrize(
    "url",
    [
        *("http://h", "http://h/", "http://h:/", "http://a.example.:80/p/", "http://my_host/%20x/~a", "HTTP://H/"),
        *("http://10.0.0.1:7300", "http://[::1]:7300/p", "https://xn--bcher-kva.example", f"http://{'a' * 63}.b"),
        *("file:///a b/ä", "file:///a%20b/%C3%A4", "dav://h:1/p", "http://h/a=b&c;d@e"),
    ],
)
def test_taken(url: str) -> None:
    assert check_url(url) == urlsplit(url)


@pytest.mark.parametrize(
    ("name", "good"),
    [
        *(("h", True), ("a.b", True), ("a.b.", True), ("a_b-c", True), ("127.0.0.1", True), ("::1", True)),
        *(("fe80::1%eth0", True), ("a" * 63, True), (".".join(["a" * 61] * 4), True)),
        *(("", False), (".", False), ("a..b", False), (".a", False), ("a" * 64, False), ("ä", False), ("a b", False)),
        *(("a\0", False), ("a\n", False), ("[::1]", False), (".".join(["a" * 63] * 4), False)),
    ],
)
def test_hosts(name: str, good: bool) -> None:
    assert is_host(name) is good
    if good:
        name.encode("idna")
