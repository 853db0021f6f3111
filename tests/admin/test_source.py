"""Which sources are taken, as what, and how the others are refused."""

import os
import socket
import subprocess
import sys
from pathlib import Path

import pytest

from shardfs.admin.source import default_name, scan
from shardfs.errors import SourceError, UsageError


def paths(root: Path) -> list[str]:
    return [file.path for file in scan(str(root)).files]


def test_a_folder_is_listed_in_the_order_of_path_bytes(tmp_path: Path) -> None:
    for name in ("a/x", "a.txt", "a0", "b", "a/y/z", "Ä", "a-", ".hidden", "with space", "ünïcode/日本"):
        file = tmp_path / name
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_text(name)
    found = paths(tmp_path)
    assert len(found) == 10
    assert [path.encode() for path in found] == sorted(path.encode() for path in found)
    assert scan(str(tmp_path)).size == sum(len(path.encode()) for path in found)


def test_kinds_of_files(tmp_path: Path) -> None:
    (tmp_path / "empty").touch()
    (tmp_path / "run").write_text("x")
    (tmp_path / "run").chmod(0o755)
    (tmp_path / "void" / "inner").mkdir(parents=True)
    (tmp_path / "full").mkdir()
    (tmp_path / "full" / "file").write_text("y")
    source = scan(str(tmp_path))
    assert not source.single
    assert source.folders == ("void/inner",)
    assert {file.path: (file.size, file.executable) for file in source.files} == {
        "empty": (0, False),
        "run": (1, True),
        "full/file": (1, False),
    }


def test_a_single_file_has_no_path(tmp_path: Path) -> None:
    (tmp_path / "one").write_bytes(b"123")
    source = scan(str(tmp_path / "one"))
    assert source.single
    assert [(file.path, file.size) for file in source.files] == [("", 3)]
    assert source.local("") == str(tmp_path / "one")


def test_an_empty_folder_is_a_model_without_files(tmp_path: Path) -> None:
    assert scan(str(tmp_path)).files == scan(str(tmp_path)).folders == ()


@pytest.mark.parametrize("target", ["file", "sub/../file", "sub", "link-to-link"])
def test_links_within_the_source_are_followed(tmp_path: Path, target: str) -> None:
    (tmp_path / "file").write_text("content")
    (tmp_path / "sub").mkdir()
    (tmp_path / "sub" / "inner").write_text("inner")
    (tmp_path / "link-to-link").symlink_to("file")
    (tmp_path / "link").symlink_to(target)
    expected = "link/inner" if target == "sub" else "link"
    assert expected in paths(tmp_path)


def test_the_source_itself_may_be_a_link(tmp_path: Path) -> None:
    (tmp_path / "real").mkdir()
    (tmp_path / "real" / "file").write_text("x")
    (tmp_path / "link").symlink_to("real")
    assert paths(tmp_path / "link") == ["file"]
    assert default_name(str(tmp_path / "link")) == "link"


@pytest.mark.parametrize(
    ("target", "reason"),
    [
        ("/etc/hostname", "leads out of the source"),
        ("../outside", "leads out of the source"),
        ("../model-beside", "leads out of the source"),
        ("hop", "leads out of the source"),
        ("nowhere", "No such file"),
        ("bad", "Too many levels of symbolic links"),
        (".", "leads back to a folder"),
        ("..", "leads out of the source"),
    ],
)
def test_other_links_are_refused_by_name(tmp_path: Path, target: str, reason: str) -> None:
    (tmp_path / "outside").write_text("secret")
    (tmp_path / "model-beside").mkdir()  # has the name of the source as a prefix
    root = tmp_path / "model"
    root.mkdir()
    (root / "bad").symlink_to(target)
    if target == "hop":
        (root / "hop").symlink_to("../outside")
    with pytest.raises(SourceError, match=reason) as caught:
        scan(str(root))
    assert str(root / ("hop" if target == "hop" and "/hop" in str(caught.value) else "bad")) in str(caught.value)
    assert "\n" not in str(caught.value)


def test_circles_over_several_folders_are_refused(tmp_path: Path) -> None:
    (tmp_path / "a" / "b").mkdir(parents=True)
    (tmp_path / "a" / "b" / "up").symlink_to("../../a")
    with pytest.raises(SourceError, match="a/b/up leads back to a folder that it is in"):
        scan(str(tmp_path))


def special(path: Path, kind: str) -> None:
    if kind == "a socket":
        with socket.socket(socket.AF_UNIX) as server:
            server.bind(str(path))
    elif kind == "a named pipe":
        os.mkfifo(path)
    else:
        os.mknod(path, 0o600 | 0o020000, os.makedev(1, 3))


@pytest.mark.parametrize(
    "kind",
    [
        "a socket",
        "a named pipe",
        pytest.param(
            "a character device", marks=pytest.mark.skipif(os.geteuid() != 0, reason="only root makes devices")
        ),
    ],
)
@pytest.mark.parametrize("alone", [True, False])
def test_special_files_are_refused_by_name(tmp_path: Path, kind: str, alone: bool) -> None:
    special(tmp_path / "odd", kind)
    with pytest.raises(SourceError, match=f"odd is {kind}"):
        scan(str(tmp_path / "odd" if alone else tmp_path))


@pytest.mark.parametrize(
    ("name", "reason"),
    [
        (b"back\\slash", "'\\\\\\\\'"),
        (b"new\nline", "not allowed"),
        (b"\xff\xfe", "not valid UTF-8"),
        (b"\x7f", "not allowed"),
    ],
)
def test_names_that_no_model_can_have(tmp_path: Path, name: bytes, reason: str) -> None:
    Path(os.fsdecode(os.path.join(os.fsencode(tmp_path), name))).touch()
    with pytest.raises(SourceError, match=reason) as caught:
        scan(str(tmp_path))
    assert "\n" not in str(caught.value)
    str(caught.value).encode()


def test_folders_deeper_than_a_model_can_have(tmp_path: Path) -> None:
    tmp_path.joinpath(*"d" * 65).mkdir(parents=True)
    with pytest.raises(SourceError, match="deeper than 64"):
        scan(str(tmp_path))


@pytest.mark.parametrize(("src", "error"), [("", UsageError), ("a\0b", UsageError), ("nowhere", SourceError)])
def test_sources_that_are_none(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, src: str, error: type) -> None:
    monkeypatch.chdir(tmp_path)
    with pytest.raises(error):
        scan(src)


@pytest.mark.skipif(os.geteuid() != 0, reason="root reads everything, so another user has to try")
@pytest.mark.parametrize("kind", ["file", "folder"])
def test_what_cannot_be_read_is_refused_before_anything_is_sent(tmp_path: Path, kind: str) -> None:
    locked = tmp_path / "model" / "locked"
    locked.parent.mkdir()
    locked.mkdir() if kind == "folder" else locked.touch()
    locked.chmod(0)
    for folder in (tmp_path, *tmp_path.parents):
        folder.chmod(folder.stat().st_mode | 0o005) if folder.stat().st_uid == 0 and folder != Path("/") else None
    script = (
        "import os, sys\n"
        "from shardfs.admin.source import scan\n"
        "os.setgroups([]); os.setgid(65534); os.setuid(65534)\n"
        "try: scan(sys.argv[1])\n"
        "except Exception as error: print(type(error).__name__, error)\n"
    )
    done = subprocess.run(
        [sys.executable, "-c", script, str(locked.parent)], capture_output=True, text=True, check=True, timeout=200
    )
    assert done.stdout.lower() == f"sourceerror {locked}: permission denied\n".lower()


# ------------------------------------------------------------------------------------------------- Hugging Face


def hub(root: Path, repo: str = "models--org--name") -> Path:
    """A cache with one snapshot, as `huggingface_hub` lays it out."""
    cache = root / repo
    snapshot = cache / "snapshots" / ("c0" * 20)
    (snapshot / "onnx").mkdir(parents=True)
    (cache / "blobs").mkdir()
    (cache / "refs").mkdir()
    (cache / "refs" / "main").write_text("c0" * 20)
    for name, blob, up in (("config.json", "aa", "../../"), ("onnx/model.onnx", "bb", "../../../")):
        (cache / "blobs" / blob).write_text(name)
        (snapshot / name).symlink_to(f"{up}blobs/{blob}")
    return snapshot


def test_a_snapshot_of_the_cache_is_published_through_its_links(tmp_path: Path) -> None:
    snapshot = hub(tmp_path)
    source = scan(str(snapshot))
    assert [(file.path, file.size) for file in source.files] == [("config.json", 11), ("onnx/model.onnx", 15)]
    assert paths(snapshot / "onnx") == ["model.onnx"]
    assert scan(str(snapshot / "config.json")).single


@pytest.mark.parametrize("target", ["../../refs/main", "../../../secret", "/etc/hostname", "../../blobs"])
def test_a_snapshot_may_not_lead_elsewhere(tmp_path: Path, target: str) -> None:
    snapshot = hub(tmp_path)
    (tmp_path / "secret").write_text("x")
    (snapshot / "bad").symlink_to(target)
    if target == "../../blobs":  # strange, but within what the snapshot may show
        assert "bad/aa" in paths(snapshot)
        return
    with pytest.raises(SourceError, match=r"snapshots/.*/bad -> .* leads out of the source"):
        scan(str(snapshot))


def test_blobs_are_only_open_to_their_own_snapshots(tmp_path: Path) -> None:
    other = hub(tmp_path, "models--other--one")
    snapshot = hub(tmp_path)
    (snapshot / "bad").symlink_to(other / "config.json")
    with pytest.raises(SourceError, match="leads out of the source"):
        scan(str(snapshot))


@pytest.mark.parametrize("below", ["", "snapshots"])
def test_above_the_snapshots_the_right_one_is_told(tmp_path: Path, below: str) -> None:
    snapshot = hub(tmp_path)
    with pytest.raises(SourceError, match=f"publish its snapshot {snapshot}"):
        scan(str(tmp_path / "models--org--name" / below))


def test_the_downloaders_books_are_left_out(tmp_path: Path) -> None:
    for name in (".cache/huggingface/download/x.metadata", "weights", ".cache/other", "sub/.cache/huggingface/y"):
        file = tmp_path / name
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_text("x")
    source = scan(str(tmp_path))
    assert [file.path for file in source.files] == [".cache/other", "weights"]
    assert source.skipped == (".cache/huggingface", "sub/.cache/huggingface")


def test_what_a_download_has_begun_is_left_out(tmp_path: Path) -> None:
    for name in ("weights", "weights.0123456789abcdef.shardfs-part", "sub/x.shardfs-part", "folder.shardfs-part/y"):
        file = tmp_path / name
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_text("x")
    source = scan(str(tmp_path))
    assert [file.path for file in source.files] == ["folder.shardfs-part/y", "weights"]
    assert sorted(source.skipped) == ["sub/x.shardfs-part", "weights.0123456789abcdef.shardfs-part"]
    source.check_unchanged()


def test_a_folder_with_nothing_but_the_books_is_not_published(tmp_path: Path) -> None:
    (tmp_path / ".cache" / "huggingface").mkdir(parents=True)
    (tmp_path / "weights").write_text("x")
    assert scan(str(tmp_path)).folders == ()


@pytest.mark.parametrize(
    ("src", "name"),
    [
        ("/data/llama", "llama"),
        ("/data/llama/", "llama"),
        ("/data/./x/../llama/.", "llama"),
        ("/data/m.safetensors", "m.safetensors"),
        ("/c/models--meta-llama--Llama-3-8B/snapshots/abc", "meta-llama/Llama-3-8B"),
        ("/c/models--gpt2/snapshots/abc/", "gpt2"),
        ("/c/datasets--o--n/snapshots/abc", "o/n"),
        ("/c/models--o--n/snapshots/abc/onnx", "onnx"),
    ],
)
def test_default_names(src: str, name: str) -> None:
    assert default_name(src) == name


def test_default_name_of_the_current_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    assert default_name(".") == tmp_path.name
    with pytest.raises(UsageError, match="give a NAME"):
        default_name("/")


# ------------------------------------------------------------------------------------------------------ changes


def edit(path: Path) -> None:
    path.write_bytes(path.read_bytes())


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda root: (root / "b").write_text("longer"), "b changed"),
        (lambda root: edit(root / "b"), "b changed"),
        (lambda root: os.utime(root / "b", ns=(0, 0)), "b changed"),
        (lambda root: (root / "new").replace(root / "b"), "b changed|new disappeared"),
        (lambda root: (root / "b").chmod(0o755), "b changed"),
        (lambda root: (root / "new").unlink(), "new disappeared"),
        (lambda root: (root / "b").unlink(), "link -> b: No such file"),
        (lambda root: (root / "z").unlink(), "z disappeared"),
        (lambda root: (root / "a").touch(), "a appeared"),
        (lambda root: (root / "zz").touch(), "zz appeared"),
        (lambda root: (root / "void").rmdir(), "void changed"),
        (lambda root: (root / "void2").mkdir(), "void2 changed"),
        (lambda root: (root / "void" / "x").touch(), "x appeared"),
        (lambda root: ((root / "link").unlink(), (root / "link").symlink_to("z")), "link changed"),
        (lambda root: ((root / "b").unlink(), os.mkfifo(root / "b")), "b is a named pipe"),
    ],
)
def test_every_change_is_noticed(tmp_path: Path, change, message: str) -> None:
    for name in ("b", "z", "new"):
        (tmp_path / name).write_text(name)
        os.utime(tmp_path / name, (1000, 1000))
    (tmp_path / "void").mkdir()
    (tmp_path / "link").symlink_to("b")
    source = scan(str(tmp_path))
    source.check_unchanged()
    change(tmp_path)
    with pytest.raises(SourceError, match=message):
        source.check_unchanged()


def test_reading_is_no_change(tmp_path: Path) -> None:
    (tmp_path / "b").write_text("b")
    source = scan(str(tmp_path / "b"))
    (tmp_path / "b").read_text()
    source.check_unchanged()
