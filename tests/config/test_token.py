import pytest

from shardfs.config import read_token
from shardfs.core.cluster import Node
from shardfs.errors import UsageError

SECRET = "s3cr3t-T0ken"


def node(**where):
    return Node("a", "http://127.0.0.1:1", **where)


@pytest.fixture
def token_file(tmp_path):
    path = tmp_path / "token"
    path.write_text(SECRET + "\n")
    path.chmod(0o600)
    return path


def test_no_token_is_asked_for():
    assert read_token(node()) is None


def test_from_the_environment(monkeypatch):
    monkeypatch.setenv("MODELS_TOKEN", SECRET)
    assert read_token(node(token_env="MODELS_TOKEN")) == SECRET


def test_from_a_file(token_file):
    assert read_token(node(token_file=str(token_file))) == SECRET
    token_file.chmod(0o640)  # a group of operators is no "everybody"
    assert read_token(node(token_file=str(token_file))) == SECRET


@pytest.mark.parametrize("mode", [0o604, 0o644, 0o602, 0o601])
def test_a_file_that_is_open_to_everybody_is_refused(token_file, mode):
    token_file.chmod(mode)
    with pytest.raises(UsageError, match="chmod 600") as caught:
        read_token(node(token_file=str(token_file)))
    assert SECRET not in str(caught.value)


@pytest.mark.parametrize(
    ("where", "message"),
    [
        ({"token_env": "NO_SUCH_VARIABLE"}, "node a: the token in environment variable NO_SUCH_VARIABLE is missing"),
        ({"token_file": "/no/such/file"}, "node a: token_file /no/such/file: No such file"),
        ({"token_file": "relative"}, "must be an absolute path"),
        ({"token_file": "~nobody-of-that-name/token"}, "must be an absolute path"),
        ({"token_file": "/tmp/a\0b"}, r"node a: token_file '/tmp/a\\x00b' cannot be the name of a file"),
    ],
)
def test_what_is_missing_is_named(where, message):
    with pytest.raises(UsageError, match=message):
        read_token(node(**where))


@pytest.mark.parametrize("content", ["", " \n", "two words", "a\r\nX-Evil: 1", "\x00", "tökén", "x" * 5000])
def test_what_is_no_token_never_reaches_a_header_or_a_message(token_file, content):
    token_file.write_text(content)
    with pytest.raises(UsageError) as caught:
        read_token(node(token_file=str(token_file)))
    assert content.strip() == "" or content not in str(caught.value)
