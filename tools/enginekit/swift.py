"""S3: OpenStack Swift with its S3 interface and three replicas. It enforces signatures and `If-None-Match: *`."""

import os
import pwd
import socket
import sys
import time
import urllib.error
import urllib.request
from pathlib import Path

from enginekit.base import EngineError, State, downloads, exclusive, run, until
from shardfs.store.s3_sign import Credentials, S3Request, sign

SWIFT = "swift==2.38.0"
BUCKET = "models"
REGION = "us-east-1"
KEY_ID, SECRET = "test:tester", "testing"
_TIERS = ("object", "container", "account")
_PATIENCE = "conn_timeout = 10\nnode_timeout = 60\ncontainer_update_timeout = 60\n"
"""A busy machine is no dead disk: after 1 s an object would be stored, not listed, and nobody here lists it later."""


def start(folder: Path) -> State:
    """Install, configure and start what is not running; ready on return."""
    programs = _install()
    state = State.load(folder)
    (folder / "etc").mkdir(parents=True, exist_ok=True)
    (folder / "cache").mkdir(exist_ok=True)
    for disk in ("d1", "d2", "d3"):
        (folder / "node" / disk).mkdir(parents=True, exist_ok=True)
    _configure(state, programs)
    for name in (*_TIERS, "proxy"):
        state.spawn(name, [str(programs / f"swift-{name}-server"), str(folder / "etc" / f"{name}.conf")])
        if name == _TIERS[-1]:  # or the proxy finds them away
            until(lambda: all(_listens(state.port(tier)) for tier in _TIERS), "s3", lambda: _dead_tier(state))
    until(lambda: _make_bucket(state, BUCKET), "s3", state.dead)
    return state


def describe(state: State) -> dict[str, object]:
    endpoint = f"http://127.0.0.1:{state.port('proxy')}"
    return {
        "url": f"s3://{BUCKET}/shardfs?endpoint={endpoint}&region={REGION}",
        "endpoint": endpoint,
        "bucket": BUCKET,
        "environment": {"AWS_ACCESS_KEY_ID": KEY_ID, "AWS_SECRET_ACCESS_KEY": SECRET},
    }


def _install() -> Path:
    """The folder with Swift's programs."""
    folder = downloads() / "swift"
    with exclusive(downloads() / "swift.lock"):
        if not (folder / ".installed").exists():
            run([sys.executable, "-m", "venv", "--clear", str(folder)])
            run([str(folder / "bin/pip"), "install", "-q", SWIFT])
            (folder / ".installed").touch()
    return folder / "bin"


def _configure(state: State, programs: Path) -> None:
    etc = state.folder / "etc"
    (etc / "swift.conf").write_text(
        "[swift-hash]\nswift_hash_path_prefix = a\nswift_hash_path_suffix = b\n"
        "[storage-policy:0]\nname = default\ndefault = yes\n"
    )
    common = (
        f"[DEFAULT]\nswift_dir = {etc}\nbind_ip = 127.0.0.1\nworkers = 1\nuser = {_user()}\nlog_level = WARNING\n"
        f"devices = {state.folder}/node\nmount_check = false\ndisable_fallocate = true\n{_PATIENCE}"
    )
    for tier in _TIERS:
        port = state.port(tier)
        (etc / f"{tier}.conf").write_text(
            f"{common}bind_port = {port}\nrecon_cache_path = {state.folder}/cache\n"
            f"[pipeline:main]\npipeline = {tier}-server\n[app:{tier}-server]\nuse = egg:swift#{tier}\n"
        )
        if not (etc / f"{tier}.ring.gz").exists():
            builder = [str(programs / "swift-ring-builder"), f"{tier}.builder"]
            run([*builder, "create", "6", "3", "0"], cwd=etc)
            for disk in (1, 2, 3):
                run([*builder, "add", f"r1z{disk}-127.0.0.1:{port}/d{disk}", "1"], cwd=etc)
            run([*builder, "rebalance"], cwd=etc)
    (etc / "proxy.conf").write_text(
        f"{common}bind_port = {state.port('proxy')}\n"
        "[pipeline:main]\npipeline = catch_errors cache s3api tempauth slo dlo proxy-server\n"
        "[filter:catch_errors]\nuse = egg:swift#catch_errors\n"
        "[filter:cache]\nuse = egg:swift#memcache\nmemcache_servers = 127.0.0.1:1\n"
        f"[filter:s3api]\nuse = egg:swift#s3api\nlocation = {REGION}\n"
        f"[filter:tempauth]\nuse = egg:swift#tempauth\nuser_{KEY_ID.replace(':', '_')} = {SECRET} .admin\n"
        f"user_test_stranger = {SECRET}\n"
        "[filter:slo]\nuse = egg:swift#slo\n[filter:dlo]\nuse = egg:swift#dlo\n"
        "[app:proxy-server]\nuse = egg:swift#proxy\nallow_account_management = true\naccount_autocreate = true\n"
        "object_chunk_size = 1048576\nerror_suppression_interval = 0\n"
    )
    state.save()


def _listens(port: int) -> bool:
    try:
        socket.create_connection(("127.0.0.1", port), timeout=5).close()
    except OSError:
        return False
    return True


def _dead_tier(state: State) -> str | None:
    return next((tier for tier in _TIERS if state.alive(tier) is None), None)


def _make_bucket(state: State, bucket: str) -> bool:
    """Whether the bucket is there now."""
    host = f"127.0.0.1:{state.port('proxy')}"
    request = S3Request("PUT", f"/{bucket}")
    headers = dict(sign(request, host=host, region=REGION, credentials=Credentials(KEY_ID, SECRET), now=time.time()))
    asked = urllib.request.Request(f"http://{host}{request.target}", method="PUT", headers=headers)
    try:
        with urllib.request.urlopen(asked, timeout=5) as answer:
            return bool(answer.status == 200)
    except urllib.error.HTTPError as error:
        if error.code in (401, 403):
            raise EngineError(f"s3: the credentials are refused: {error.read(300)!r}") from None
        return error.code == 409
    except OSError:
        return False


def _user() -> str:
    return pwd.getpwuid(os.getuid()).pw_name
