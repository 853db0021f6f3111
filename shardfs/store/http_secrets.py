"""What a request carries as a secret, and how it is kept out of what the server says about it. Pure.

Servers and proxies repeat in their errors what they were sent. Their words go into messages and logs, so they pass
through here before anything of them is shown, and before they are cut.
"""

import base64
import binascii
import re
from collections.abc import Iterable
from urllib.parse import quote

HIDDEN = "[hidden]"
_NAMES = ("authorization", "x-amz-security-token")
_CHARACTERS_MIN = 4
"""A shorter piece is too likely to be an ordinary part of the server's words."""
_ANYWHERE_CHARACTERS_MIN = 8
"""A shorter one is looked for as a word of its own: it is too likely to be a part of another word."""
_WORD_BEGINS = r"(?:(?<!\w)|(?<=%[0-9A-Fa-f]{2}))"


def hide(text: str, headers: Iterable[tuple[str, str]], *, cut: bool = True) -> str:
    """`text` without the secrets of a request with these headers.

    `cut`: more may have followed, so that a secret may only have begun at the end; what it began with is hidden, too.
    """
    secrets = sorted(_secrets(headers), key=len, reverse=True)  # the whole before its parts
    if secrets:
        text = re.sub("|".join(_pattern(secret, then=r"(?!\w)") for secret in secrets), HIDDEN, text)
    for secret in secrets if cut else ():
        for length in range(min(len(secret) - 1, len(text)), _CHARACTERS_MIN - 1, -1):
            begun = secret[:length]
            if text.endswith(begun) and re.search(_pattern(begun) + r"\Z", text):
                return text[:-length] + HIDDEN
    return text


def _pattern(secret: str, *, then: str = "") -> str:
    """Where it may be. A short one only where a word begins and, after it, `then`."""
    plain = re.escape(secret)
    return plain if len(secret) >= _ANYWHERE_CHARACTERS_MIN else f"{_WORD_BEGINS}{plain}{then}"


def _secrets(headers: Iterable[tuple[str, str]]) -> set[str]:
    """As they were sent, as they were before they were encoded for that, and as they would be in a url."""
    found: set[str] = set()
    for name, value in headers:
        if name.lower() in _NAMES:
            found.update(_parts(value))
    found |= {quote(secret, safe="") for secret in found}
    return {secret for secret in found if len(secret) >= _CHARACTERS_MIN}


def _parts(value: str) -> list[str]:
    """What of it is secret. The scheme is not: servers name it when they say what they expect."""
    scheme, space, rest = value.partition(" ")
    if not space:
        return [value]
    if scheme == "Basic":
        try:
            plain = base64.b64decode(rest, validate=True).decode()
        except (binascii.Error, UnicodeDecodeError):
            return [rest]
        password = plain.partition(":")[2]
        return [rest, password if len(password) >= _CHARACTERS_MIN else plain]
    if scheme.startswith("AWS4"):  # the id is no secret; the signature is good for this request for a while
        return [rest.rpartition("Signature=")[2]]
    return [rest]
