"""Names from outside: an allow-list, applied before any path is built."""

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from shardfs.core.names import (
    GENERATION_MAX,
    ModelName,
    check_model,
    check_new,
    check_node_id,
    check_path,
    escape,
    unescape,
)
from shardfs.errors import InvalidName, UsageError

anything = st.text(st.characters(codec=None), max_size=40)  # surrogates too
hostile = st.lists(
    st.sampled_from(["..", ".", "", "a", "/", "\\", "\0", "@", "~", "~2F", "%2e", "é", "\ud800", "x" * 250, " "]),
    max_size=6,
).map("/".join)


@pytest.mark.parametrize(
    ("name", "complaint"),
    [
        ("", "empty part"),
        ("/etc/passwd", "empty part"),
        ("a/", "empty part"),
        ("a//b", "empty part"),
        ("/", "empty part"),
        (".", "part '.'"),
        ("..", "part '..'"),
        ("a/../b", "part '..'"),
        ("../a", "part '..'"),
        ("a/./b", "part '.'"),
        ("a\0b", "contains"),
        ("a\\b", "contains"),
        ("..\\a", "contains"),
        ("a\nb", "contains"),
        ("a\rb", "contains"),
        ("a\x1bb", "contains"),
        ("a\x7fb", "contains"),
        ("x" * 256, "more than 255 bytes"),
        ("é" * 128, "more than 255 bytes"),
        ("a/" + "x" * 256, "more than 255 bytes"),
        ("\ud800", "not valid UTF-8"),
        ("a\udcff", "not valid UTF-8"),
        ("/".join(["a"] * 65), "nested deeper"),
        ("/".join(["x" * 255] * 17), "longer than 4096"),
    ],
)
def test_refused_paths(name, complaint):
    with pytest.raises(InvalidName, match=complaint) as refused:
        check_path(name)
    assert "\n" not in str(refused.value)
    assert len(str(refused.value)) < 400
    with pytest.raises(InvalidName):
        check_model(name)


@pytest.mark.parametrize(
    "name",
    [
        "a",
        "model.safetensors",
        "a/b/c",
        "...",
        "..a",
        "a..",
        ".hidden",
        "a b",
        "ü/é",
        "x" * 255,
        "é" * 127,
        "a@b",
        "~",
        "-",
    ],
)
def test_allowed_paths(name):
    assert check_path(name) == name


@pytest.mark.parametrize("letter", ["\x80", "\x9b", "\x9f"])
def test_other_controls_can_be_read_and_not_published(letter):
    name = f"a/b{letter}2J"
    assert check_model(check_path(name)) == unescape(escape(name)) == name
    with pytest.raises(InvalidName, match="contains") as refused:
        check_new(name, "model name")
    assert letter not in str(refused.value)
    assert check_new("a/b\xa0é", "model name") == "a/b\xa0é"


@given(anything | hostile)
def test_what_passes_stays_inside_its_folder(name):
    try:
        check_path(name)
    except InvalidName:
        return
    parts = name.split("/")
    assert not {"", ".", ".."} & set(parts)
    assert all(1 <= len(part.encode()) <= 255 for part in parts)
    assert not any(ord(letter) < 32 or letter in "\x7f\\" for letter in name)


@pytest.mark.parametrize(
    ("name", "complaint"), [("a@b", "@"), ("@", "@"), ("x/" * 40 + "x" * 200, "too long"), ("é" * 100, "too long")]
)
def test_refused_models(name, complaint):
    with pytest.raises(InvalidName, match=complaint):
        check_model(name)


@pytest.mark.parametrize(
    ("text", "model", "generation"),
    [
        ("a", "a", None),
        ("team/bert.pt", "team/bert.pt", None),
        ("a@1", "a", 1),
        (f"a@{GENERATION_MAX}", "a", GENERATION_MAX),
    ],
)
def test_model_names(text, model, generation):
    name = ModelName.parse(text)
    assert (name.model, name.generation) == (model, generation)
    assert str(name) == text


@pytest.mark.parametrize(
    "text",
    [
        "a@",
        "a@0",
        "a@-1",
        "a@01",
        "a@1 ",
        "a@x",
        "a@1@2",
        "@1",
        "a@\u0661",
        f"a@{GENERATION_MAX + 1}",
        "../a@1",
        "a@1.0",
    ],
)
def test_refused_model_names(text):
    with pytest.raises(InvalidName):
        ModelName.parse(text)


@pytest.mark.parametrize("node", ["a", "A9", "node-1.rack_2", "0", "x" * 64])
def test_node_ids(node):
    assert check_node_id(node) == node


@pytest.mark.parametrize("node", ["", "-a", ".a", "_a", "a/b", "a b", "é", "x" * 65, "a\n", "a\0", "..", "a:b"])
def test_refused_node_ids(node):
    with pytest.raises(UsageError):
        check_node_id(node)


@given(anything | hostile)
@example("a/b")
@example("~")
@example("é")
def test_escape_and_unescape_are_inverse(name):
    try:
        check_model(name)
    except InvalidName:
        return
    segment = escape(name)
    assert unescape(segment) == name
    assert len(segment) <= 255
    assert "/" not in segment
    assert segment.isascii()


@given(st.text("abAB09._-~F2C3é/%", max_size=12))
@example("~61")  # a, which needs no escape
@example("~2f")  # lower case
@example("~FF")  # not UTF-8
@example("~C0~AF")  # an overlong slash
@example("~")
@example("a~2F")
@example("..")
@example("~2E~2E")
@example("a~40b")
def test_only_the_canonical_form_is_unescaped(segment):
    try:
        name = unescape(segment)
    except InvalidName:
        return
    assert escape(name) == segment
    check_model(name)


@pytest.mark.parametrize(
    "segment", ["", "~61", "~2f", "~FF", "~C0~AF", "~", "a~2", "a~2F", "..", ".", "~2E~2E", "a~40b", "é", "a/b"]
)
def test_refused_segments(segment):
    with pytest.raises(InvalidName):
        unescape(segment)
