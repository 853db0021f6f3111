"""Rivals that Debian has and that need no S3: apt-get install rclone httpdirfs sshfs openssh-server nginx-light.

All read the same plain file on the same machine, rclone and httpdirfs through nginx, sshfs through a server of its own
with keys made for this run.
"""

import subprocess
from pathlib import Path

from bench.rivals import Command, Rival
from bench.servers import nginx, sshd


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


RIVALS = (
    Rival("rclone, no cache", ("rclone", "nginx"), nginx, rclone("off")),
    Rival("rclone, full cache", ("rclone", "nginx"), nginx, rclone("full"), caches=True),
    Rival("httpdirfs, cache", ("httpdirfs", "nginx"), nginx, httpdirfs, caches=True),
    Rival("sshfs", ("sshfs", "sshd", "ssh-keygen"), sshd, sshfs),
)
