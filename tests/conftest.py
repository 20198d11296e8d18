"""What all tests share.

Ctrl-C does what it does in a terminal, wherever they are started. Installations, the longest, begin
first, so that no worker is left alone with one. A test that tries many cases says how many
(`record_property("n", ...)`) at the end.
"""

from __future__ import annotations

import signal

import ci_skips
import pytest
from hypothesis import settings
from s3_server import closed_port, running_s3, s3_root

# One server a process: a client of fsspec's lives as long, and knows the first that it was told of
__all__ = ["closed_port", "running_s3", "s3_root"]

# A shell has what it starts in the background ignore Ctrl-C, and so do the children of that
if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:
    signal.signal(signal.SIGINT, signal.default_int_handler)

# How long one case takes says how busy a machine is, and nothing of the rule that it tries
settings.register_profile("seal", deadline=None)
settings.load_profile("seal")


def pytest_configure(config: pytest.Config) -> None:
    config.pluginmanager.register(ci_skips, "ci_skips")


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    items.sort(key=lambda item: item.get_closest_marker("install") is None)


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter) -> None:
    counted = [
        (report.nodeid, value)
        for report in terminalreporter.getreports("passed")
        if report.when == "call"
        for name, value in report.user_properties
        if name == "n"
    ]
    if counted:
        terminalreporter.section("cases tried")
    for test, number in counted:
        terminalreporter.write_line(f"n = {number:>6}  {test}")
