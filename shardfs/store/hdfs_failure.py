"""What an error of the HDFS library means. Pure.

Its messages are those of the NameNode, a Java stack trace included, quoted as Rust quotes for programmers:
`RPCError("org.apache...Exception", "Permission denied...\\n\\tat ...")`. One line of them is kept, as Java had it.
"""

import re

from shardfs.errors import Denied, NoSpace, StoreError, Unavailable

_SHOWN_CHARACTERS = 200
_DENIED = re.compile(r"AccessControlException|Permission denied|AuthorizationException|SaslException|AccessControl")
_FULL = re.compile(r"QuotaExceededException|No space left|quota .* is exceeded", re.IGNORECASE)
_SAFE_MODE = re.compile(r"safe ?mode", re.IGNORECASE)
_NO_SERVICE = re.compile(r"No NameNode hosts found")
_SERVICE_HINT = (
    "a url without a port names a name service of the hdfs-site.xml in HADOOP_CONF_DIR;"
    " a NameNode is written host:port, such as namenode:8020"
)
_LOST = re.compile(r"RPC listener disconnected|Broken pipe|reset by peer")
_QUOTED = re.compile(r'(?P<kind>\w+)\((?:"(?P<java>[\w.$]+)", )?"(?P<text>(?:[^"\\]|\\.)*)', re.DOTALL)
_ESCAPE = re.compile(r"\\(.)", re.DOTALL)


def failure(node: str, what: str, error: BaseException) -> StoreError:
    """The failure that `error` means for whoever asked the node."""
    text = str(error)
    reason = f"{what}: {_line(text) or type(error).__name__}"
    if isinstance(error, PermissionError) or _DENIED.search(text):
        return Denied(node, reason)
    if _FULL.search(text):
        return NoSpace(node, reason)
    if _SAFE_MODE.search(text):
        return Unavailable(node, f"{reason} (the NameNode is starting, or in safe mode)")
    if _LOST.search(text):
        return Unavailable(node, f"{reason} (is a NameNode there? this must be its RPC port, not its web port)")
    if _NO_SERVICE.search(text):
        return Unavailable(node, f"{reason} ({_SERVICE_HINT})")
    return Unavailable(node, reason)


def _line(text: str) -> str:
    """The first line that says something: the message of the Java exception, without its stack."""
    quoted = _QUOTED.match(text)
    if quoted is not None:
        kind = quoted["java"].rpartition(".")[2] if quoted["java"] else quoted["kind"]
        text = f"{kind}: {_ESCAPE.sub(_unescaped, quoted['text']).strip()}"
    lines = (line.strip() for line in text.splitlines())
    line = next((line for line in lines if line), "")[:_SHOWN_CHARACTERS]
    return "".join(c if c.isprintable() and c.isascii() else "?" for c in line)


def _unescaped(found: "re.Match[str]") -> str:
    return {"n": "\n", "r": "\n", "t": "\t"}.get(found[1], found[1])
