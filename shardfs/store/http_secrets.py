"""What a request carries as a secret, and how it is kept out of what the server says about it. Pure.

Servers and proxies repeat in their errors what they were sent. Their words go into messages and logs, so they pass
through here before anything of them is shown, and before they are cut.
"""

import base64
import binascii
from collections.abc import Iterable
from urllib.parse import quote

HIDDEN = "[hidden]"
_NAMES = ("authorization", "x-amz-security-token")
_CHARACTERS_MIN = 4
"""A shorter piece is too likely to be an ordinary part of the server's words."""


def hide(text: str, headers: Iterable[tuple[str, str]]) -> str:
    """`text` without the secrets of a request with these headers; at its end not even the beginning of one."""
    secrets = sorted(_secrets(headers), key=len, reverse=True)  # the whole before its parts
    for secret in secrets:
        text = text.replace(secret, HIDDEN)
    for secret in secrets:
        for length in range(min(len(secret), len(text)), _CHARACTERS_MIN - 1, -1):
            if text.endswith(secret[:length]):
                return text[:-length] + HIDDEN
    return text


def _secrets(headers: Iterable[tuple[str, str]]) -> set[str]:
    """As they were sent, as they were before they were encoded for that, and as they would be in a url."""
    found: set[str] = set()
    for name, value in headers:
        if name.lower() in _NAMES:
            found |= {value, *_parts(value)}
    found |= {quote(secret, safe="") for secret in found}
    return {secret for secret in found if len(secret) >= _CHARACTERS_MIN}


def _parts(value: str) -> list[str]:
    scheme, _, rest = value.partition(" ")
    if scheme == "Basic":
        try:
            plain = base64.b64decode(rest, validate=True).decode()
        except (binascii.Error, UnicodeDecodeError):
            return [rest]
        return [rest, plain, plain.partition(":")[2]]
    if scheme.startswith("AWS4"):  # the id is no secret; the signature is good for this request for a while
        return [rest.rpartition("Signature=")[2]]
    return [rest]
