"""How the command shows what a log file holds."""

from __future__ import annotations

import json

from controller_svc.cli.logs import human_line


def test_what_a_caller_sent_begins_no_line_of_a_shown_log_and_steers_no_terminal() -> None:
    event = {"event": "refused\n", "level": "warning", "error": "x)\nerror: FORGED\x1b[2J\x00\x9b"}
    line = human_line(json.dumps(event, ensure_ascii=False))
    assert "FORGED" in line and line.isprintable()
