import pytest

from shardfs.config import find_cluster, load_cluster
from shardfs.config.cluster_file import CLUSTER_BYTES_MAX, EXAMPLE
from shardfs.core.cluster import parse_cluster
from shardfs.errors import InvalidCluster, UsageError


@pytest.fixture
def places(tmp_path, monkeypatch):
    """The four places, in the order in which they are looked at, none existing yet."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.delenv("SHARDFS_CLUSTER", raising=False)
    monkeypatch.setenv("XDG_CONFIG_HOME", str(tmp_path / "settings"))
    (tmp_path / "settings" / "shardfs").mkdir(parents=True)
    return {
        "explicit": tmp_path / "explicit.toml",
        "variable": tmp_path / "variable.toml",
        "here": tmp_path / "cluster.toml",
        "settings": tmp_path / "settings" / "shardfs" / "cluster.toml",
    }


def test_the_first_place_wins(places, monkeypatch):
    for path in places.values():
        path.write_text("")
    monkeypatch.setenv("SHARDFS_CLUSTER", str(places["variable"]))
    assert find_cluster(str(places["explicit"])) == places["explicit"]
    assert find_cluster(None) == places["variable"]
    monkeypatch.setenv("SHARDFS_CLUSTER", "")
    assert find_cluster(None).absolute() == places["here"]
    places["here"].unlink()
    assert find_cluster(None) == places["settings"]


def test_without_xdg_the_settings_are_in_the_home_folder(places, monkeypatch, tmp_path):
    monkeypatch.delenv("XDG_CONFIG_HOME")
    monkeypatch.setenv("HOME", str(tmp_path / "home"))
    path = tmp_path / "home" / ".config" / "shardfs" / "cluster.toml"
    path.parent.mkdir(parents=True)
    path.write_text("")
    assert find_cluster(None) == path


def test_a_place_that_was_named_is_not_replaced_by_another(places, monkeypatch):
    places["here"].write_text("")
    with pytest.raises(UsageError, match=r"explicit.toml: no such cluster file \(named by --cluster\)"):
        find_cluster(str(places["explicit"]))
    monkeypatch.setenv("SHARDFS_CLUSTER", str(places["variable"]))
    with pytest.raises(UsageError, match=r"named by \$SHARDFS_CLUSTER"):
        find_cluster(None)


def test_nothing_found_says_where_was_looked_with_an_example_that_works(places):
    with pytest.raises(UsageError) as caught:
        find_cluster(None)
    message = str(caught.value)
    for place in ("--cluster", "$SHARDFS_CLUSTER", "./cluster.toml", str(places["settings"]), "shardfs demo"):
        assert place in message
    assert "\n" not in message
    assert EXAMPLE in message
    assert len(parse_cluster(EXAMPLE).nodes) == 2


def test_load(tmp_path):
    path = tmp_path / "cluster.toml"
    path.write_text(EXAMPLE)
    assert [node.id for node in load_cluster(path).nodes] == ["a", "b"]


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"replicas = 1\n# \xff\n", r"cluster.toml:2: not UTF-8"),
        (b"#" * (CLUSTER_BYTES_MAX + 1), "larger than 1048576 bytes"),
        (b"replicas = \n", r"cluster.toml:1: "),
        (b"replicas = 1\n[[nodes]]\nid = 'a'\nwieght = 2\n", r"cluster.toml:4: unknown key 'wieght'"),
    ],
)
def test_what_is_wrong_is_said_with_file_and_line(tmp_path, content, message):
    path = tmp_path / "cluster.toml"
    path.write_bytes(content)
    with pytest.raises(InvalidCluster, match=message):
        load_cluster(path)


def test_a_file_that_cannot_be_read(tmp_path):
    with pytest.raises(InvalidCluster, match="Is a directory"):
        load_cluster(tmp_path)
