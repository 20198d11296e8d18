"""What may be skipped where the variable SEAL_CI is set: any other skip fails the session.

A room of tests whose package is missing would pass otherwise, and nobody would notice.
"""

from __future__ import annotations

import os
from collections import Counter
from collections.abc import Iterator

import pytest

ELSEWHERE = ("vLLM is", "needs a CUDA device", "needs the extra kserve", "E2E_FAULT names")
"""Beginnings of reasons: what has a machine or an environment of its own."""
PERHAPS_ABSENT = (
    "buf is not installed",
    "promtool is not on the PATH",
    "prometheus is not on the PATH",
    "no mlflow with a server",
    "no etcd, kube-apiserver and kubectl",
    "no kube-controller-manager in",
    "no helm",
    "no versitygw in",
    "no KServe definition",
    "SEAL_TEST_CRDS names no folder",
    "the embedded model cannot be downloaded",
    "this kubernetes-validate has no schemas",
    "the holes are those of glibc",
    "no openssl",
    "there is no /dev/full",
    "there is no make",
)
"""Programs, files and machines of others, which `.ci/run` may not get: told, and no failure."""


def pytest_sessionfinish(session: pytest.Session) -> None:
    reporter = session.config.pluginmanager.get_plugin("terminalreporter")
    if reporter is None or not os.environ.get("SEAL_CI"):
        return  # without a reporter it is one of many workers
    others = [one for one in _reasons(reporter) if not one.startswith(ELSEWHERE + PERHAPS_ABSENT)]
    if others and session.exitstatus == pytest.ExitCode.OK:
        session.exitstatus = pytest.ExitCode.TESTS_FAILED


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter) -> None:
    if not os.environ.get("SEAL_CI"):
        return
    found = Counter(one for one in _reasons(terminalreporter) if not one.startswith(ELSEWHERE))
    if found:
        terminalreporter.section("NOT TESTED HERE", red=True)
    for reason, number in found.most_common():
        known = reason.startswith(PERHAPS_ABSENT)
        word = "absent" if known else "FAILURE, no skip that tests/support/ci_skips.py knows"
        terminalreporter.write_line(f"{number:>5} tests  {reason}  ({word})")


def _reasons(reporter: pytest.TerminalReporter) -> Iterator[str]:
    """Why tests were skipped, one reason a test."""
    for report in reporter.getreports("skipped"):
        if isinstance(report.longrepr, (tuple, list)):
            yield str(report.longrepr[2]).removeprefix("Skipped: ")
