"""Signatures against the worked examples of Amazon's documentation, and credentials from where they may be."""

import hashlib
import os

import pytest

from shardfs.config.aws import KEEP_SECONDS, AwsCredentials
from shardfs.errors import Denied
from shardfs.store.s3_sign import Credentials, S3Request, sign

EXAMPLE = Credentials("AKIAIOSFODNN7EXAMPLE", "wJalrXUtnFEMI/K7MDENG/bPxRfiCYEXAMPLEKEY")
MAY_24_2013 = 1369353600.0
HOST = "examplebucket.s3.amazonaws.com"
# The four examples of "Signature Calculations for the Authorization Header", S3 API reference.
DOCUMENTED = [
    (
        S3Request("GET", "/test.txt", headers={"range": "bytes=0-9"}),
        "f0e8bdb87c964420e857bd35b5d6ed310bd44f0170aba48dd91039c6036bdb41",
    ),
    (
        S3Request(
            "PUT",
            "/test$file.text",
            headers={"date": "Fri, 24 May 2013 00:00:00 GMT", "x-amz-storage-class": "REDUCED_REDUNDANCY"},
            body_sha256=hashlib.sha256(b"Welcome to Amazon S3.").hexdigest(),
        ),
        "98ad721746da40c64f1a55b78f14c238d841ea1380cd77a1b5971af0ece108bd",
    ),
    (
        S3Request("GET", "/", query={"lifecycle": ""}),
        "fea454ca298b7da1c68078a5d1bdbfbbe0d65c699e0f91ac7a200a0136783543",
    ),
    (
        S3Request("GET", "/", query={"max-keys": "2", "prefix": "J"}),
        "34b48302e7b5fa45bde8084f4b7868a86f0a534bc59db6670ed5711ef69dc6f7",
    ),
]


@pytest.mark.parametrize(("request_", "signature"), DOCUMENTED)
def test_documented_examples(request_: S3Request, signature: str) -> None:
    headers = dict(sign(request_, host=HOST, region="us-east-1", credentials=EXAMPLE, now=MAY_24_2013))
    assert headers["Authorization"].endswith(f"Signature={signature}")
    assert headers["x-amz-date"] == "20130524T000000Z"


def test_a_session_token_is_sent_and_signed() -> None:
    held = Credentials("k", "s", "t")
    headers = dict(sign(S3Request("GET", "/a"), host=HOST, region="r", credentials=held, now=0.0))
    assert headers["x-amz-security-token"] == "t"
    assert "x-amz-security-token," in headers["Authorization"].replace(", ", ",")


def test_secrets_do_not_show() -> None:
    assert repr(Credentials("k", "s3cr3t", "s3cr3t")) == "Credentials(key_id='k')"


@pytest.fixture
def home(tmp_path, monkeypatch):
    for name in list(os.environ):
        if name.startswith("AWS_"):
            monkeypatch.delenv(name)
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.setenv("AWS_EC2_METADATA_DISABLED", "true")
    (tmp_path / ".aws").mkdir()
    return tmp_path / ".aws"


async def test_the_chain(home, monkeypatch) -> None:
    (home / "credentials").write_text(
        "[default]\naws_access_key_id = d\naws_secret_access_key = ds\n"
        "[work]\naws_access_key_id = w\naws_secret_access_key = ws\naws_session_token = wt\n"
    )
    assert await AwsCredentials("a").current() == Credentials("d", "ds")
    assert await AwsCredentials("a", "work").current() == Credentials("w", "ws", "wt")
    monkeypatch.setenv("AWS_PROFILE", "work")
    assert await AwsCredentials("a").current() == Credentials("w", "ws", "wt")
    monkeypatch.setenv("AWS_ACCESS_KEY_ID", "e")
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", "es")
    assert await AwsCredentials("a").current() == Credentials("e", "es")
    assert (await AwsCredentials("a", "default").current()).key_id == "d", "a profile in the url comes first"


async def test_renewed_files_are_seen(home, autojump_clock) -> None:
    import trio

    file = home / "credentials"
    file.write_text("[default]\naws_access_key_id = one\naws_secret_access_key = s\n")
    held = AwsCredentials("a")
    assert (await held.current()).key_id == "one"
    file.write_text("[default]\naws_access_key_id = two\naws_secret_access_key = s\n")
    assert (await held.current()).key_id == "one"
    held.forget()
    assert (await held.current()).key_id == "two"
    file.write_text("[default]\naws_access_key_id = three\naws_secret_access_key = s\n")
    await trio.sleep(KEEP_SECONDS)
    assert (await held.current()).key_id == "three"


async def test_what_only_a_program_can_get_comes_through_botocore(home) -> None:
    pytest.importorskip("botocore")
    program = home / "program"
    answer = '{"Version": 1, "AccessKeyId": "p", "SecretAccessKey": "ps", "SessionToken": "pt"}'
    program.write_text(f"#!/bin/sh\necho '{answer}'\n")
    program.chmod(0o755)
    (home / "config").write_text(f"[default]\ncredential_process = {program}\n")
    assert await AwsCredentials("a").current() == Credentials("p", "ps", "pt")


@pytest.mark.parametrize(
    ("credentials", "config", "message"),
    [
        ("", "", "no AWS credentials in the environment and profile 'default'"),
        ("[other]\naws_access_key_id = s3cr3t\n", "", "no AWS credentials"),
        ("[default]\naws_access_key_id = s3cr3t\n", "", "no AWS credentials"),
        ("s3cr3t-line\n", "", "not a file of profiles .MissingSectionHeaderError"),
        ("", "[default]\ncredential_process = false\n", "no AWS credentials"),
    ],
)
async def test_none_to_be_had(home, credentials, config, message) -> None:
    (home / "credentials").write_text(credentials)
    (home / "config").write_text(config)
    with pytest.raises(Denied, match=f"node a: .*{message}") as caught:
        await AwsCredentials("a").current()
    assert "s3cr3t" not in str(caught.value).replace(str(home), "")
