"""The command line of `tools/engines`."""

import argparse
import json
import os
import shlex
import sys
import time
from pathlib import Path

from enginekit import hadoop, nginx, swift
from enginekit.base import EngineError, State, cache_folder, exclusive

ENGINES = {"s3": swift, "hdfs": hadoop, "nginx": nginx}


def main(arguments: list[str], doc: str | None) -> int:
    """0 done, 1 failed, 2 wrong usage."""
    parser = argparse.ArgumentParser(
        "tools/engines", description=doc, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("action", choices=["start", "stop", "status"])
    parser.add_argument("engine", nargs="?", choices=[*ENGINES, "all"], default="all")
    parser.add_argument("--dir", type=Path, default=None)
    parser.add_argument("--json", action="store_true")
    parser.add_argument("--sh", action="store_true")
    options = parser.parse_args(arguments)
    folder = (options.dir or cache_folder()).absolute()
    names = list(ENGINES) if options.engine == "all" else [options.engine]
    report: dict[str, dict[str, object]] = {}
    failed = False
    for name in names:
        try:
            with exclusive(folder / f"{name}.lock"):
                report[name] = _act(options.action, name, folder / name)
        except EngineError as error:
            print(f"engines: {name}: {error}", file=sys.stderr)
            # Without Java everything but HDFS can still be had; only who asked for it, and CI, must not go without.
            failed = failed or options.engine != "all" or os.environ.get("CI") == "true"
            report[name] = {"state": "failed", "reason": str(error)}
    if options.json:
        print(json.dumps(report))
    elif options.sh:
        print("\n".join(_exports(report)))
    else:
        print("\n".join(_lines(report)))
    return 1 if failed else 0


def _act(action: str, name: str, folder: Path) -> dict[str, object]:
    engine = ENGINES[name]
    began = time.monotonic()
    if action == "start":
        folder.mkdir(parents=True, exist_ok=True)
        state = engine.start(folder)
        print(f"engines: {name} is ready ({time.monotonic() - began:.1f} s)", file=sys.stderr)
    else:
        state = State.load(folder)
        if action == "stop" and state.processes:
            state.stop()
    running = bool(state.processes) and state.dead() is None
    known = engine.describe(state) if state.ports else {}
    processes = {process: pid for process in state.processes if (pid := state.alive(process))}
    return {"state": "running" if running else "stopped", "folder": str(folder), "processes": processes, **known}


def _exports(report: dict[str, dict[str, object]]) -> list[str]:
    """`S3_URL`, `HDFS_URL`, `NGINX_URL`, and what each engine's clients need in their environment."""
    lines = []
    for name, held in report.items():
        if held["state"] != "running":
            continue
        environment = held["environment"]
        assert isinstance(environment, dict)
        for key, value in ({f"{name.upper()}_URL": held["url"]} | environment).items():
            lines.append(f"export {key}={shlex.quote(str(value))}")
    return lines


def _lines(report: dict[str, dict[str, object]]) -> list[str]:
    lines = []
    for name, held in report.items():
        lines.append(f"{name:6} {held['state']:8} {held.get('url', held.get('reason', ''))}")
        environment = held.get("environment")
        if held["state"] == "running" and isinstance(environment, dict):
            lines += [f"       {key}={value}" for key, value in environment.items()]
    return lines
