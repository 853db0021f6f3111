"""A pytest plugin: a test that could have run here must not be skipped without anyone noticing.

Where /dev/fuse exists, a skipped test that is marked `fuse` fails the run; in CI (CI=true) the same holds for
`frameworks`, unless SHARDFS_NO_FRAMEWORKS asks for it, and for `engines`. A file that skips itself while it is being
collected counts if its text uses the mark. Tests that are deselected (-k, -m, a path) are the caller's own choice.

tools/test loads it with `-p tests.plugin_guard`.
"""

import os
from pathlib import Path

import pytest


def guarded_marks() -> dict[str, str]:
    """The marks whose tests must run here, each with the reason."""
    marks = {}
    if Path("/dev/fuse").exists():
        marks["fuse"] = "/dev/fuse exists"
    if os.environ.get("CI") == "true" and os.environ.get("SHARDFS_NO_FRAMEWORKS", "0") == "0":
        marks["frameworks"] = "this is CI"
    if os.environ.get("CI") == "true":
        marks["engines"] = "this is CI"
    return marks


class Guard:
    """Collects what was skipped against the rules, and turns it into a failed run."""

    def __init__(self, root: Path) -> None:
        self.root = root
        self.marks = guarded_marks()
        self.skipped: list[str] = []

    def pytest_runtest_logreport(self, report: pytest.TestReport) -> None:
        if report.skipped and not hasattr(report, "wasxfail"):
            for mark in self.marks.keys() & report.keywords.keys():
                self.skipped.append(f"{report.nodeid} ({mark}: {self.marks[mark]}): {reason(report)}")

    def pytest_collectreport(self, report: pytest.CollectReport) -> None:
        file = self.root / report.nodeid
        if report.skipped and file.is_file():
            text = file.read_text()
            for mark in self.marks:
                if f"mark.{mark}" in text:
                    self.skipped.append(f"{report.nodeid} ({mark}: {self.marks[mark]}): {reason(report)}")

    def pytest_terminal_summary(self, terminalreporter: pytest.TerminalReporter) -> None:
        if self.skipped:
            terminalreporter.section("skipped although they could have run", red=True)
            for line in self.skipped:
                terminalreporter.line(line)

    def pytest_sessionfinish(self, session: pytest.Session) -> None:
        if self.skipped and session.exitstatus in (pytest.ExitCode.OK, pytest.ExitCode.NO_TESTS_COLLECTED):
            session.exitstatus = pytest.ExitCode.TESTS_FAILED


def reason(report: pytest.TestReport | pytest.CollectReport) -> str:
    """Why it was skipped, as the test said it."""
    where = report.longrepr
    return str(where[2] if isinstance(where, tuple) else where).removeprefix("Skipped: ")


def pytest_configure(config: pytest.Config) -> None:
    config.pluginmanager.register(Guard(config.rootpath), "shardfs-guard")
