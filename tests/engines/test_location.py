"""The urls of nodes: what each scheme takes, and that no secret is taken or repeated."""

import pytest

from shardfs.core.cluster import Node, parse_cluster
from shardfs.core.location import HdfsPlace, S3Place, check_url, parse_hdfs, parse_s3, parse_webhdfs
from shardfs.errors import InvalidCluster, UsageError
from shardfs.wiring.engines import open_store

GOOD = {
    "s3://models": S3Place("models", ""),
    "s3://models/": S3Place("models", ""),
    "s3://models/a/b/": S3Place("models", "a/b/"),
    "s3://models/a%20b": S3Place("models", "a b/"),
    "s3://models/p?endpoint=http://127.0.0.1:9000&region=eu-1": S3Place(
        "models", "p/", "http://127.0.0.1:9000", "eu-1"
    ),
    "s3://My_Old.Bucket/p?profile=work": S3Place("My_Old.Bucket", "p/", profile="work"),
    "hdfs://nn:8020/models": HdfsPlace("nn:8020", "/models"),
    "hdfs://service/a/b/": HdfsPlace("service", "/a/b"),
    "webhdfs://nn/models": HdfsPlace("nn:9870", "/models"),
    "webhdfs://nn:/models": HdfsPlace("nn:9870", "/models"),
    "webhdfs://nn:50070/a%20b+/": HdfsPlace("nn:50070", "/a b+"),
    "webhdfs://nn/ü/": HdfsPlace("nn:9870", "/ü"),
}
BAD = {
    "s3://": "cannot be the name of a bucket",
    "s3:///x": "cannot be the name of a bucket",
    "s3://-x/p": "cannot be the name of a bucket",
    "s3://bkt/../p": "empty part, a dot part",
    "s3://bkt/a//p": "empty part",
    "s3://bkt/%2e%2e/p": "a dot part",
    "s3://bkt/a%00b": "control character",
    "s3://bkt/p#q": "must be written %23",
    "s3://bkt/p?endpoint=h:9000": "endpoint must be",
    "s3://bkt/p?endpoint=ftp://h": "endpoint must be",
    "s3://bkt/p?endpoint=http://u:secret@h": "endpoint must be",
    "s3://bkt/p?endpoint=http://h:99999": "Port out of range",
    "s3://bkt/p?region=a b": "is no name of a region",
    "s3://bkt/p?region=a&region=b": "repeated option 'region'",
    "s3://bkt/p?secret_access_key=secret": "unknown option 'secret_access_key'; credentials come from",
    "s3://key:secret@b/p": "must not hold a user or password",
    "hdfs://": "names no NameNode",
    "hdfs://nn:8020": "name a folder below the root",
    "hdfs://nn:8020/": "name a folder below the root",
    "hdfs://n n/x": "names no NameNode",
    "hdfs://nn:8020/a/../b": "a dot part",
    "hdfs://nn:8020/a?user=x": r"neither \? nor #",
    "hdfs://u:secret@nn/a": "must not hold a user or password",
    "hdfs://a..b/x": "names no NameNode",
    "s3://bkt/p?endpoint=http://a..b": "endpoint: 'a..b' cannot be the name of a host",
    "s3://bkt/p?endpoint=http://h/ä": "endpoint: in the path, write what is not ASCII",
    "s3://bkt/p?endpoint=http://@h": "endpoint must be",
    "dav://": "names no host",
    "dav://a..b/p": "cannot be the name of a host",
    "dav://h/a b": "in the path, write what is not ASCII and blanks with %",
    "davs://h/ä": "in the path, write what is not ASCII and blanks with %",
    "dav://h/p?x": r"neither \? nor #",
    "davs://u:secret@h/p": "must not hold a user or password",
    "webhdfs://": "names no NameNode",
    f"webhdfs://{'a' * 64}/x": "names no NameNode",
    "webhdfs://h:9870/": "name a folder below the root, such as webhdfs://h:9870/models",
    "webhdfs://h:0x1/p": "Port could not be cast",
    "webhdfs://h/a%2541": "WebHDFS servers disagree about that path",
    "webhdfs://h/a+%C3%BC": "WebHDFS servers disagree about that path",
    "webhdfs://h/p?user.name=x": r"neither \? nor #",
    "webhdfs://u:secret@h/p": "must not hold a user or password",
    "swebhdfs://h:9871/p": "must begin with one of http://, https://, file://, s3://, hdfs://, webhdfs://, dav://",
}


@pytest.mark.parametrize("url", GOOD)
def test_good(url: str) -> None:
    check_url(url)
    parse = {"s3": parse_s3, "hdfs": parse_hdfs, "webhdfs": parse_webhdfs}[url.partition(":")[0]]
    assert parse(url) == GOOD[url]


@pytest.mark.parametrize("url", BAD)
def test_bad(url: str) -> None:
    with pytest.raises(UsageError, match=BAD[url]) as caught:
        check_url(url)
    assert "secret@" not in str(caught.value)
    assert "=secret" not in str(caught.value)


@pytest.mark.parametrize(
    ("name", "value", "message"),
    [
        ("AWS_REGION", "eu 1", "environment variable AWS_REGION: 'eu 1' is no name of a region"),
        ("AWS_DEFAULT_REGION", "ü", "environment variable AWS_REGION: 'ü' is no name of a region"),
        ("AWS_ENDPOINT_URL", "h:9000", "environment variable AWS_ENDPOINT_URL: endpoint must be http://host:port"),
        ("AWS_ENDPOINT_URL", "http://[::1", "environment variable AWS_ENDPOINT_URL: endpoint: Invalid IPv6 URL"),
        ("AWS_ENDPOINT_URL_S3", "http://a..b", "AWS_ENDPOINT_URL: endpoint: 'a..b' cannot be the name of a host"),
    ],
)
def test_the_environment_is_checked_too(monkeypatch, name: str, value: str, message: str) -> None:
    monkeypatch.setenv(name, value)
    with pytest.raises(UsageError, match=message):
        open_store(Node("a", "s3://bkt/p"))


def test_a_profile_is_checked_too(monkeypatch, tmp_path) -> None:
    config = tmp_path / "config"
    monkeypatch.setenv("AWS_CONFIG_FILE", str(config))
    for line, message in (("region = a b", "'a b' is no name of a region"), ("endpoint_url = x", "endpoint must be")):
        config.write_text(f"[default]\n{line}\n")
        with pytest.raises(UsageError, match=f"AWS profile 'default': {message}"):
            open_store(Node("a", "s3://bkt/p"))


def test_a_home_that_nobody_has(monkeypatch) -> None:
    monkeypatch.setenv("AWS_CONFIG_FILE", "~nobody-of-that-name/config")
    assert open_store(Node("a", "s3://bkt/p"))._client._region == "us-east-1"


@pytest.mark.parametrize("url", ["s3://bkt/p", "hdfs://nn:1/p", "webhdfs://nn/p", "file:///p"])
@pytest.mark.parametrize("key", ["token_env", "token_file"])
def test_engines_with_chains_of_their_own_take_no_token(url: str, key: str) -> None:
    text = f'replicas = 1\n[[nodes]]\nid = "a"\nurl = "{url}"\n{key} = "X"\n'
    with pytest.raises(InvalidCluster, match=r"5: \w+:// takes no token"):
        parse_cluster(text)


@pytest.mark.parametrize(
    ("url", "reached"),
    [
        ("s3://bkt/p", "https://bkt.s3.us-east-1.amazonaws.com"),
        ("s3://bkt/p?region=cn-north-1", "https://bkt.s3.cn-north-1.amazonaws.com.cn"),
        ("s3://bkt.c/p?region=eu-1", "https://s3.eu-1.amazonaws.com/bkt.c"),
        ("s3://bkt/p?endpoint=http://h:1/", "http://h:1/bkt"),
    ],
)
def test_where_a_bucket_is(url: str, reached: str) -> None:
    assert open_store(Node("a", url))._client._shown == reached


def test_the_environment_fills_in_what_the_url_leaves_out(monkeypatch, tmp_path) -> None:
    config = tmp_path / "config"
    config.write_text("[default]\nregion = r1\n[profile work]\nregion = r2\nendpoint_url = http://w:1\n")
    monkeypatch.setenv("AWS_CONFIG_FILE", str(config))
    assert open_store(Node("a", "s3://bkt/p"))._client._region == "r1"
    assert open_store(Node("a", "s3://bkt/p?profile=work"))._client._shown == "http://w:1/bkt"
    monkeypatch.setenv("AWS_PROFILE", "work")
    assert open_store(Node("a", "s3://bkt/p"))._client._region == "r2"
    monkeypatch.setenv("AWS_REGION", "r3")
    monkeypatch.setenv("AWS_ENDPOINT_URL", "http://e:2")
    assert open_store(Node("a", "s3://bkt/p"))._client._region == "r3"
    assert open_store(Node("a", "s3://bkt/p"))._client._shown == "http://e:2/bkt"
    assert open_store(Node("a", "s3://bkt/p?region=r4&endpoint=http://u:3"))._client._shown == "http://u:3/bkt"
