"""XML from servers, as a small tree without namespaces. Pure.

Bounded in bytes, depth and elements; a document type (and with it every entity of its own) is refused.
"""

from collections.abc import Iterator
from dataclasses import dataclass, field
from xml.parsers import expat

from shardfs.errors import InvalidFormat

XML_BYTES_MAX = 16 * 1024 * 1024
DEPTH_MAX = 16
ELEMENTS_MAX = 200_000


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
    parser = expat.ParserCreate(namespace_separator="}")
    parser.buffer_text = True
    parser.StartElementHandler = builder.start
    parser.EndElementHandler = builder.end
    parser.CharacterDataHandler = builder.text
    parser.StartDoctypeDeclHandler = builder.doctype
    try:
        parser.Parse(data, True)
    except expat.ExpatError as error:
        raise InvalidFormat(f"not valid XML: {error}") from None
    return builder.root.children[0]


class _Builder:
    def __init__(self) -> None:
        self.root = Element("")
        self._open = [self.root]
        self._count = 0

    def start(self, name: str, _: dict[str, str]) -> None:
        self._count += 1
        if len(self._open) > DEPTH_MAX or self._count > ELEMENTS_MAX:
            raise InvalidFormat("XML too deep or too long")
        element = Element(name.rpartition("}")[2])
        self._open[-1].children.append(element)
        self._open.append(element)

    def end(self, _: str) -> None:
        self._open.pop()

    def text(self, data: str) -> None:
        self._open[-1].text += data

    def doctype(self, *_: object) -> None:
        raise InvalidFormat("XML with a document type")
