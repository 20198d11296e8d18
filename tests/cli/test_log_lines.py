"""Lines of the command: what a log file holds, and how far the model is."""

from __future__ import annotations

import io
import json
import time

import pytest

from controller_svc.cli.logs import human_line
from controller_svc.cli.plan import _count
from controller_svc.cli.progress import Lines, time_left
from seal.telemetry import harmless


def test_what_a_caller_sent_begins_no_line_of_a_shown_log_and_steers_no_terminal() -> None:
    event = {
        "event": "refused\n",
        "level": "warning",
        "error": "x)\nerror: FORGED\x1b[2J\x00\x9b\u2028",
    }
    line = human_line(json.dumps(event, ensure_ascii=False))
    assert "FORGED" in line and line.isprintable()


def test_the_time_of_a_line_is_that_of_its_readers_clock(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TZ", "IST-5:30")
    time.tzset()
    try:
        event = {"event": "run_created", "timestamp": "2026-01-01T23:00:00.5Z"}
        assert human_line(json.dumps(event)) == "04:30:00 info: run created"
    finally:
        monkeypatch.undo()
        time.tzset()
    assert human_line('{"event": "run_created"}') == " info: run created"


def test_what_others_wrote_steers_no_terminal_and_keeps_its_lines() -> None:
    assert harmless("a\x1b[2J\x9b\r\n\tb\u2028") == "a\\x1b[2J\\x9b\\r\n\tb\\u2028"
    said = io.StringIO()
    Lines(stream=said).say("gate passed: \x1b]0;owned\x07")
    assert said.getvalue() == "gate passed: \\x1b]0;owned\\x07\n"


def test_a_time_that_is_left_is_no_finer_than_an_estimate() -> None:
    shown = [time_left(seconds).replace("\u00a0", " ") for seconds in (0.2, 4.7, 61.4, 601.0)]
    assert shown == [
        "about 1 s left",
        "about 5 s left",
        "about 1 min 01 s left",
        "about 10 min 00 s left",
    ]


@pytest.mark.parametrize(
    ("number", "shown"),
    [(0, "–"), (9_999, "9999"), (999_499, "999k"), (999_500, "1.0M"), (999_950_000, "1.0G")],
)
def test_a_rounded_count_goes_over_to_the_next_unit(number: int, shown: str) -> None:
    assert _count(number) == shown


@pytest.mark.parametrize(
    ("size_bytes", "shown"),
    [(0, ""), (400, ""), (49_999, ""), (50_000, "0.1"), (4_240_000, "4.2"), (93_400_000, "93")],
)
def test_a_size_is_told_with_the_digits_that_say_something_or_not_at_all(
    size_bytes: int, shown: str
) -> None:
    said = io.StringIO()
    Lines(stream=said).on_download("checking its weights", 0, size_bytes)
    of = f", {shown} MB" if shown else ""
    assert said.getvalue() == f"model: checking its weights{of}\n"
