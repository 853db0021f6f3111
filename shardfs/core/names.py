"""Which names models, files and nodes may have, and how a model name becomes one path segment.

The rules are an allow-list applied to everything that comes from a user, a node or a manifest, before
any path is built from it: no empty part, no `.` or `..`, no absolute path, no NUL, backslash or control
character, parts of at most 255 bytes, valid UTF-8. U+0080 to U+009F are controls, too (U+009B begins a sequence on some
terminals), but older models may have them: they can be read and not published any more.
"""

import re
from dataclasses import dataclass

from shardfs.errors import InvalidName

PART_BYTES_MAX = 255
PATH_BYTES_MAX = 4096
PATH_DEPTH_MAX = 64

_FORBIDDEN = re.compile(r"[\x00-\x1f\x7f\\]")
_FORBIDDEN_NOW = re.compile("[\x80-\x9f]")
_NODE_ID = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,63}", re.ASCII)
_GENERATION = re.compile(r"[1-9][0-9]{0,15}", re.ASCII)
_PLAIN = frozenset(b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789._-")
_ESCAPED = re.compile(r"(?:[A-Za-z0-9._-]|~[0-9A-F]{2})+", re.ASCII)

GENERATION_MAX = 10**16 - 1


@dataclass(frozen=True, slots=True)
class ModelName:
    """What a user types: `team/bert.pt` (the newest generation) or `team/bert.pt@3`."""

    model: str
    generation: int | None = None

    @classmethod
    def parse(cls, text: str) -> "ModelName":
        """Split and check; InvalidName says which part is wrong."""
        model, at, generation = text.partition("@")
        if not at:
            return cls(check_model(model))
        if not _GENERATION.fullmatch(generation):
            raise InvalidName(f"{text!r}: after @ comes a generation number, such as {model}@3")
        return cls(check_model(model), int(generation))

    def __str__(self) -> str:
        return self.model if self.generation is None else f"{self.model}@{self.generation}"


def check_path(path: str, what: str = "file name") -> str:
    """Return `path`, a relative path with `/` between its parts, or raise InvalidName."""
    shown = repr(path if len(path) <= 80 else path[:77] + "...")
    try:
        encoded = path.encode()
    except UnicodeEncodeError:
        raise InvalidName(f"{what} {shown} is not valid UTF-8") from None
    if len(encoded) > PATH_BYTES_MAX:
        raise InvalidName(f"{what} {shown} is longer than {PATH_BYTES_MAX} bytes")
    if found := _FORBIDDEN.search(path):
        raise InvalidName(f"{what} {shown} contains {found.group()!r}, which is not allowed")
    parts = path.split("/")
    if len(parts) > PATH_DEPTH_MAX:
        raise InvalidName(f"{what} {shown} is nested deeper than {PATH_DEPTH_MAX} folders")
    for part in parts:
        if not part:
            raise InvalidName(f"{what} {shown} has an empty part (leading, trailing or double '/')")
        if part in (".", ".."):
            raise InvalidName(f"{what} {shown} has a part {part!r}, which is not allowed")
        if len(part.encode()) > PART_BYTES_MAX:
            raise InvalidName(f"{what} {shown} has a part of more than {PART_BYTES_MAX} bytes")
    return path


def check_model(model: str) -> str:
    """Return `model` or raise InvalidName: a path by the rules above, no `@`, escaped within 255 bytes."""
    check_path(model, "model name")
    if "@" in model:
        raise InvalidName(f"model name {model!r} contains '@', which separates the generation")
    if len(escape(model)) > PART_BYTES_MAX:
        raise InvalidName(f"model name {model[:60]!r}... is too long")
    return model


def check_new(name: str, what: str) -> str:
    """Return `name`, of a model or file to publish, or raise InvalidName for what only older ones may have."""
    if found := _FORBIDDEN_NOW.search(name):
        shown = repr(name if len(name) <= 80 else name[:77] + "...")
        raise InvalidName(f"{what} {shown} contains {found.group()!r}, which is not allowed")
    return name


def check_node_id(node_id: str) -> str:
    """Return `node_id` or raise InvalidName: 1 to 64 of `A-Za-z0-9._-`, beginning with a letter or digit."""
    if not _NODE_ID.fullmatch(node_id):
        raise InvalidName(f"node id {node_id[:80]!r}: 1 to 64 letters, digits, '.', '_' or '-'")
    return node_id


def escape(model: str) -> str:
    """A model name as one path segment that every engine takes: all but `A-Za-z0-9._-` become `~XX`.

    `~` needs no quoting in URLs and is legal in HDFS, S3 and file names, unlike `%`, `:` or `/`.
    """
    return "".join(chr(b) if b in _PLAIN else f"~{b:02X}" for b in model.encode())


def unescape(segment: str) -> str:
    """The inverse of `escape`; InvalidName unless `segment` is exactly what `escape` would make."""
    if not _ESCAPED.fullmatch(segment):
        raise InvalidName(f"not an escaped model name: {segment[:80]!r}")
    raw = re.sub(r"~([0-9A-F]{2})", lambda m: chr(int(m.group(1), 16)), segment).encode("latin-1")
    try:
        model = raw.decode()
    except UnicodeDecodeError:
        raise InvalidName(f"not an escaped model name: {segment[:80]!r}") from None
    if escape(check_model(model)) != segment:
        raise InvalidName(f"not a canonical escaped model name: {segment[:80]!r}")
    return model
