"""Credentials and settings for S3, from where every AWS program looks for them. Never written down or logged.

In this order: a profile that the node's url names; `AWS_ACCESS_KEY_ID`, `AWS_SECRET_ACCESS_KEY` and
`AWS_SESSION_TOKEN`; the profile `$AWS_PROFILE` or `default` in `~/.aws/credentials` and `~/.aws/config`
(`$AWS_SHARED_CREDENTIALS_FILE`, `$AWS_CONFIG_FILE`). What only a program can get (roles, SSO, `credential_process`,
containers, instance metadata) is left to botocore, which `pip install shardfs[s3]` brings.

Keys are checked before they are used, and named by where they stand; what they say is in no message.
"""

import configparser
import importlib
import os
import re
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import trio

from shardfs.core.location import check_endpoint, is_region
from shardfs.errors import Denied, UsageError
from shardfs.store.s3_sign import Credentials

KEEP_SECONDS = 60.0
"""Credentials are looked for again after this time: a file may have been renewed."""

_FILE_BYTES_MAX = 1024 * 1024
_REGION = "us-east-1"
_PRINTABLE = re.compile(r"[\x21-\x7e]+", re.ASCII)
_NAMES = {"aws_access_key_id": "key id", "aws_secret_access_key": "secret key", "aws_session_token": "token"}
_TELLING = ("PartialCredentialsError", "ProfileNotFound")
"""Errors of botocore that say in one line what is missing, and nothing else."""


@dataclass(frozen=True, slots=True)
class _Setting:
    """What stands at `place`, which is empty where there is nothing."""

    value: str = ""
    place: str = ""


class AwsProfile:
    """What environment and files say. Reads files: small, and at the start of a program."""

    def __init__(self, profile: str = "") -> None:
        self._named = bool(profile)
        self._profile = profile or os.environ.get("AWS_PROFILE", "") or "default"

    def region(self) -> str:
        """The region when the node's url names none. UsageError when it cannot be one."""
        environ = os.environ.get("AWS_REGION") or os.environ.get("AWS_DEFAULT_REGION")
        region = environ or self._settings().get("region", "") or _REGION
        if not is_region(region):
            raise UsageError(f"{self._source('AWS_REGION', environ)}: {region[:80]!r} is no name of a region")
        return region

    def endpoint(self) -> str:
        """The endpoint when the node's url names none; empty: Amazon's. UsageError when it is no url."""
        environ = os.environ.get("AWS_ENDPOINT_URL_S3") or os.environ.get("AWS_ENDPOINT_URL")
        endpoint = environ or self._settings().get("endpoint_url", "")
        if endpoint:
            check_endpoint(endpoint, self._source("AWS_ENDPOINT_URL", environ))
        return endpoint

    def credentials(self) -> Credentials | None:
        """Static or temporary keys in the environment or in files; None when there are none. UsageError."""
        environ = {name: _Setting(os.environ.get(name.upper(), "").strip(), "the environment") for name in _NAMES}
        if not self._named and (found := _keys(environ)):
            return found
        return _keys(self._located())

    def _settings(self) -> dict[str, str]:
        return {name: setting.value for name, setting in self._located().items()}

    def _located(self) -> dict[str, _Setting]:
        section = self._profile if self._profile == "default" else f"profile {self._profile}"
        config = _section(_place("AWS_CONFIG_FILE", "config"), section)
        return {**config, **_section(_place("AWS_SHARED_CREDENTIALS_FILE", "credentials"), self._profile)}

    def _source(self, variable: str, environ: str | None) -> str:
        return f"environment variable {variable}" if environ else f"AWS profile {self._profile!r}"

    @property
    def name(self) -> str:
        return self._profile

    @property
    def named(self) -> bool:
        return self._named


class AwsCredentials:
    """`CredentialSource` of the node, kept for a minute at a time."""

    def __init__(self, node: str, profile: str = "") -> None:
        self._node = node
        self._profile = AwsProfile(profile)
        self._lock = trio.Lock()
        self._found: tuple[float, Credentials] | None = None

    async def current(self) -> Credentials:
        """The credentials to sign with now. Denied when none are found."""
        now = trio.current_time()
        if self._found is not None and now < self._found[0] + KEEP_SECONDS:
            return self._found[1]
        async with self._lock:
            if self._found is None or now >= self._found[0] + KEEP_SECONDS:
                # A thread that is left behind ends with botocore's own timeouts; the lock lets one look at a time.
                credentials = await trio.to_thread.run_sync(self._look, abandon_on_cancel=True)
                self._found = (trio.current_time(), credentials)
            return self._found[1]

    def forget(self) -> None:
        """Look again before the next request."""
        self._found = None

    def _look(self) -> Credentials:
        try:
            found = self._profile.credentials() or self._ask_botocore()
        except UsageError as error:
            raise Denied(self._node, str(error)) from None
        if found is None:
            looked = f"the environment and profile {self._profile.name!r}"
            raise Denied(self._node, f"no AWS credentials in {looked}; roles, SSO and the like need shardfs[s3]")
        return found

    def _ask_botocore(self) -> Credentials | None:
        try:
            session_module = importlib.import_module("botocore.session")
        except ModuleNotFoundError:
            return None
        try:
            session = session_module.Session(profile=self._profile.name if self._profile.named else None)
            held = session.get_credentials()
            frozen = held.get_frozen_credentials() if held is not None else None
        except Exception as error:  # noqa: BLE001 - plugins, programs and services of all kinds are asked there
            raise Denied(self._node, f"no AWS credentials: {_told(error)}") from None
        if frozen is None:
            return None
        values = zip(_NAMES, (frozen.access_key, frozen.secret_key, frozen.token), strict=True)
        return _keys({name: _Setting(str(value), "what botocore found") for name, value in values if value})


def _place(variable: str, name: str) -> Path:
    named = os.environ.get(variable)
    return Path(os.path.expanduser(named or f"~/.aws/{name}"))  # unlike Path.expanduser it leaves an unknown ~user


def _section(path: Path, section: str) -> dict[str, _Setting]:
    try:
        with path.open("rb") as file:
            text = file.read(_FILE_BYTES_MAX).decode("utf-8", "replace")
    except (FileNotFoundError, NotADirectoryError):
        return {}
    except OSError as error:
        raise UsageError(f"{path}: {error.strerror}") from None
    parser = configparser.RawConfigParser(strict=False)
    try:
        parser.read_string(text)
    except configparser.Error as error:
        # Only the kind: the message would quote the line.
        raise UsageError(f"{path}: not a file of profiles ({type(error).__name__})") from None
    if not parser.has_section(section):
        return {}
    return {name: _Setting(value.strip(), str(path)) for name, value in parser.items(section)}


def _keys(held: Mapping[str, _Setting]) -> Credentials | None:
    found = {name: held.get(name, _Setting()) for name in _NAMES}
    key_id, secret, token = found.values()
    if not key_id.value or not secret.value:
        return None
    for name, setting in found.items():
        # A value that goes on in the next line of a file has a line break in it; in a header it would be a fault.
        if setting.value and not _PRINTABLE.fullmatch(setting.value):
            hint = "printable ASCII characters without spaces, in one line"
            raise UsageError(f"{name} in {setting.place} is no {_NAMES[name]} ({hint})")
    return Credentials(key_id.value, secret.value, token.value or None)


def _told(error: Exception) -> str:
    """What may be said of an error of botocore's: never what it quotes."""
    kind = type(error).__name__
    if kind in _TELLING:
        return f"{kind}: {' '.join(str(error).split())[:200]}"
    answer = getattr(error, "response", None)  # a service's: the code is a word such as AccessDenied
    code = answer.get("Error", {}).get("Code", "") if isinstance(answer, dict) else ""
    return f"{kind}: {code}" if re.fullmatch(r"[A-Za-z.]{1,64}", str(code)) else kind
