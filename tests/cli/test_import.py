"""`shardfs import` as users run it, on a cluster of folders."""

import os
import random
import re
import shutil

import click
import pytest

from shardfs.api import whereabouts
from shardfs.cli import main
from tests.cli.conftest import Shell

MIB = 1024 * 1024
KEYS = {
    "name", "generation", "digest", "node", "path", "files", "size", "chunks", "bytes_new", "bytes_present",
    "bytes_zero", "seconds", "replaced_nodes", "unchanged", "raced",
}  # fmt: skip
WEIGHTS = random.Random(3).randbytes(9 * MIB + 17)


@pytest.fixture
def llama(shell):
    folder = shell.root / "b" / "models" / "llama"
    (folder / "deep").mkdir(parents=True)
    (folder / "model.safetensors").write_bytes(WEIGHTS)
    (folder / "deep" / "config.json").write_text('{"hidden_size": 4096}\n' * 20)
    (folder / "zeros").write_bytes(bytes(5 * MIB))
    return folder


def test_import_info_get(shell, llama, tmp_path):
    done = shell.json("import", "b", "models/llama")
    assert set(done) == KEYS
    assert (done["name"], done["generation"], done["node"], done["path"]) == ("llama", 1, "b", "models/llama")
    assert done["bytes_new"] + done["bytes_present"] + done["bytes_zero"] == done["size"]
    assert (done["files"], done["bytes_zero"]) == (3, 5 * MIB)
    found = shell.json("info", "llama")
    assert found["external_nodes"] == {"b": 4}
    assert (found["looked_chunks"], found["stored_chunks"]) == (4, 4)
    assert "4 lie on node b as parts of other people's files" in shell("info", "llama").stdout
    stored = sum(path.stat().st_size for node in "abc" for path in (shell.root / node / "chunks").glob("??/*"))
    assert stored < 8000
    shell.json("get", "llama", tmp_path / "got")
    for path in llama.rglob("*"):
        assert path.is_dir() or (tmp_path / "got" / path.relative_to(llama)).read_bytes() == path.read_bytes()


def test_the_help_names_every_json_key_and_no_other():
    epilog = main.get_command(click.Context(main), "import").epilog
    assert set(re.findall(r"[a-z_]+", epilog.partition("keys:")[2].partition(".")[0])) == KEYS


def test_the_report_for_people(shell, llama):
    done = shell("import", "b", "/models/llama/", "team/llama")
    assert done.exit_code == 0, done.stderr
    assert "lies on        node b, models/llama" in done.stdout
    assert "generation     1\n" in done.stdout
    again = shell("import", "b", "models/llama", "team/llama")
    assert "unchanged" in again.stdout
    assert "newly known    0 bytes" in again.stdout


def test_bytes_after_an_upload(shell, llama, tmp_path):
    shell.json("import", "b", "models/llama")
    shell.json("put", llama)
    assert shell.json("info", "llama")["external_nodes"] == {}
    llama.rename(llama.parent / "away")
    shell.json("get", "llama", tmp_path / "got")
    assert (tmp_path / "got" / "model.safetensors").read_bytes() == WEIGHTS


@pytest.mark.parametrize(
    ("change", "said"),
    [
        (lambda path: path.write_bytes(WEIGHTS[::-1]), "was changed since it was imported"),
        (lambda path: os.truncate(path, 5 * MIB), "was changed since it was imported"),
        (lambda path: path.unlink(), "is gone since it was imported"),
    ],
    ids=["other bytes", "shorter", "deleted"],
)
def test_a_file_changed_behind_the_import_is_named(shell, llama, tmp_path, change, said):
    shell.json("import", "b", "models/llama")
    change(llama / "model.safetensors")
    done = shell("get", "llama", tmp_path / "got")
    assert done.exit_code == 1
    assert f"node b: models/llama/model.safetensors {said}" in done.stderr
    assert len([line for line in done.stderr.splitlines() if line.startswith("shardfs: ")]) == 1
    assert not (tmp_path / "got" / "model.safetensors").exists()


@pytest.mark.parametrize(
    ("arguments", "status", "said"),
    [
        (["z", "models/llama"], 2, "no node 'z' in the cluster file; there are a, b, c"),
        (["b", "models/none"], 1, "node b: there is no file and no folder with files models/none"),
        (["b", "models/none/"], 1, "models/none"),
        (["b", "../a"], 2, "PATH '../a' has a part '..'"),
        (["b", "/"], 2, "model name"),
        (["b", "/", "name"], 2, "PATH"),
        (["b", "models/llama", "a@3"], 2, "'@'"),
        (["a", "models/llama"], 1, "node a: there is no file"),
    ],
    ids=lambda value: " ".join(value) if isinstance(value, list) else "",
)
def test_wrong_input(shell, llama, arguments, status, said):
    done = shell("import", *arguments)
    assert (done.exit_code, done.stdout) == (status, "")
    (line,) = done.stderr.splitlines()
    assert line.startswith("shardfs: ")
    assert said in line


def test_a_shardfs_node_has_nothing_to_import(shell, llama):
    shell.write(extra='[[nodes]]\nid = "d"\nurl = "http://127.0.0.1:1"\n')
    done = shell("import", "d", "models/llama")
    assert done.exit_code == 2
    assert "node d is no place of other people's files" in done.stderr
    assert "nodes of kind s3, hdfs, webhdfs, dav and file are" in done.stderr


def test_a_name_that_cannot_be_is_refused_before_anything_is_read(shell, llama):
    shell.json("import", "b", "models/llama", "team")
    done = shell("import", "b", "models/llama", "team/llama")
    assert done.exit_code == 1
    assert "one would be a folder of the other" in done.stderr


# --------------------------------------------------------------------------------------------------------- the plan


def column(plan, key):
    return {node["node"]: node[key] for node in plan["nodes"]}


def test_plan_says_who_is_asked_and_who_delivers(shell, llama):
    shell.json("import", "b", "models/llama")
    plan = shell.json("plan", "llama")
    stored = len(WEIGHTS) + len((llama / "deep" / "config.json").read_bytes())
    assert sum(column(plan, "chunks").values()) == plan["stored_chunks"] == plan["external_chunks"] == 4
    assert column(plan, "pointers") == column(plan, "chunks")
    assert column(plan, "bytes") != column(plan, "served_bytes")
    assert column(plan, "served_chunks") == {"a": 0, "b": 4, "c": 0}
    assert column(plan, "served_bytes") == {"a": 0, "b": stored, "c": 0}
    assert column(plan, "served_share") == {"a": 0.0, "b": 1.0, "c": 0.0}
    assert (plan["external_bytes"], plan["looked_chunks"], plan["undelivered"]) == (stored, 4, 0)
    text = shell("plan", "llama").stdout
    assert re.search(r"^imported +4 chunks, 9.00 MiB, are parts of other people's files$", text, re.MULTILINE)
    assert re.search(r"^NODE .* HOLDS +POINTERS +SERVES +BYTES +SHARE$", text, re.MULTILINE)
    assert re.search(r"^b .* 4 +9.00 MiB +100.0%$", text, re.MULTILINE)
    assert re.search(r"^a .* 0 +0 B +0.0%$", text, re.MULTILINE)


def test_plan_of_an_upload_has_no_pointers(shell, llama):
    shell.json("put", llama)
    plan = shell.json("plan", "llama")
    for key in ("chunks", "bytes", "share"):
        assert column(plan, f"served_{key}") == column(plan, key)
    assert (plan["external_chunks"], plan["external_bytes"], set(column(plan, "pointers").values())) == (0, 0, {0})
    text = shell("plan", "llama").stdout
    assert "POINTERS" not in text
    assert "imported" not in text


def test_plan_of_a_model_that_is_imported_in_part(shell, llama):
    shell.json("put", llama / "model.safetensors")
    shell.json("import", "b", "models/llama")
    plan = shell.json("plan", "llama")
    assert (plan["stored_chunks"], plan["external_chunks"], plan["looked_chunks"]) == (4, 1, 4)
    small = plan["external_bytes"]
    assert small == len((llama / "deep" / "config.json").read_bytes())
    (asked,) = (node for node, pointers in column(plan, "pointers").items() if pointers)
    moved = column(plan, "bytes")
    moved[asked] -= small
    moved["b"] += small
    assert column(plan, "served_bytes") == moved


def test_plan_when_the_engine_does_not_answer(shell, llama, tmp_path):
    """Asked are others, and nobody delivers; where an owner has the bytes themselves, it does."""
    shell.json("import", "b", "models/llama")
    (shell.root / "b").rename(shell.root / "away")
    (shell.root / "b").write_text("not a folder")
    plan = shell.json("plan", "llama")
    assert (plan["unserved"], plan["undelivered"], plan["external_chunks"]) == (0, 4, 4)
    assert set(column(plan, "served_chunks").values()) == {0}
    assert "4 of 4 chunks are delivered by no node that answers" in shell("plan", "llama").stderr
    (tmp_path / "other").mkdir()
    other = Shell(tmp_path / "other")
    other.json("put", shell.root / "away" / "models" / "llama")
    held = [path.relative_to(shell.root / "c") for path in (shell.root / "c").glob("chunks/??/*")]
    assert held
    for key in held:
        (shell.root / "c" / key).unlink()
        shutil.copy(next(other.root.glob(f"?/{key}")), shell.root / "c" / key)
    plan = shell.json("plan", "llama")
    assert column(plan, "served_chunks") == {"a": 0, "b": 0, "c": len(held)}
    assert plan["undelivered"] == 4 - len(held)


def test_plan_when_the_node_is_not_in_the_cluster_any_more(shell, llama):
    shell.json("import", "b", "models/llama")
    shell.write("ac")
    plan = shell.json("plan", "llama")
    assert (plan["unserved"], plan["undelivered"], plan["external_chunks"]) == (0, 4, 4)


def test_plan_looks_at_so_many_chunks_and_no_more(shell, llama, monkeypatch):
    monkeypatch.setattr(whereabouts, "SAMPLE_MAX", 1)
    monkeypatch.setattr(whereabouts, "LOOKED_MAX", 2)
    shell.json("import", "b", "models/llama")
    plan = shell.json("plan", "llama")
    assert (plan["looked_chunks"], plan["external_chunks"], plan["undelivered"]) == (2, 4, 0)
    assert column(plan, "pointers") == column(plan, "chunks")
    assert column(plan, "served_chunks") == {"a": 0, "b": 4, "c": 0}
    assert (
        "about 4 chunks, 9.00 MiB, are parts of other people's files (2 were looked at)"
        in shell("plan", "llama").stdout
    )
