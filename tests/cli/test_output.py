import json
import re

import pytest

from shardfs.cli import output
from shardfs.cli.output import Column, emit_json, facts, shown_size, shown_time, table, warn
from shardfs.core.digest import digest_of

COLUMNS = [Column("NAME"), Column("SIZE", right=True)]
ROWS = [("a", "1"), ("longer", "1000")]


def test_plain_tables_are_aligned_and_nothing_else(capsys):
    table(COLUMNS, ROWS)
    assert capsys.readouterr().out == "NAME    SIZE\na          1\nlonger  1000\n"


def test_an_empty_table_has_its_headings(capsys):
    table(COLUMNS, [])
    assert capsys.readouterr().out == "NAME  SIZE\n"


def test_a_terminal_gets_the_same_cells(capsys, monkeypatch):
    monkeypatch.setattr(output.sys.stdout, "isatty", lambda: True, raising=False)
    table(COLUMNS, [*ROWS, ("[red]x[/red]", "2")])
    text = re.sub(r"\x1b\[[0-9;]*m", "", capsys.readouterr().out)
    assert [line.split() for line in text.splitlines() if line.strip(" ─\n")] == [
        ["NAME", "SIZE"],
        ["a", "1"],
        ["longer", "1000"],
        ["[red]x[/red]", "2"],  # a name is no markup
    ]


def test_facts(capsys):
    facts([("a", "1"), ("long label", "2")])
    assert capsys.readouterr().out == "a           1\nlong label  2\n"


def test_json_is_one_document_with_digests_in_hex(capsys):
    emit_json({"digest": digest_of(b""), "name": "ü", "none": None})
    text = capsys.readouterr().out
    assert json.loads(text) == {"digest": digest_of(b"").hex(), "name": "ü", "none": None}


@pytest.mark.parametrize(("size", "shown"), [(None, "?"), (0, "0 B"), (3 * 1024**3, "3.00 GiB")])
def test_sizes(size, shown):
    assert shown_size(size) == shown


def test_unknown_times():
    assert shown_time(None) == "?"


def test_the_last_time_that_a_manifest_may_have():
    assert re.fullmatch(r"36812-02-(19|20) \d\d:\d\d", shown_time(2**40 - 1))
    assert re.fullmatch(r"2023-11-1[45] \d\d:\d\d", shown_time(1700000000))


EVIL = "a\x1b]0;b\x07\x9b2J\x85\x7f\nc\udcff"
SHOWN = r"a\x1b]0;b\x07\x9b2J\x85\x7f\x0ac\xff"


@pytest.mark.parametrize("terminal", [False, True])
def test_no_control_character_of_a_name_is_printed(terminal, capsys, monkeypatch):
    monkeypatch.setattr(output.sys.stdout, "isatty", lambda: terminal, raising=False)
    monkeypatch.setenv("COLUMNS", "200")
    table(COLUMNS, [(EVIL, "1")])
    facts([("name", EVIL)])
    warn(EVIL)
    out, err = capsys.readouterr()
    text = re.sub(r"\x1b\[[0-9;]*m", "", out) + err  # rich's own colours
    assert text.count(SHOWN) == 3
    assert not any(letter in text for letter in EVIL if not letter.isprintable() and letter != "\n")


def test_no_control_character_is_in_json_and_none_is_lost(capsys):
    emit_json({"name": EVIL, EVIL: "é"})
    text = capsys.readouterr().out
    assert json.loads(text) == {"name": EVIL, EVIL: "é"}
    assert not any(letter in text for letter in EVIL if not letter.isprintable() and letter != "\n")
    assert "é" in text
