"""What a server repeats of a request is shown without what was secret in it."""

import base64

import pytest

from shardfs.store.http_secrets import HIDDEN, hide

TOKEN = "to/ken+0123456789="
LOGIN = base64.b64encode(b"ada:pa/ss-word").decode()
BEARER = [("Authorization", f"Bearer {TOKEN}")]
BASIC = [("authorization", f"Basic {LOGIN}")]
AWS = [
    ("x-amz-security-token", TOKEN),
    (
        "Authorization",
        "AWS4-HMAC-SHA256 Credential=id/20130524/r/s3/aws4_request, SignedHeaders=host, Signature=abcdef",
    ),
]


@pytest.mark.parametrize(
    ("said", "headers", "shown"),
    [
        ("you sent: Bearer to/ken+0123456789=", BEARER, f"you sent: {HIDDEN}"),
        ("<to/ken+0123456789=>", BEARER, f"<{HIDDEN}>"),
        ("a=to%2Fken%2B0123456789%3D&b", BEARER, f"a={HIDDEN}&b"),
        ("cut off: to/ken+01", BEARER, f"cut off: {HIDDEN}"),
        (f"Basic {LOGIN}, {LOGIN}.", BASIC, f"{HIDDEN}, {HIDDEN}."),
        ("ada:pa/ss-word, pa/ss-word, pa%2Fss-word;", BASIC, f"{HIDDEN}, {HIDDEN}, {HIDDEN};"),
        ("ada may not", BASIC, "ada may not"),
        ("Signature=abcdef of id, to/ken+0123456789=!", AWS, f"Signature={HIDDEN} of id, {HIDDEN}!"),
        ("to/ken+0123456789=", [("Content-Length", "5")], "to/ken+0123456789="),
        ("nothing at all", [*BEARER, *BASIC], "nothing at all"),
        ("no base64", [("Authorization", "Basic no base64")], HIDDEN),
        ("a and b", [("Authorization", "Basic YTpi")], "a and b"),  # a:b, too short to be told from other words
    ],
)
def test_hide(said: str, headers: list[tuple[str, str]], shown: str) -> None:
    assert hide(said, headers) == shown
