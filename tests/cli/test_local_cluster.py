"""LocalCluster: real processes, real signals, and nothing left behind whatever happens."""

import contextlib
import os
import select
import signal
import socket
import subprocess
import sys

import pytest

from shardfs.api.children import DidNotStart
from shardfs.api.local import LocalCluster, is_mounted
from shardfs.errors import ShardfsError

TEXT = b"some content\n" * 1000


@pytest.fixture
def source(tmp_path):
    path = tmp_path / "source.bin"
    path.write_bytes(TEXT)
    return path


def health(cluster):
    return {node["id"]: node["health"] for node in cluster.report("status")["nodes"]}


def gone(pidfd, seconds=30):
    """Whether the process behind the descriptor ends within the time."""
    return bool(select.select([pidfd], [], [], seconds)[0])


def test_nodes_live_and_die_as_they_are_told(tmp_path, source):
    with LocalCluster(tmp_path / "local") as cluster:
        assert cluster.node_ids == ("a", "b", "c")
        assert cluster.put(source, "m")["generation"] == 1
        assert health(cluster) == {"a": "ok", "b": "ok", "c": "ok"}

        cluster.kill("a")
        assert not cluster.running("a")
        assert health(cluster)["a"] == "down"
        cluster.start("a")
        cluster.pause("b")
        assert health(cluster) == {"a": "ok", "b": "down", "c": "ok"}
        cluster.resume("b")
        cluster.stop("c")
        assert health(cluster) == {"a": "ok", "b": "ok", "c": "down"}
        assert cluster.run("ls").stdout.split() == ["MODEL", "GENERATION", "m", "1"]
        assert any(cluster.data("a").rglob("*")), "the data is where `data` says"


def test_the_same_root_again_has_the_same_data_and_ports(tmp_path, source):
    with LocalCluster(tmp_path) as cluster:
        cluster.put(source, "m")
        places, text = cluster.places(), cluster.cluster_file.read_text()
    with LocalCluster(tmp_path) as cluster:
        assert cluster.places() == places
        assert cluster.cluster_file.read_text() == text
        assert cluster.put(source, "m")["unchanged"]


def test_a_port_that_somebody_took_is_replaced(tmp_path):
    with LocalCluster(tmp_path, nodes=1, replicas=1) as cluster:
        [(_, _, port)] = cluster.places()
    with socket.create_server(("127.0.0.1", port)), LocalCluster(tmp_path, nodes=1, replicas=1) as cluster:
        assert cluster.places()[0][2] != port
        assert health(cluster) == {"a": "ok"}


def test_a_node_that_cannot_start_says_why_and_the_others_are_stopped(tmp_path):
    (tmp_path / "b").write_text("not a folder")
    with pytest.raises(DidNotStart, match=r"shardfs node did not start: .*/b"), LocalCluster(tmp_path):
        pytest.fail("it must not be entered")
    (tmp_path / "b").unlink()
    with LocalCluster(tmp_path) as cluster:  # a node left behind would hold its folder
        assert health(cluster) == {"a": "ok", "b": "ok", "c": "ok"}


def test_a_failing_command_is_an_error_with_its_message(tmp_path):
    with LocalCluster(tmp_path, nodes=1, replicas=1) as cluster:
        with pytest.raises(ShardfsError, match=r"^shardfs info: nothing: no such model$"):
            cluster.report("info", "nothing")
        with pytest.raises(ValueError, match="node a is running"):
            cluster.start("a")


def test_outside_of_its_context_it_does_nothing(tmp_path):
    with pytest.raises(RuntimeError, match="context manager"):
        LocalCluster(tmp_path).start("a")


@pytest.mark.fuse
def test_a_mount_is_readable_until_it_is_unmounted(tmp_path, source):
    place = tmp_path / "a mount"
    with LocalCluster(tmp_path / "local") as cluster:
        cluster.put(source, "m")
        ready = cluster.mount(place)
        assert ready["pid"] == cluster.mount_pid(place)
        assert ready["cache"].startswith(str(tmp_path / "local"))
        assert (place / "m").read_bytes() == TEXT
        cluster.umount(place)
        assert not is_mounted(place)


@pytest.mark.fuse
def test_an_exception_with_an_open_file_leaves_no_mount(tmp_path, source):
    place = tmp_path / "mount"

    def fail(held):
        with LocalCluster(tmp_path / "local") as cluster:
            cluster.put(source, "m")
            cluster.mount(place, "--no-cache")
            held.append(os.open(place / "m", os.O_RDONLY))
            raise ZeroDivisionError

    held = []
    with pytest.raises(ZeroDivisionError):
        fail(held)
    assert not is_mounted(place)
    with contextlib.suppress(OSError):  # its filesystem is gone
        os.close(held[0])


@pytest.mark.fuse
def test_nothing_outlives_a_parent_that_is_killed(tmp_path, source):
    script = f"""
import sys
from shardfs.api.local import LocalCluster
with LocalCluster({str(tmp_path / "local")!r}) as cluster:
    cluster.put({str(source)!r}, "m")
    cluster.mount({str(tmp_path / "mount")!r})
    cluster.pause("c")
    print(*(cluster.pid(node) for node in "ab"), cluster.mount_pid({str(tmp_path / "mount")!r}), cluster.pid("c"))
    sys.stdout.flush()
    sys.stdin.read()
"""
    parent = subprocess.Popen(
        [sys.executable, "-c", script], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, start_new_session=True
    )
    with parent:
        pids = [int(pid) for pid in parent.stdout.readline().split()]
        watched = [os.pidfd_open(pid) for pid in pids]
        assert is_mounted(tmp_path / "mount")
        parent.kill()
    os.kill(pids[-1], signal.SIGCONT)  # it was stopped: the signal waits for it
    assert [gone(descriptor) for descriptor in watched] == [True] * 4
    assert not is_mounted(tmp_path / "mount")
    for descriptor in watched:
        os.close(descriptor)
