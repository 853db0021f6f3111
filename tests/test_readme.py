"""The commands and numbers in the documents are those of the program."""

import re
import shlex
from collections.abc import Iterator
from pathlib import Path

import click
import pytest

from shardfs.cli import COMMANDS, main
from tests.documents import PAGES, ROOT, blocks, in_code, number, rows, table, without_blocks

README = ROOT / "README.md"
SHELL = ("sh", "ini")
_PROGRAM = re.compile(r"(?:\S*/)?shardfs(?:-put)?")
_BEFORE = ("sudo", "exec", "env", "nice")
_END = ("|", "||", "&&", ";", "&", ">", ">>", "<", "2>", "do", "done")


def shown_in(text: str) -> Iterator[list[str]]:
    """Every call of shardfs in shell text (or a unit file), as words without the program's name."""
    for line in text.replace("\\\n", " ").splitlines():
        bare = re.sub(r"^\s*(?:\$ |Exec\w+=)", "", line)
        if not _PROGRAM.search(bare):
            continue
        lexer = shlex.shlex(bare, posix=True, punctuation_chars="|&;<>()")
        lexer.whitespace_split = True
        try:
            words = list(lexer)
        except ValueError:  # a quotation that goes on over several lines calls nothing of ours
            continue
        while words:
            end = next((at for at, word in enumerate(words) if word in _END), len(words))
            call, words = words[:end], words[end + 1 :]
            found = next((at for at, word in enumerate(call) if _PROGRAM.fullmatch(word)), None)
            if found is not None and call[found + 1 :] and all("=" in word or word in _BEFORE for word in call[:found]):
                yield (["put"] if call[found].endswith("-put") else []) + call[found + 1 :]


CALLS = [
    pytest.param(call, id=f"{page.name}: {' '.join(call)[:60]}")
    for page in PAGES
    if page.exists()
    for info, text in blocks(page)
    if info.split(" ")[0] in SHELL
    for call in shown_in(text)
]
MENTIONS = sorted(
    {
        (page.name, found)
        for page in PAGES
        if page.exists()
        for found in re.findall(r"`(?:tools/)?shardfs ([^`]+)`", without_blocks(page).replace("\n", " "))
    }
)


def command(name: str) -> click.Command:
    found = main.get_command(click.Context(main), name)
    assert found is not None, f"there is no command {name}"
    return found


def test_commands_are_found_where_they_are_shown():
    text = r"""
$ A=1 sudo x/shardfs ls -l | head
ExecStart=/x/shardfs node --id a
add table shardfs
tools/shardfs-put a \
  b && cat c
"""
    assert list(shown_in(text)) == [["ls", "-l"], ["node", "--id", "a"], ["put", "a", "b"]]
    assert len(CALLS) > 10


@pytest.mark.parametrize("call", CALLS)
def test_a_command_in_a_code_block_parses(call: list[str]):
    with command(call[0]).make_context(call[0], call[1:]):  # UsageError for what it does not know
        pass


@pytest.mark.parametrize(("page", "mention"), MENTIONS, ids=lambda value: value[:60])
def test_a_command_in_the_text_exists(page: str, mention: str):
    name, *words = mention.split()
    if name.isupper() or name.startswith("--") or name == "...":
        return
    known = {option for parameter in command(name).params for option in parameter.opts} | {"--help", "-h"}
    assert {word.partition("=")[0].strip("[],") for word in words if word.startswith("-")} <= known


def test_the_table_of_commands_is_complete():
    listed = [re.match(r"`shardfs (\w+)", row[0]) for row in table(README, under="Commands")]
    assert [found[1] for found in listed if found] == list(COMMANDS)


def test_arguments_in_the_table_are_those_of_the_commands():
    for row in table(README, under="Commands"):
        name, *words = row[0].strip("`").removeprefix("shardfs ").split()
        parameters = command(name).params
        values = {at + 1 for at, word in enumerate(words) if word.startswith("-")}
        shown = [word for at, word in enumerate(words) if not word.startswith("-") and at not in values]
        arguments = [p.make_metavar(click.Context(command(name))) for p in parameters if isinstance(p, click.Argument)]
        assert shown == arguments, name


def limits() -> Iterator[tuple[Path, str, str]]:
    """Rows of tables whose last cell names a place in the code: page, what is said, place."""
    for page in PAGES:
        if page.exists():
            for row in rows(without_blocks(page)):
                if re.fullmatch(r"`shardfs\.[\w.]+`", row[-1]):
                    yield page, row[1], row[-1].strip("`")


@pytest.mark.parametrize(("page", "said", "place"), list(limits()), ids=lambda value: str(value).rpartition("/")[2])
def test_a_limit_in_a_table_is_the_one_in_the_code(page: Path, said: str, place: str):
    assert number(said) == in_code(place)


def test_the_files_that_are_named_exist():
    for page in PAGES:
        if page.exists():
            named = re.findall(r"`((?:tools|tests|shardfs|docs|\w+)/[\w/]+\.py)`", page.read_text())
            assert [
                name for name in named if not (ROOT / name).exists() and not (ROOT / "shardfs" / name).exists()
            ] == []


def test_every_package_has_a_row_in_the_architecture():
    listed = {row[0].strip("`") for row in table(ROOT / "docs" / "ARCHITECTURE.md", under="Layers")}
    packages = {path.name for path in (ROOT / "shardfs").iterdir() if (path / "__init__.py").exists()}
    assert listed >= packages
    assert listed - packages == {"errors"}


def test_every_decision_has_its_parts_and_stands_in_the_list():
    folder = ROOT / "docs" / "adr"
    listed = re.findall(r"^(\d+)\. \[(.*)\]\((.*)\)$", (folder / "README.md").read_text(), re.MULTILINE)
    pages = sorted(path for path in folder.glob("*.md") if path.name not in ("README.md", "0000-template.md"))
    assert [name for _, _, name in listed] == [path.name for path in pages]
    parts = re.findall(r"^## .*$", (folder / "0000-template.md").read_text(), re.MULTILINE)
    for (place, title, _), path in zip(listed, pages, strict=True):
        text = path.read_text()
        assert text.startswith(f"# {int(place):04}. {title}\n")
        assert re.findall(r"^## .*$", text, re.MULTILINE) == parts, path.name
