"""The servers that other filesystems read from: nginx and sshd on this machine, with the model and nothing else."""

import socket
import subprocess
from collections.abc import Sequence
from contextlib import suppress
from pathlib import Path

from bench.rivals import Served, find, wait_for
from bench.world import MODEL, World


def folder(world: World) -> Path:
    """A folder with nothing but the model in it."""
    served = world.work / "served"
    served.mkdir(exist_ok=True)
    if not (served / MODEL).exists():
        (served / MODEL).hardlink_to(world.source)
    return served


def free_port() -> int:
    with socket.create_server(("127.0.0.1", 0)) as server:
        return int(server.getsockname()[1])


def paired_port() -> int:
    """A free port such that the one 10,000 above is free as well, which is where SeaweedFS puts its gRPC."""
    while True:
        port = free_port()
        with suppress(OSError, OverflowError), socket.create_server(("127.0.0.1", port + 10_000)):
            return port


def start(command: Sequence[str | Path], port: int, log: Path) -> "subprocess.Popen[bytes]":
    """A server that listens at the port when this returns."""
    with log.open("ab") as output:
        process = subprocess.Popen(list(map(str, command)), stdin=subprocess.DEVNULL, stdout=output, stderr=output)

    def listens() -> bool:
        with suppress(OSError), socket.create_connection(("127.0.0.1", port), 1):
            return True
        return False

    wait_for(listens, process, f"{Path(command[0]).name} does not start")
    return process


NGINX = """\
daemon off; worker_processes 1; user root; pid {here}/pid; error_log {here}/error.log;
events {{ worker_connections 512; }}
http {{
    access_log off; sendfile on; tcp_nopush on; keepalive_requests 1000000;
    client_body_temp_path {here}/body; proxy_temp_path {here}/proxy; fastcgi_temp_path {here}/fastcgi;
    uwsgi_temp_path {here}/uwsgi; scgi_temp_path {here}/scgi;
    server {{ listen 127.0.0.1:{port}; root {root}; autoindex on; }}
}}
"""


def nginx(world: World) -> Served:
    here, port = world.place("nginx"), free_port()
    here.mkdir()
    (here / "nginx.conf").write_text(NGINX.format(here=here, port=port, root=folder(world)))
    program = find("nginx") or "nginx"
    process = start([program, "-c", here / "nginx.conf", "-e", here / "error.log"], port, world.work / "rivals.log")
    return Served(f"http://127.0.0.1:{port}/", process)


SSHD = """\
ListenAddress 127.0.0.1
Port {port}
HostKey {here}/key
AuthorizedKeysFile {here}/key.pub
PidFile {here}/pid
StrictModes no
UsePAM no
PasswordAuthentication no
PermitRootLogin yes
Subsystem sftp internal-sftp
"""


def sshd(world: World) -> Served:
    here, port = world.place("sshd"), free_port()
    here.mkdir(mode=0o700)
    subprocess.run(["ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-f", str(here / "key")], check=True)
    (here / "sshd_config").write_text(SSHD.format(here=here, port=port))
    Path("/run/sshd").mkdir(exist_ok=True)
    program = find("sshd") or "sshd"
    process = start([program, "-D", "-e", "-f", here / "sshd_config"], port, world.work / "rivals.log")
    return Served(f"{port} {here / 'key'} {folder(world)}", process)
