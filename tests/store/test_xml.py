"""XML from servers: what is read, and what is refused before it costs anything."""

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from shardfs.errors import InvalidFormat
from shardfs.store import xml
from shardfs.store.xml import DEPTH_MAX, TAG_BYTES_MAX, XML_BYTES_MAX, Element, parse_xml


def encoded(name: str) -> bytes:
    return f'<?xml version="1.0" encoding="{name}"?><a/>'.encode()


# Each of these fails in a way of its own when Python's codec is asked.
CODECS = [
    "utf-7",
    "gb18030",
    "big5",
    "utf-32",
    "utf-16-foo",
    "hex",
    "idna",
    "punycode",
    "undefined",
    "unicode_escape",
    "cp037",
    "utf-8-sig",
]
LONG = b"x" * 2 * TAG_BYTES_MAX
REFUSED = {
    "empty": b"",
    "no XML": b"hello",
    "half": b"<a>",
    "two roots": b"<a/><a/>",
    "a NUL": b"<a>\0</a>",
    "no UTF-8": b"<a>\xff</a>",
    "a document type": b"<!DOCTYPE a><a/>",
    "deep": b"<a>" * (DEPTH_MAX + 1) + b"</a>" * (DEPTH_MAX + 1),
    "large": b"<a>" + b" " * XML_BYTES_MAX + b"</a>",
    "a long name": b"<" + LONG + b"/>",
    "a long attribute": b'<a b="' + LONG + b'"/>',
    "a long namespace": b'<a xmlns="' + LONG + b'"><b/></a>',
    "many attributes": b"<a " + b" ".join(b'b%d=""' % n for n in range(TAG_BYTES_MAX)) + b"/>",
    "a tag that never ends": b"<a " + LONG,
    **{f"encoding {name[:20]}": encoded(name) for name in [*CODECS, "x" * 1000]},
}


@pytest.mark.parametrize("case", REFUSED)
def test_refused(case: str) -> None:
    with pytest.raises(InvalidFormat) as caught:
        parse_xml(REFUSED[case])
    assert len(str(caught.value)) < 200
    assert "\n" not in str(caught.value)


def test_more_elements_than_allowed_are_refused(monkeypatch) -> None:
    monkeypatch.setattr(xml, "ELEMENTS_MAX", 10)
    assert len(parse_xml(b"<a>" + b"<b/>" * 9 + b"</a>").children) == 9
    with pytest.raises(InvalidFormat, match="too long"):
        parse_xml(b"<a>" + b"<b/>" * 10 + b"</a>")


@pytest.mark.parametrize(
    ("text", "encoding"),
    [
        ("ä", "utf-8"),
        ("ä", "UTF-8"),
        ("a", "utf8"),
        ("a", "us-ascii"),
        ("a", "ASCII"),
        ("ä", "iso-8859-1"),
        ("ä", "latin1"),
        ("ä€", "ISO-8859-15"),
        ("ä€", "windows-1252"),
        ("ä", "utf-16"),
        ("ä", "UTF-16LE"),
        ("ä", "utf-16be"),
    ],
)
def test_the_encodings_that_servers_use(text: str, encoding: str) -> None:
    data = f'<?xml version="1.0" encoding="{encoding}"?><a>{text}</a>'.encode(encoding)
    assert parse_xml(data) == Element("a", text)


def test_a_tree() -> None:
    tree = parse_xml(b'<D:a xmlns:D="u">x<D:b c="d">y</D:b>&#122;<b/>\n<![CDATA[<]]></D:a>')
    assert tree == Element("a", "xz\n<", [Element("b", "y"), Element("b")])
    assert [element.text for element in tree.all("b")] == ["y", ""]
    assert tree.value("b") == "y"
    assert tree.value("c") == tree.value("b", "c") == ""


def test_text_longer_than_a_tag_may_be() -> None:
    assert parse_xml(b"<a>" + LONG + b"</a>").text == LONG.decode()
    assert parse_xml(b"<a><![CDATA[" + LONG + b"]]></a>").text == LONG.decode()
    assert parse_xml(b"<a>" + b"\n" * len(LONG) + b"</a>").text == "\n" * len(LONG)


@given(st.integers(0, 80), st.integers(1, 60))
def test_tags_across_the_pieces_that_the_parser_gets(before: int, size: int) -> None:
    text = "x" * (TAG_BYTES_MAX - before)
    name = "n" * size
    tree = parse_xml(f"<a>{text}<{name} b='c'>y</{name}>z</a>".encode())
    assert tree == Element("a", text + "z", [Element(name, "y")])


def test_text_between_many_children_is_put_together_once(monkeypatch) -> None:
    """Adding each piece to what is there already took a minute for a document of this form."""
    written = 0

    class Counting(Element):
        def __setattr__(self, name: str, value: object) -> None:
            nonlocal written
            written += len(value) if name == "text" and isinstance(value, str) else 0
            super().__setattr__(name, value)

    monkeypatch.setattr(xml, "Element", Counting)
    assert parse_xml(b"<a>" + b"xy<b/>" * 1000 + b"</a>").text == "xy" * 1000
    assert written == 2000


@given(st.binary(max_size=300) | st.text(alphabet='<>/a:="? !-[]&;#x0DOCTYPEé', max_size=100).map(str.encode))
@example(encoded("utf-7"))
def test_any_bytes_are_a_tree_or_invalid(data: bytes) -> None:
    try:
        tree = parse_xml(data)
    except InvalidFormat:
        return
    assert tree.name
