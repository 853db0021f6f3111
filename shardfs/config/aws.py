"""Credentials and settings for S3, from where every AWS program looks for them. Never written down or logged.

In this order: a profile that the node's url names; `AWS_ACCESS_KEY_ID`, `AWS_SECRET_ACCESS_KEY` and
`AWS_SESSION_TOKEN`; the profile `$AWS_PROFILE` or `default` in `~/.aws/credentials` and `~/.aws/config`
(`$AWS_SHARED_CREDENTIALS_FILE`, `$AWS_CONFIG_FILE`). What only a program can get (roles, SSO, `credential_process`,
containers, instance metadata) is left to botocore, which `pip install shardfs[s3]` brings.
"""

import configparser
import importlib
import os
from pathlib import Path

import trio

from shardfs.core.location import check_endpoint, is_region
from shardfs.errors import Denied, UsageError
from shardfs.store.s3_sign import Credentials

KEEP_SECONDS = 60.0
"""Credentials are looked for again after this time: a file may have been renewed."""

_FILE_BYTES_MAX = 1024 * 1024
_REGION = "us-east-1"


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
        """Static or temporary keys in the environment or in files; None when there are none."""
        if not self._named and (found := _keys(os.environ, upper=True)):
            return found
        return _keys(self._settings())

    def _settings(self) -> dict[str, str]:
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
            errors = importlib.import_module("botocore.exceptions")
        except ModuleNotFoundError:
            return None
        try:
            session = session_module.Session(profile=self._profile.name if self._profile.named else None)
            held = session.get_credentials()
            frozen = held.get_frozen_credentials() if held is not None else None
        except errors.BotoCoreError as error:
            raise Denied(self._node, f"no AWS credentials: {type(error).__name__}") from None
        if frozen is None:
            return None
        return Credentials(frozen.access_key, frozen.secret_key, frozen.token)


def _place(variable: str, name: str) -> Path:
    named = os.environ.get(variable)
    return Path(os.path.expanduser(named or f"~/.aws/{name}"))  # unlike Path.expanduser it leaves an unknown ~user


def _section(path: Path, section: str) -> dict[str, str]:
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
    return dict(parser.items(section)) if parser.has_section(section) else {}


def _keys(held: "os._Environ[str] | dict[str, str]", *, upper: bool = False) -> Credentials | None:
    def get(name: str) -> str:
        return held.get(name.upper() if upper else name, "").strip()

    key_id, secret = get("aws_access_key_id"), get("aws_secret_access_key")
    if not key_id or not secret:
        return None
    return Credentials(key_id, secret, get("aws_session_token") or None)
