"""XML from servers, as a small tree without namespaces. Pure.

Bounded in bytes, depth, elements and the length of one tag; a document type (and with it every entity of its own) is
refused. The largest document that is allowed takes seconds: see `shardfs.store.long_answers`. In a thread it holds up
nobody, because the parser never has more than a tag to do between two calls.
"""

import codecs
from collections.abc import Iterator
from dataclasses import dataclass, field
from xml.parsers import expat

from shardfs.errors import InvalidFormat

XML_BYTES_MAX = 16 * 1024 * 1024
DEPTH_MAX = 16
ELEMENTS_MAX = 200_000
TAG_BYTES_MAX = 64 * 1024
_ENCODINGS = frozenset(["utf-8", "ascii", "iso8859-1", "iso8859-15", "cp1252", "utf-16", "utf-16-le", "utf-16-be"])
"""As Python names them. Whatever an alias says, these codecs are harmless."""


@dataclass(slots=True)
class Element:
    """`name` without its namespace, `text` without what its children hold."""

    name: str
    text: str = ""
    children: list["Element"] = field(default_factory=list)

    def all(self, name: str) -> Iterator["Element"]:
        """The children with that name."""
        return (child for child in self.children if child.name == name)

    def first(self, *path: str) -> "Element | None":
        """The first child of that name, and the first child of that, and so on."""
        at: Element | None = self
        for name in path:
            at = next(at.all(name), None) if at is not None else None
        return at

    def value(self, *path: str) -> str:
        """The text there, or nothing."""
        at = self.first(*path)
        return at.text.strip() if at is not None else ""


def parse_xml(data: bytes) -> Element:
    """The root element, or InvalidFormat."""
    if len(data) > XML_BYTES_MAX:
        raise InvalidFormat(f"{len(data)} bytes of XML, more than {XML_BYTES_MAX}")
    builder = _Builder()
    # Without its namespaces: the parser would write the whole name of one before each element that is in it, and that
    # name may be as long as the document.
    parser = expat.ParserCreate()
    parser.buffer_text = True
    parser.StartElementHandler = builder.start
    parser.EndElementHandler = builder.end
    parser.CharacterDataHandler = builder.text
    parser.StartDoctypeDeclHandler = builder.doctype
    parser.XmlDeclHandler = builder.declaration
    try:
        for end in range(TAG_BYTES_MAX, len(data) + TAG_BYTES_MAX, TAG_BYTES_MAX):
            parser.Parse(data[end - TAG_BYTES_MAX : end], False)
            if end - parser.CurrentByteIndex > TAG_BYTES_MAX:
                raise InvalidFormat("XML with a tag that does not end")
        parser.Parse(b"", True)
    except (expat.ExpatError, ValueError, LookupError) as error:
        raise InvalidFormat(f"not valid XML: {error}") from None
    return builder.root.children[0]


class _Builder:
    """Changing: the elements that are open, and the pieces of text that each of them has so far."""

    def __init__(self) -> None:
        self.root = Element("")
        self._open: list[tuple[Element, list[str]]] = [(self.root, [])]
        self._count = 0

    def start(self, name: str, _: dict[str, str]) -> None:
        self._count += 1
        if len(self._open) > DEPTH_MAX or self._count > ELEMENTS_MAX:
            raise InvalidFormat("XML too deep or too long")
        element = Element(name.rpartition(":")[2])
        self._open[-1][0].children.append(element)
        self._open.append((element, []))

    def end(self, _: str) -> None:
        element, pieces = self._open.pop()
        element.text = "".join(pieces)

    def text(self, data: str) -> None:
        self._open[-1][1].append(data)

    def doctype(self, *_: object) -> None:
        raise InvalidFormat("XML with a document type")

    def declaration(self, _: str, encoding: str | None, __: int) -> None:
        # What the parser does not know itself it looks for among Python's codecs, which fail each in its own way.
        if encoding is not None and _codec(encoding) not in _ENCODINGS:
            raise InvalidFormat(f"XML in the encoding {encoding[:40]!r}")


def _codec(encoding: str) -> str:
    """Python's name for it, or nothing."""
    try:
        return codecs.lookup(encoding).name
    except (LookupError, ValueError):
        return ""
