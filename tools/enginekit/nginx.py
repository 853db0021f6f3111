"""WebDAV: a stock nginx with `dav_methods`, `create_full_put_path` and `autoindex_format json`."""

import os
import pwd
import shutil
import socket
from pathlib import Path

from enginekit.base import State, downloads, exclusive, unpack_debian, until

TOKEN = "tester:testing"
"""User and password of /private/."""

_CONFIG = """\
daemon off; worker_processes 2; pid {folder}/nginx.pid; error_log {folder}/logs/error.log warn; {user}
events {{ worker_connections 256; }}
http {{
    access_log off; sendfile on;
    client_body_temp_path {folder}/body; proxy_temp_path {folder}/t; fastcgi_temp_path {folder}/t;
    uwsgi_temp_path {folder}/t; scgi_temp_path {folder}/t;
    server {{
        listen 127.0.0.1:{port};
        root {folder}/data;
        client_max_body_size 100m;
        dav_methods PUT DELETE; create_full_put_path on;
        autoindex on; autoindex_format json;
        location /private/ {{ auth_basic shardfs; auth_basic_user_file {folder}/users; }}
        location /readonly/ {{ dav_methods off; }}
    }}
}}
"""


def start(folder: Path) -> State:
    """Install, configure and start what is not running; ready on return."""
    program = _install()
    state = State.load(folder)
    for part in ("data", "logs"):
        (folder / part).mkdir(parents=True, exist_ok=True)
    (folder / "users").write_text("{}:{{PLAIN}}{}\n".format(*TOKEN.split(":")))
    user = f"user {pwd.getpwuid(0).pw_name};" if os.getuid() == 0 else ""
    (folder / "nginx.conf").write_text(_CONFIG.format(folder=folder, port=state.port("http"), user=user))
    state.save()
    state.spawn(
        "nginx", [program, "-c", str(folder / "nginx.conf"), "-p", str(folder), "-e", f"{folder}/logs/error.log"]
    )
    until(lambda: _listens(state.port("http")), "nginx", state.dead)
    return state


def describe(state: State) -> dict[str, object]:
    base = f"dav://127.0.0.1:{state.port('http')}"
    return {"url": f"{base}/shardfs", "private": f"{base}/private", "environment": {"DAV_TOKEN": TOKEN}}


def _install() -> str:
    """The program: the system's own, else Debian's package, unpacked and not installed."""
    found = shutil.which("nginx") or shutil.which("nginx", path="/usr/sbin")
    if found:
        return found
    folder = downloads() / "nginx"
    program = folder / "root/usr/sbin/nginx"
    with exclusive(downloads() / "nginx.lock"):
        if not program.exists():
            unpack_debian(["nginx"], folder / "root", work=folder)
    return str(program)


def _listens(port: int) -> bool:
    try:
        socket.create_connection(("127.0.0.1", port), timeout=1).close()
    except OSError:
        return False
    return True
