"""ls, info, plan, versions, rm, status on real folders. Numbers in the output are computed here by other means."""

import json
import re

import click
import pytest

from shardfs.cli import COMMANDS, main
from shardfs.core.hedge import HedgeOptions


def rows(text):
    """The lines of a plain table, split at runs of two or more spaces."""
    return [re.split(r"\s{2,}", line.strip()) for line in text.splitlines()]


def test_ls(models):
    done = models("ls")
    assert (done.exit_code, done.stderr) == (0, "")
    assert rows(done.stdout) == [["MODEL", "GENERATION"], ["one", "2"], ["team/bert", "1"]]
    assert rows(models("ls", "te").stdout)[1:] == [["team/bert", "1"]]


def test_ls_in_full(models):
    table = rows(models("ls", "-l").stdout)
    assert table[0] == ["MODEL", "GENERATION", "FILES", "SIZE", "CREATED"]
    assert [line[:4] for line in table[1:]] == [["one", "2", "1", "6 B"], ["team/bert", "1", "2", "12.0 MiB"]]


def test_ls_reads_no_manifest_unless_it_must(models):
    for node in "abc":
        for manifest in (models.root / node / "manifests").iterdir():
            manifest.unlink()
    assert models.json("ls")["models"][0]["size"] is None
    done = models("ls", "-l")
    assert done.exit_code == 0
    assert rows(done.stdout)[1][:4] == ["one", "2", "?", "?"]


def test_ls_without_a_majority_says_so(models):
    for node in "bc":
        folder = models.root / node
        folder.rename(models.root / f"{node}-away")
        folder.write_text("not a folder")
    done = models("ls")
    assert done.exit_code == 0
    assert len(rows(done.stdout)) == 3
    assert "fewer than a majority of the nodes answered" in done.stderr
    assert "b: " in done.stderr
    assert models.json("ls")["majority"] is False


def test_info(models):
    found = models.json("info", "team/bert")
    assert (found["generation"], found["newest"], found["size"]) == (1, True, 2 + 12 * 1024 * 1024)
    assert found["files"] == [
        {"path": "config.json", "size": 2, "executable": False, "chunks": 1, "holes": 0},
        {"path": "weights.bin", "size": 12 * 1024 * 1024, "executable": False, "chunks": 3, "holes": 2},
    ]
    assert (found["chunks"], found["holes"], found["stored_chunks"]) == (4, 2, 2)
    assert found["ref_nodes"] == ["a", "b", "c"]
    text = models("info", "team/bert").stdout
    assert "4 of 4.00 MiB, 2 of them holes" in text
    assert "not the newest" in models("info", "one@1").stdout


def test_plan(models):
    found = models.json("plan", "team/bert")
    assert found["stored_copies"] == found["stored_chunks"] * found["replicas"] == 4
    assert sum(node["owned"] for node in found["nodes"]) == 4
    assert sum(node["chunks"] for node in found["nodes"]) == 2
    assert sum(node["bytes"] for node in found["nodes"]) == found["stored_bytes"] == 2 + 4 * 1024 * 1024
    assert sum(node["share"] for node in found["nodes"]) == pytest.approx(1)
    loads = [node["bytes"] for node in found["nodes"]]
    assert found["evenness"] == pytest.approx(max(loads) / (sum(loads) / 3))
    assert found["unserved"] == 0
    text = models("plan", "team/bert").stdout
    assert "offset // chunk_size = offset // 4194304, 0 to 3" in text
    assert "chunks x replicas = 2 x 2 = 4 (2 holes and 0 repetitions of the 4 chunks are stored nowhere)" in text


def test_plan_gives_the_chunks_of_a_dead_node_to_others(models):
    (models.root / "b").rename(models.root / "away")
    (models.root / "b").write_text("not a folder")
    found = models.json("plan", "team/bert")
    away = found["nodes"][1]
    assert (away["answers"], away["chunks"]) == (False, 0)
    assert sum(node["chunks"] for node in found["nodes"]) == 2
    assert re.search(r"^b .* does not answer: ", models("plan", "team/bert").stdout, re.MULTILINE)


def test_versions(models):
    table = rows(models("versions", "one").stdout)
    assert table[0] == ["GENERATION", "DIGEST", "SIZE", "CREATED", "REF ON"]
    assert [(line[0], line[2], line[-1]) for line in table[1:]] == [("1", "5 B", "3 of 3"), ("2", "6 B", "3 of 3")]
    assert models.json("versions", "one")["generations"][0]["deleted"] is False


def test_rm(models):
    done = models("rm", "one")
    assert done.exit_code == 0
    assert "one is deleted (as generation 3); its chunks stay on the nodes" in done.stdout
    assert [model["name"] for model in models.json("ls")["models"]] == ["team/bert"]
    assert models.json("versions", "one")["generations"][-1]["deleted"] is True
    again = models("rm", "one")
    assert again.exit_code == 1
    assert again.stderr == "shardfs: one: was deleted as generation 3\n"


@pytest.mark.parametrize("command", ["rm", "versions"])
def test_what_is_about_all_generations_takes_none(models, command):
    done = models(command, "one@1")
    assert (done.exit_code, done.stdout) == (2, "")
    assert done.stderr == f"shardfs: 'one@1': {command} is about all generations of a model; name it without @: one\n"
    assert models.json("info", "one")["generation"] == 2


def test_status(models):
    found = models.json("status")
    assert [(node["id"], node["health"], node["refs"], node["behind"]) for node in found["nodes"]] == [
        ("a", "ok", 3, 0),
        ("b", "ok", 3, 0),
        ("c", "ok", 3, 0),
    ]
    assert (found["answering"], found["majority"], found["models"], found["disagreements"]) == (3, 2, 2, [])
    assert "3 of 3 nodes" in models("status").stdout


def test_status_with_a_node_down_is_no_failure(models):
    (models.root / "b").rename(models.root / "away")
    (models.root / "b").write_text("not a folder")
    done = models("status")
    assert done.exit_code == 0
    assert "2 of 3 nodes" in done.stdout
    assert re.search(r"models +2, ", done.stdout)
    (models.root / "c").rename(models.root / "away too")
    (models.root / "c").write_text("not a folder")
    assert re.search(r"models +at least 2, ", models("status").stdout)
    assert re.search(r"away\s+b: ", done.stdout)


def test_status_names_who_is_behind(models):
    ref = next((models.root / "b" / "refs" / "one").glob("*2-*"))
    ref.unlink()
    found = models.json("status")
    assert [node["behind"] for node in found["nodes"]] == [0, 1, 0]
    assert found["disagreements"] == ["one"]
    assert "not all nodes know the newest of one" in models("status").stdout


def test_status_fails_when_no_node_answers(shell):
    for node in "abc":
        (shell.root / node).rmdir()
        (shell.root / node).write_text("not a folder")
    done = shell("status")
    assert done.exit_code == 1
    assert "0 of 3 nodes; 2 are needed to publish" in done.stdout
    assert re.search(r"models +unknown,", done.stdout)
    assert json.loads(shell("status", "--json").stdout)["models"] is None
    assert shell("ls").exit_code == 1
    assert "no node answered (a: " in shell("ls").stderr


def keys(document, found=None):
    found = set() if found is None else found
    for key, value in document.items():
        found.add(key)
        for item in value if isinstance(value, list) else [value]:
            if isinstance(item, dict) and key != "failed":
                keys(item, found)
    return found


@pytest.mark.parametrize(
    "arguments",
    [["ls", "-l"], ["info", "one"], ["plan", "one"], ["versions", "one"], ["rm", "one"], ["status"]],
    ids=lambda arguments: arguments[0],
)
def test_the_help_names_every_json_key_and_no_other(models, arguments):
    command = main.get_command(click.Context(main), arguments[0])
    documented = command.help.split("--json:", 1)[1]
    documented = re.sub(r"\(.*?\)|node: reason", "", documented)
    assert set(re.findall(r"[a-z_]+", documented)) == keys(models.json(*arguments))


@pytest.mark.parametrize("name", COMMANDS)
def test_every_command_of_the_table_is_there_and_says_what_it_does(name):
    command = main.get_command(click.Context(main), name)
    assert command.help
    assert command.get_short_help_str()


def placed(shell, **settings):
    """Write the cluster file anew; `settings` are further lines for the table of a node."""
    text = "replicas = 2\n"
    for node in "abc":
        text += f'[[nodes]]\nid = "{node}"\nurl = "file://{shell.root / node}"\n{settings.get(node, "")}\n'
    shell.cluster_file.write_text(text)


def columns(shell, command, *headings):
    """The cells below these headings, by node. By place: a cell may be empty."""
    lines = shell(*command).stdout.splitlines()
    at = next(i for i, line in enumerate(lines) if line.startswith("NODE"))
    names = re.split(r"\s{2,}", lines[at])
    return {
        row[0]: [row[names.index(heading)] for heading in headings] for row in rows("\n".join(lines[at + 1 : at + 4]))
    }


REPORTS = pytest.mark.parametrize("command", [["status"], ["plan", "one"]], ids=["status", "plan"])


@REPORTS
def test_settings_in_which_nodes_differ_are_columns(models, command):
    placed(models, a='zone = "here"\nweight = 2.5', b='zone = "here"', c="read_priority = 3")
    assert columns(models, command, "ZONE", "WEIGHT", "PRIORITY") == {
        "a": ["here", "2.5", "0"],
        "b": ["here", "1", "0"],
        "c": ["-", "1", "3 (far)"],
    }


@REPORTS
def test_settings_in_which_all_are_equal_are_none(models, command):
    placed(models, **dict.fromkeys("abc", 'zone = "here"\nweight = 2.5\nread_priority = 3'))
    shown = models(*command).stdout
    assert "NODE" in shown
    for heading in ("ZONE", "WEIGHT", "PRIORITY", "far"):
        assert heading not in shown
    placed(models, b="weight = 2.5")
    shown = models(*command).stdout
    assert "WEIGHT" in shown
    assert "ZONE" not in shown
    assert "PRIORITY" not in shown


@REPORTS
def test_who_is_far_and_what_it_may_cost_is_said(models, command):
    placed(models, a="read_priority = 1", c="read_priority = 2")
    shown = models(*command).stdout
    budget = HedgeOptions()
    (line,) = re.findall(r"^far +(.*)$", shown, re.MULTILINE)
    assert line.startswith("a, c: ")
    assert f"{100 * budget.far_budget_share:g}% of all requests, {budget.far_budget_burst:g} saved up" in line
