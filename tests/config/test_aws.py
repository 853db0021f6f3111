"""Credentials and settings of S3 that cannot be right: said by where they stand, never by what they say."""

import os
from pathlib import Path

import pytest

from shardfs.config.aws import AwsCredentials
from shardfs.core.cluster import Node
from shardfs.errors import Denied, UsageError
from shardfs.wiring.engines import open_store

SECRET = "ZZS3CR3T"
KEYS = "aws_access_key_id = id\naws_secret_access_key = key\n"


@pytest.fixture(autouse=True)
def home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    for name in list(os.environ):
        if name.startswith("AWS_"):
            monkeypatch.delenv(name)
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.setenv("AWS_EC2_METADATA_DISABLED", "true")
    (tmp_path / ".aws").mkdir()
    return tmp_path / ".aws"


async def denied(message: str) -> None:
    with pytest.raises(Denied) as caught:
        await AwsCredentials("far").current()
    text = str(caught.value)
    assert text.startswith(f"node far: {message}")
    assert SECRET not in text
    assert "\n" not in text


@pytest.mark.parametrize(
    ("keys", "name", "kind"),
    [
        (f"{KEYS}aws_session_token = AAAA\n  {SECRET}\n", "aws_session_token", "token"),
        (f"{KEYS}aws_session_token = AAAA {SECRET}\n", "aws_session_token", "token"),
        (f"{KEYS}aws_session_token = \u00e4{SECRET}\n", "aws_session_token", "token"),
        (f"aws_access_key_id = id\naws_secret_access_key = {SECRET}\n x\n", "aws_secret_access_key", "secret key"),
        (f"aws_access_key_id = {SECRET}\x01\naws_secret_access_key = key\n", "aws_access_key_id", "key id"),
    ],
)
async def test_keys_that_are_none(home: Path, monkeypatch: pytest.MonkeyPatch, keys: str, name: str, kind: str) -> None:
    (home / "credentials").write_text(f"[default]\n{keys}", "utf-8")
    await denied(f"{name} in {home}/credentials is no {kind} (")
    (home / "credentials").rename(home / "config")
    await denied(f"{name} in {home}/config is no {kind} (")
    monkeypatch.setenv("AWS_ACCESS_KEY_ID", "id")
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", "key")
    monkeypatch.setenv(name.upper(), f"a\n{SECRET}")
    await denied(f"{name} in the environment is no {kind} (")


@pytest.mark.parametrize(
    ("script", "message"),
    [
        (
            f'echo \'{{"Version": 1, "AccessKeyId": "p", "SecretAccessKey": "a {SECRET}"}}\'',
            "aws_secret_access_key in ",
        ),
        (
            'echo \'{"Version": 1, "AccessKeyId": [1, 2], "SecretAccessKey": 5}\'',
            "aws_access_key_id in what botocore found",
        ),
        (f"echo '{SECRET}, which is no JSON'", "no AWS credentials: "),
        (f"echo {SECRET} >&2; exit 3", "no AWS credentials: CredentialRetrievalError"),
        (None, "no AWS credentials: FileNotFoundError"),
    ],
)
async def test_programs_that_bring_none(home: Path, script: str | None, message: str) -> None:
    pytest.importorskip("botocore")
    program = home / "program"
    if script is not None:
        program.write_text(f"#!/bin/sh\n{script}\n")
        program.chmod(0o755)
    (home / "config").write_text(f"[default]\ncredential_process = {program}\n")
    await denied(message)


async def test_what_is_missing_is_said(home: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    pytest.importorskip("botocore")
    monkeypatch.setenv("AWS_ACCESS_KEY_ID", SECRET)
    await denied("no AWS credentials: PartialCredentialsError: Partial credentials found in env, missing: ")
    monkeypatch.delenv("AWS_ACCESS_KEY_ID")
    monkeypatch.setenv("AWS_PROFILE", "works")
    await denied("no AWS credentials: ProfileNotFound: The config profile (works) could not be found")


ENDPOINTS = (
    f"http://k:{SECRET}@host",
    f"https://{SECRET}@host:80",
    f"k:{SECRET}@host",
    f"{SECRET}.host:9000",
    f"http://k:{SECRET}",
    f"http://k:{SECRET}/x@host",
    f"http://k:{SECRET}\u2100@host",
    f"http://host/?key={SECRET}",
    f"http://host:1/#{SECRET}",
)


@pytest.mark.parametrize("endpoint", ENDPOINTS)
def test_endpoints_that_are_none(home: Path, monkeypatch: pytest.MonkeyPatch, endpoint: str) -> None:
    (home / "config").write_text(f"[default]\nendpoint_url = {endpoint}\n", "utf-8")
    wrong_endpoint("AWS profile 'default'")
    for name in ("AWS_ENDPOINT_URL", "AWS_ENDPOINT_URL_S3"):
        monkeypatch.setenv(name, endpoint)
        wrong_endpoint("environment variable AWS_ENDPOINT_URL")
    open_store(Node("far", "s3://bucket/p?endpoint=http://host:1"))  # says its own


def wrong_endpoint(place: str) -> None:
    with pytest.raises(UsageError) as caught:
        open_store(Node("far", "s3://bucket/p"))
    text = str(caught.value)
    assert text.startswith(f"{place}: endpoint")
    assert SECRET not in text
