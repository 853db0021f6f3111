"""Other filesystems that can show the same bytes as files: how each is started at its best, and what it needs.

They come from Debian: apt-get install rclone httpdirfs sshfs openssh-server nginx-light. What is not on the PATH is
left out and named. All read the same plain file on the same machine, rclone and httpdirfs through nginx, sshfs through
a server of its own with keys made for this run. Each mount gets the kernel settings that a shardfs mount gives itself.
"""

import os
import shutil
import socket
import subprocess
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path

from bench.world import MODEL, World
from shardfs.api.local import is_mounted
from shardfs.mount.kernel import KernelOptions, tune

START_SECONDS = 20.0
STOP_SECONDS = 5.0
S3_ONLY = {
    "s3fs": "measured by the group engines, on an S3 endpoint",
    "mount-s3": "left out, it needs an S3 endpoint",
    "goofys": "left out, it needs an S3 endpoint",
    "juicefs": "left out, it needs an S3 endpoint",
}

Command = Callable[[str, Path, Path], list[str]]
"""The command in the foreground, from the address of what it reads, the mountpoint and a cache folder."""


@dataclass(frozen=True, slots=True)
class Rival:
    """`programs` must be on the PATH; `caches`: it has a disk cache that outlives its mount."""

    name: str
    programs: tuple[str, ...]
    serve: Callable[[World], "Served"]
    command: Command
    caches: bool = False

    @property
    def missing(self) -> list[str]:
        return [program for program in self.programs if find(program) is None]


@dataclass(frozen=True, slots=True)
class Served:
    """A running server: the address for the client's command, and what to stop, if anything."""

    address: str
    process: "subprocess.Popen[bytes] | None"


FAMILY = "SHARDFS_BENCH_RIVAL"
"""A variable in the environment of everything that a rival's client starts: sshfs lets go of its ssh."""


@dataclass(frozen=True, slots=True)
class Running:
    """A mounted rival: the path of the model there, and its client's process."""

    path: Path
    pid: int


def find(program: str) -> str | None:
    """Servers live where only root's PATH leads."""
    return shutil.which(program) or shutil.which(program, path="/usr/sbin:/sbin")


@contextmanager
def running(world: World, rival: Rival, cache: Path) -> Iterator["Running"]:
    """Start the rival's server and mount."""
    place = world.place("rival")
    place.mkdir()
    cache.mkdir(exist_ok=True)
    with ExitStack() as stack:
        stack.callback(place.rmdir)
        served = rival.serve(world)
        if served.process is not None:
            stack.callback(end, served.process)
        log = stack.enter_context((world.work / "rivals.log").open("ab"))
        command = rival.command(served.address, place, cache)
        client = subprocess.Popen(
            command, stdin=subprocess.DEVNULL, stdout=log, stderr=log, env={**os.environ, FAMILY: str(place)}
        )
        stack.callback(end, client)
        stack.callback(unmount, place)
        wait_for(lambda: is_mounted(place), client, f"{rival.name}: no mount")
        tune(place, KernelOptions())
        wait_for((place / MODEL).exists, client, f"{rival.name}: the file does not show")
        yield Running(place / MODEL, client.pid)


def wait_for(ready: Callable[[], bool], process: "subprocess.Popen[bytes]", what: str) -> None:
    deadline = time.monotonic() + START_SECONDS
    while not ready():
        if process.poll() is not None or time.monotonic() > deadline:
            raise RuntimeError(what)
        time.sleep(0.02)


def unmount(place: Path) -> None:
    if is_mounted(place):
        subprocess.run(["fusermount3", "-u", str(place)], capture_output=True, check=False)
    if is_mounted(place):
        subprocess.run(["umount", "-l", str(place)], capture_output=True, check=False)


def end(process: "subprocess.Popen[bytes]") -> None:
    process.terminate()
    try:
        process.wait(STOP_SECONDS)
    except subprocess.TimeoutExpired:
        process.kill()
        with suppress(subprocess.TimeoutExpired):
            process.wait(STOP_SECONDS)


# ----------------------------------------------------------------------------------------------------------- servers


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


# ----------------------------------------------------------------------------------------------------------- clients


def rclone(mode: str) -> Command:
    """Large requests and buffers; many streams where the version knows them (1.68)."""

    def command(address: str, place: Path, cache: Path) -> list[str]:
        words = ["rclone", "mount", ":http:", str(place), "--http-url", address, "--config", "", "--read-only"]
        words += ["--vfs-cache-mode", mode, "--cache-dir", str(cache), "--buffer-size", "64M", "--no-checksum"]
        words += ["--vfs-read-ahead", "256M", "--max-read-ahead", "1M", "--dir-cache-time", "1h"]
        if "vfs-read-chunk-streams" in _help():
            return [*words, "--vfs-read-chunk-streams", "16", "--vfs-read-chunk-size", "4M"]
        return [*words, "--vfs-read-chunk-size", "64M", "--vfs-read-chunk-size-limit", "off"]

    return command


def _help() -> str:
    return subprocess.run(["rclone", "mount", "--help"], capture_output=True, text=True, check=False).stdout


def httpdirfs(address: str, place: Path, cache: Path) -> list[str]:
    """With its cache: without, it asks for 128 KiB at a time, ten times a second. Its range check ends the mount over
    the case of a header's name.
    """
    return ["httpdirfs", "-f", "--no-range-check", "--cache", "--cache-location", str(cache), address, str(place)]


def sshfs(address: str, place: Path, _cache: Path) -> list[str]:
    """Several connections, and the cipher that processors are best at."""
    port, key, root = address.split(" ")
    options = ["ro", f"IdentityFile={key}", f"port={port}", "StrictHostKeyChecking=no", "UserKnownHostsFile=/dev/null"]
    options += ["Ciphers=aes128-gcm@openssh.com", "Compression=no", "max_conns=4", "kernel_cache", "dir_cache=yes"]
    return ["sshfs", "-f", "-o", ",".join(options), f"root@127.0.0.1:{root}", str(place)]


def s3fs(address: str, place: Path, cache: Path) -> list[str]:
    """As many and as small requests at once as it can make: 16 parts of 5 MB."""
    bucket, folder, endpoint, region = address.split(" ")
    options = ["ro", f"url={endpoint}", "use_path_request_style", f"endpoint={region}", f"tmpdir={cache}"]
    options += ["parallel_count=16", "multipart_size=5", "kernel_cache"]
    return ["s3fs", f"{bucket}:/{folder}", str(place), "-f", "-o", ",".join(options)]


def s3fs_at(bucket: str, folder: str, endpoint: str, region: str) -> Rival:
    """s3fs on a folder of a bucket that runs already; credentials are in the environment."""
    address = f"{bucket} {folder} {endpoint} {region}"
    return Rival("s3fs", ("s3fs",), lambda _world: Served(address, None), s3fs)


RIVALS = (
    Rival("rclone, no cache", ("rclone", "nginx"), nginx, rclone("off")),
    Rival("rclone, full cache", ("rclone", "nginx"), nginx, rclone("full"), caches=True),
    Rival("httpdirfs, cache", ("httpdirfs", "nginx"), nginx, httpdirfs, caches=True),
    Rival("sshfs", ("sshfs", "sshd", "ssh-keygen"), sshd, sshfs),
)
