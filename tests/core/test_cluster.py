"""The cluster file: what is right, and for each fault the line where a user finds it."""

from textwrap import dedent

import pytest
from hypothesis import given
from hypothesis import strategies as st

from shardfs.core.chunk import CHUNK_SIZE
from shardfs.core.cluster import Cluster, Node, parse_cluster
from shardfs.errors import InvalidCluster

GOOD = """\
    # three machines
    replicas = 2
    chunk_size = "8MiB"

    [[nodes]]
    id = "a"
    url = "http://10.0.0.1:7301"
    zone = "rack1"
    weight = 2

    [[nodes]]
    id = "b"
    url = "file:///data/b"
    state = "draining"

    [[nodes]]
    id = "c"
    url = "https://c.example"
    token_env = "C_TOKEN"
    """


def test_a_good_file():
    cluster = parse_cluster(dedent(GOOD))
    assert cluster == Cluster(
        (
            Node("a", "http://10.0.0.1:7301", zone="rack1", weight=2.0),
            Node("b", "file:///data/b", state="draining"),
            Node("c", "https://c.example", token_env="C_TOKEN"),
        ),
        2,
        8 * 1024 * 1024,
    )
    assert cluster.majority == 2
    assert cluster.node("b").state == "draining"


def test_defaults():
    cluster = parse_cluster('[[nodes]]\nid="a"\nurl="file:///a"\n[[nodes]]\nid="b"\nurl="file:///b"\n')
    assert (cluster.replicas, cluster.chunk_size) == (2, CHUNK_SIZE)
    assert [(n.zone, n.weight, n.state) for n in cluster.nodes] == [("", 1.0, "active")] * 2


@pytest.mark.parametrize(
    ("nodes", "replicas", "majority"), [(1, 1, 1), (2, 2, 2), (3, 2, 2), (4, 2, 3), (5, 4, 4), (5, 5, 5)]
)
def test_majority(nodes, replicas, majority):
    listed = tuple(Node(f"n{i}", f"file:///{i}") for i in range(nodes))
    assert Cluster(listed, replicas, CHUNK_SIZE).majority == majority


ONE = '[[nodes]]\nid = "a"\nurl = "file:///a"\n'
TWO = ONE + '[[nodes]]\nid = "b"\nurl = "file:///b"\n'

BAD = [
    # TOML itself
    ("replicas = \n", "1: Invalid value"),
    ('replicas = 2\nchunk_size = "4MiB\n', "2: Illegal character"),
    ("replicas = 1\nreplicas = 2\n", "2: Cannot overwrite a value"),
    ("a = " + "[" * 5000, "1: nested too deeply"),
    # what the file lacks or has too much
    ("", "1: missing [[nodes]]"),
    ("replicas = 2\n", "1: missing [[nodes]]"),
    ("nodes = []\n", "1: a cluster has 1 to 4096 nodes, not 0"),
    ("replicas = 1\nnodes = 3\n", "2: nodes: Expected `array`, got `int`"),
    ("replicas = 1\n[nodes]\nid = 'a'\n", "2: nodes: Expected `array`, got `object`"),
    ("replicas = 1\nreplica = 1\n" + ONE, "2: unknown key 'replica'"),
    ('replicas = "two"\n' + ONE, "1: replicas: Expected `int`, got `str`"),
    ("replicas = 1.5\n" + ONE, "1: replicas: Expected `int`, got `float`"),
    ("replicas = true\n" + ONE, "1: replicas: Expected `int`, got `bool`"),
    ("\nreplicas = 0\n" + ONE, "2: replicas must be 1 to 1, the number of active nodes, not 0"),
    ("\n\nreplicas = 2\n" + ONE, "3: replicas must be 1 to 1, the number of active nodes, not 2"),
    (ONE, "1: replicas must be 1 to 1, the number of active nodes, not 2"),
    (TWO + 'state = "draining"\n', "1: replicas must be 1 to 1, the number of active nodes, not 2"),
    ('replicas = 1\nchunk_size = "4XB"\n' + ONE, "2: chunk_size: not a size: '4XB'"),
    ("replicas = 1\nchunk_size = -1\n" + ONE, "2: chunk_size: not a size: -1"),
    ("replicas = 1\nchunk_size = 262145\n" + ONE, "2: chunk_size must be a multiple of 256KiB up to 64MiB, not 262145"),
    (
        'replicas = 1\nchunk_size = "128MiB"\n' + ONE,
        "2: chunk_size must be a multiple of 256KiB up to 64MiB, not 128MiB",
    ),
    ("replicas = 1\nchunk_size = 0\n" + ONE, "2: chunk_size must be a multiple of 256KiB up to 64MiB, not 0"),
    # nodes
    (TWO + "colour = 'red'\n", "7: unknown key 'colour'"),
    (ONE + "[[nodes]]\nurl = 'file:///b'\n", "4: missing 'id'"),
    (ONE + "[[nodes]]\nid = 'b'\n", "4: missing 'url'"),
    (ONE + "[[nodes]]\nurl = 'file:///b'\nid = 7\n", "6: id: Expected `str`, got `int`"),
    (TWO + "weight = 'heavy'\n", "7: weight: Expected `float`, got `str`"),
    (TWO + "weight = 0\n", "7: weight must be above 0 and at most 1e+06, not 0.0"),
    (TWO + "weight = -1.5\n", "7: weight must be above 0 and at most 1e+06, not -1.5"),
    (TWO + "weight = nan\n", "7: weight must be above 0 and at most 1e+06, not nan"),
    (TWO + "weight = inf\n", "7: weight must be above 0 and at most 1e+06, not inf"),
    (TWO + "weight = 1e7\n", "7: weight must be above 0 and at most 1e+06, not 10000000.0"),
    (TWO + "state = 'broken'\n", "7: state: Invalid enum value 'broken'"),
    (ONE + "[[nodes]]\nid = '../b'\nurl = 'file:///b'\n", "5: node id '../b': 1 to 64 letters"),
    (ONE + "[[nodes]]\nid = ''\nurl = 'file:///b'\n", "5: node id '': 1 to 64 letters"),
    (ONE + "[[nodes]]\nid = 'a'\nurl = 'file:///b'\n", "5: node id 'a' is used twice"),
    (ONE + "[[nodes]]\nid = 'b'\nurl = 'file:///a/'\n", "6: nodes 'a' and 'b' have the same url"),
    (ONE + "[[nodes]]\nid = 'b'\n\nurl = 'ftp://b'\n", "7: url 'ftp://b' must begin with one of"),
    (ONE + "[[nodes]]\nid = 'b'\nurl = '/data/b'\n", "6: url '/data/b' must begin with one of"),
    (
        ONE + "[[nodes]]\nid = 'b'\nurl = 'file://data/b'\n",
        "6: url 'file://data/b': a folder is written file:///absolute/path",
    ),
    (ONE + "[[nodes]]\nid = 'b'\nurl = 'file:data'\n", "6: url 'file:data': a folder is written file:///absolute/path"),
    (ONE + "[[nodes]]\nid = 'b'\nurl = 'http://'\n", "6: url 'http://' names no host"),
    (ONE + "[[nodes]]\nid = 'b'\nurl = 'http://:80'\n", "6: url 'http://:80' names no host"),
    (ONE + "[[nodes]]\nid = 'b'\nurl = 'http://h:99999'\n", "6: url 'http://h:99999': Port out of range"),
    (ONE + "[[nodes]]\nid = 'b'\nurl = 'http://h:x'\n", "6: url 'http://h:x': Port could not be cast"),
    (ONE + "[[nodes]]\nid = 'b'\nurl = 'http://[::1'\n", "6: url 'http://[::1': Invalid IPv6 URL"),
    (ONE + "[[nodes]]\nid = 'b'\nurl = 'http://u:p@h'\n", "6: url must not hold a user or password"),
    (ONE + "[[nodes]]\nid = 'b'\nurl = 'http://@h'\n", "6: url must not hold a user or password"),
    (ONE + "[[nodes]]\nid = 'b'\nurl = 'http://a..b:1'\n", "6: url 'http://a..b:1': 'a..b' cannot be the name of"),
    (ONE + f"[[nodes]]\nid = 'b'\nurl = 'http://{'a' * 64}:1'\n", f"6: url 'http://{'a' * 64}:1': 'aaaa"),
    (ONE + "[[nodes]]\nid = 'b'\nurl = 'https://bücher.example'\n", "6: url 'https://bücher.example': 'bücher"),
    (ONE + "[[nodes]]\nid = 'b'\nurl = 'http://h:1/a b'\n", "6: url 'http://h:1/a b': in the path, write what"),
    (ONE + "[[nodes]]\nid = 'b'\nurl = 'http://h:1/ä'\n", "6: url 'http://h:1/ä': in the path, write what"),
    (ONE + "[[nodes]]\nid = 'b'\nurl = 'http://h/x?y=1'\n", "6: url 'http://h/x?y=1': neither ? nor # is known"),
    (ONE + "[[nodes]]\nid = 'b'\nurl = 'http://h/x#y'\n", "6: url 'http://h/x#y': neither ? nor # is known"),
    (ONE + "[[nodes]]\nid = 'b'\nurl = \"http://h/x\\ty\"\n", "6: url 'http://h/x\\ty' has a character that cannot"),
    (ONE + "[[nodes]]\nid = 'b'\nurl = \"file:///tmp/\\u0000x\"\n", "6: url 'file:///tmp/\\x00x' has a character"),
    (ONE + "[[nodes]]\nid = 'b'\nurl = 'file:///tmp/%00x'\n", "6: url 'file:///tmp/%00x': the path has a character"),
    (ONE + "[[nodes]]\nid = 'b'\nurl = 'file:///tmp/a?b'\n", "6: url 'file:///tmp/a?b': in a path ? is written %3F"),
    (TWO + "token_env = 'A'\ntoken_file = 'b'\n", "8: give token_env or token_file, not both"),
    ("replicas = 1\nnodes = [{id = 'a', url = 'file:///a', weight = 0}]\n", "2: weight must be above 0"),
    (
        "replicas = 1\nnodes = [\n  {id = 'a', url = 'file:///a'},\n  {id = 'a', url = 'file:///b'},\n]\n",
        "2: node id 'a' is used twice",
    ),
]


@pytest.mark.parametrize(("text", "message"), BAD, ids=[message for _, message in BAD])
def test_bad_files(text, message):
    with pytest.raises(InvalidCluster) as refused:
        parse_cluster(text, "c.toml")
    assert str(refused.value).startswith(f"c.toml:{message}")
    assert len(str(refused.value).splitlines()) == 1
    assert len(str(refused.value)) < 500


def test_the_secret_of_a_url_is_not_shown():
    with pytest.raises(InvalidCluster) as refused:
        parse_cluster(ONE + "[[nodes]]\nid = 'b'\nurl = 'http://user:hunter2@h'\n")
    assert "hunter2" not in str(refused.value)


pieces = st.sampled_from(
    [
        *TWO.splitlines(),
        "replicas = 1",
        "weight = 1.5",
        "[nodes]",
        "[[x]]",
        "'''",
        "id = 'b'",
        "nodes = 1",
        "zone = ''",
        "\0",
    ]
)


@given(st.lists(pieces, max_size=10).map("\n".join) | st.text(max_size=50))
def test_every_text_is_a_cluster_or_one_line(text):
    try:
        cluster = parse_cluster(text)
    except InvalidCluster as refused:
        message = str(refused)
    else:
        assert 1 <= cluster.replicas <= len(cluster.nodes)
        return
    file, line, _ = message.split(":", 2)
    assert file == "cluster.toml"
    assert 1 <= int(line) <= max(1, len(text.splitlines()) + 1)
    assert len(message.splitlines()) == 1
