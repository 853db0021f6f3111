"""What a server repeats of a request is shown without what was secret in it."""

import base64

import pytest

from shardfs.store.http_secrets import HIDDEN, hide

TOKEN = "to/ken+0123456789="
LOGIN = base64.b64encode(b"ada:pa/ss-word").decode()
BEARER = [("Authorization", f"Bearer {TOKEN}")]
BASIC = [("authorization", f"Basic {LOGIN}")]
SHORT = [("Authorization", "Bearer test")]
TINY = [("Authorization", "Basic " + base64.b64encode(b"admin:abc").decode())]
HIDES = [("Authorization", "Bearer hidden")]
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
        ("you sent: Bearer to/ken+0123456789=", BEARER, f"you sent: Bearer {HIDDEN}"),
        ("<to/ken+0123456789=>", BEARER, f"<{HIDDEN}>"),
        ("a=to%2Fken%2B0123456789%3D&b", BEARER, f"a={HIDDEN}&b"),
        ("cut off: to/ken+01", BEARER, f"cut off: {HIDDEN}"),
        (f"Basic {LOGIN}, {LOGIN}.", BASIC, f"Basic {HIDDEN}, {HIDDEN}."),
        ("ada:pa/ss-word, pa/ss-word, pa%2Fss-word;", BASIC, f"ada:{HIDDEN}, {HIDDEN}, {HIDDEN};"),
        ("ada may not", BASIC, "ada may not"),
        ("401 expected Authorization: Bearer", BEARER, "401 expected Authorization: Bearer"),
        ("this needs Basic", BASIC, "this needs Basic"),
        ("sign with AWS4-HMAC-SHA256", AWS, "sign with AWS4-HMAC-SHA256"),
        ("the test bucket is in testing, latest", SHORT, f"the {HIDDEN} bucket is in testing, latest"),
        ("<test>a=test&b%20test", SHORT, f"<{HIDDEN}>a={HIDDEN}&b%20{HIDDEN}"),
        ("the latest", SHORT, "the latest"),
        ("xto/ken+0123456789=x", BEARER, f"x{HIDDEN}x"),
        ("xto/ken+01", BEARER, f"x{HIDDEN}"),
        ("xto/ken", BEARER, "xto/ken"),
        ("no such user: ada", BASIC, "no such user: ada"),
        ("ada:pa/s", BASIC, f"ada:{HIDDEN}"),
        ("admin:abc is refused", TINY, f"{HIDDEN} is refused"),
        ("naked0123 [hidden]", [("Authorization", "naked0123"), *HIDES], f"{HIDDEN} [{HIDDEN}]"),
        ("Signature=abcdef of id, to/ken+0123456789=!", AWS, f"Signature={HIDDEN} of id, {HIDDEN}!"),
        ("to/ken+0123456789=", [("Content-Length", "5")], "to/ken+0123456789="),
        ("nothing at all", [*BEARER, *BASIC], "nothing at all"),
        ("no base64", [("Authorization", "Basic no base64")], HIDDEN),
        ("a and b", [("Authorization", "Basic YTpi")], "a and b"),  # a:b, too short to be told from other words
    ],
)
def test_hide(said: str, headers: list[tuple[str, str]], shown: str) -> None:
    assert hide(said, headers) == shown


def test_what_is_whole_ends_with_no_half_of_a_secret() -> None:
    assert hide("cut off: to/ken+01", BEARER, cut=False) == "cut off: to/ken+01"
    assert hide("whole: to/ken+0123456789=", BEARER, cut=False) == f"whole: {HIDDEN}"
