"""HDFS: Apache Hadoop's own NameNode and DataNodes, by RPC and WebHDFS.

The jars are those that the source package of pyspark 2.4.8 on PyPI carries (Hadoop 2.7.3), and Debian's JAX-RS 1. They
run on any Java from 8 to 17 at least; each daemon takes 100 to 170 MB. A killed DataNode is declared dead after about
14 s.
"""

import json
import os
import shutil
import sys
import tarfile
import urllib.request
from pathlib import Path
from typing import Any

from enginekit.base import EngineError, State, downloads, exclusive, run, unpack_debian, until

DATANODES = 2
PYSPARK = "pyspark==2.4.8"
_JARS = (
    "hadoop-annotations hadoop-auth hadoop-common hadoop-hdfs commons- guava htrace-core-3 log4j-1 slf4j- protobuf "
    "jetty netty- xmlenc xercesImpl javax.servlet jaxb-api activation leveldbjni jsp-api apacheds api- jsr305 "
    "httpclient httpcore"
)
_JERSEY = ("libjersey1-core-java", "libjersey1-server-java", "libjersey1-servlet-java", "libjsr311-api-java")
_OPENED = ("java.lang", "java.nio", "sun.nio.ch", "java.util", "java.net", "java.io")
_LOG = (
    "log4j.rootLogger=WARN,C\nlog4j.appender.C=org.apache.log4j.ConsoleAppender\n"
    "log4j.appender.C.target=System.err\nlog4j.appender.C.layout=org.apache.log4j.SimpleLayout\n"
)
_SERVER = "org.apache.hadoop.hdfs.server"


def start(folder: Path) -> State:
    """Install, configure and start what is not running; ready on return."""
    java = shutil.which("java")
    if java is None:
        raise EngineError("hdfs: Java is missing; install it, for example openjdk-17-jre-headless")
    jars = _install()
    state = State.load(folder)
    _configure(state)
    # Small heaps, one collector thread, and only the first compiler: it is a test of few minutes on a small machine.
    command = [java, "-Xmx256m", "-XX:+UseSerialGC", "-XX:TieredStopAtLevel=1"]
    # What Jetty and the JVM unpack and leave behind belongs here, not into the machine's /tmp.
    (folder / "temp").mkdir(exist_ok=True)
    command += [f"-Djava.io.tmpdir={folder}/temp", "-XX:-UsePerfData"]
    if "1.8" not in run([java, "-XshowSettings:none", "-version"]):
        command += [f"--add-opens=java.base/{name}=ALL-UNNAMED" for name in _OPENED]
    command += ["-cp", f"{folder}/conf:{jars}/*"]
    if not (folder / "data/dfs/name/current").exists():
        run([*command, f"{_SERVER}.namenode.NameNode", "-format", "-nonInteractive"], cwd=folder)
    state.spawn("namenode", [*command, f"{_SERVER}.namenode.NameNode"])
    for number in range(1, DATANODES + 1):
        name = f"datanode{number}"
        options = {
            "dfs.datanode.data.dir": f"file://{folder}/data/{name}",
            "dfs.datanode.address": f"127.0.0.1:{state.port(name)}",
            "dfs.datanode.http.address": f"127.0.0.1:{state.port(name + '-http')}",
            "dfs.datanode.ipc.address": f"127.0.0.1:{state.port(name + '-ipc')}",
            "dfs.datanode.hostname": "127.0.0.1",
        }
        flags = [f"-D{key}={value}" for key, value in options.items()]
        state.spawn(name, [*command, f"{_SERVER}.datanode.DataNode", *flags])
    until(lambda: _live(state) == DATANODES and _serving(state) == DATANODES, "hdfs", state.dead)
    until(lambda: _lists(state), "hdfs", state.dead)
    return state


def describe(state: State) -> dict[str, object]:
    address = f"127.0.0.1:{state.port('rpc')}"
    webhdfs = f"webhdfs://127.0.0.1:{state.port('http')}/shardfs"
    return {
        "url": f"hdfs://{address}/shardfs",
        "namenode": f"hdfs://{address}",
        "web": f"http://127.0.0.1:{state.port('http')}",
        "webhdfs": webhdfs,
        "environment": {"WEBHDFS_URL": webhdfs},
    }


def _install() -> Path:
    """The folder with the jars."""
    folder = downloads() / "hadoop"
    with exclusive(downloads() / "hadoop.lock"):
        if not (folder / ".installed").exists():
            shutil.rmtree(folder, ignore_errors=True)
            (folder / "lib").mkdir(parents=True)
            _unpack_hadoop(folder)
            _unpack_jersey(folder)
            (folder / ".installed").touch()
    return folder / "lib"


def _unpack_hadoop(folder: Path) -> None:
    # pip asks a source package for its metadata, which for this one needs a setuptools of its time.
    builder = folder / "builder"
    run([sys.executable, "-m", "venv", str(builder)])
    pip = [str(builder / "bin/pip"), "-q"]
    run([*pip, "install", "setuptools<75", "wheel"])
    source = ["--no-deps", "--no-binary", ":all:", "--no-build-isolation"]
    run([*pip, "download", "-d", str(folder), *source, PYSPARK], env={"PATH": f"{builder}/bin:{os.environ['PATH']}"})
    prefixes = tuple(_JARS.split())
    (archive,) = folder.glob("pyspark-*.tar.gz")
    with tarfile.open(archive) as tar:
        for member in tar:
            name = Path(member.name).name
            wanted = name.startswith(prefixes) or (name.startswith("jackson-") and "-asl" in name)
            if "/deps/jars/" in member.name and member.isfile() and wanted:
                held = tar.extractfile(member)
                if held is not None:
                    (folder / "lib" / name).write_bytes(held.read())
    archive.unlink()
    shutil.rmtree(builder)


def _unpack_jersey(folder: Path) -> None:
    """JAX-RS 1, for WebHDFS on the NameNode."""
    packages = folder / "deb"
    unpack_debian(_JERSEY, packages / "root", work=packages)
    java = packages / "root/usr/share/java"
    for name in ("jersey1-core", "jersey1-server", "jersey1-servlet", "jsr311-api"):
        for jar in java.glob(f"{name}-[0-9]*.jar"):
            shutil.copy(jar, folder / "lib")  # what a link points at
    shutil.rmtree(packages)


def _configure(state: State) -> None:
    conf = state.folder / "conf"
    conf.mkdir(parents=True, exist_ok=True)
    for part in ("hdfs", "datanode", "secondary", "journal"):
        web = conf / "webapps" / part / "WEB-INF"
        web.mkdir(parents=True, exist_ok=True)
        (web / "web.xml").write_text('<web-app version="2.4" xmlns="http://java.sun.com/xml/ns/j2ee"></web-app>')
    core = {"fs.defaultFS": f"hdfs://127.0.0.1:{state.port('rpc')}", "hadoop.tmp.dir": f"{state.folder}/data"}
    hdfs = {
        "dfs.replication": str(DATANODES),
        "dfs.webhdfs.enabled": "true",
        "dfs.namenode.http-address": f"127.0.0.1:{state.port('http')}",
        "dfs.blocksize": "16777216",
        "dfs.namenode.heartbeat.recheck-interval": "2000",
        "dfs.heartbeat.interval": "1",
        "dfs.namenode.safemode.extension": "0",
    }
    for name, settings in (("core-site.xml", core), ("hdfs-site.xml", hdfs)):
        rows = "".join(f"<property><name>{k}</name><value>{v}</value></property>" for k, v in settings.items())
        (conf / name).write_text(f"<configuration>{rows}</configuration>")
    (conf / "log4j.properties").write_text(_LOG)
    state.save()


def _live(state: State) -> int:
    """DataNodes that the NameNode has heard of, once it is out of safe mode."""
    bean = _bean(state.port("http"), "NameNode", "FSNamesystemState")
    return int(bean["NumLiveDataNodes"]) if bean.get("FSState") == "Operational" else 0


def _serving(state: State) -> int:
    """DataNodes that have heard of the NameNode: it goes on counting those for live that died and are starting."""
    numbers = range(1, DATANODES + 1)
    beans = (_bean(state.port(f"datanode{number}-http"), "DataNode", "DataNodeInfo") for number in numbers)
    return sum('"BP-' in str(bean.get("NamenodeAddresses")) for bean in beans)


def _lists(state: State) -> bool:
    """Whether WebHDFS answers. The first question takes seconds, which is longer than a client waits for a listing."""
    url = f"http://127.0.0.1:{state.port('http')}/webhdfs/v1/?op=LISTSTATUS"
    try:
        with urllib.request.urlopen(url, timeout=30) as answer:
            return bool(answer.status == 200)
    except OSError:
        return False


def _bean(port: int, service: str, name: str) -> dict[str, Any]:
    """What a daemon tells of itself; nothing when it does not."""
    url = f"http://127.0.0.1:{port}/jmx?qry=Hadoop:service={service},name={name}"
    try:
        with urllib.request.urlopen(url, timeout=2) as answer:
            beans: list[dict[str, Any]] = json.load(answer)["beans"]
    except (OSError, ValueError):
        return {}
    return beans[0] if beans else {}
