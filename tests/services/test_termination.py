"""What a pod's process says at its end, as the controller reads it."""

from __future__ import annotations

from pathlib import Path

import pytest

from seal.errors import Exhausted, Internal, InvalidInput, SealError, Superseded
from seal.termination import (
    MAX_BYTES,
    VARIABLE,
    Termination,
    failure_of,
    read_termination,
    write_termination,
)


@pytest.mark.parametrize(
    ("error", "code", "reason", "permanent"),
    [
        (InvalidInput("wrong", field="spec.seed", remedy="mend it"), 2, "InvalidInput", True),
        (Internal("broken"), 42, "Internal", True),
        (Exhausted("full", retry_after_seconds=30.0), 43, "Exhausted", False),
        (Superseded("older"), 2, "Superseded", False),
    ],
)
def test_an_error_is_read_as_it_was_written(
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    error: SealError,
    code: int,
    reason: str,
    permanent: bool,
) -> None:
    monkeypatch.setenv(VARIABLE, str(tmp_path / "log"))
    write_termination(failure_of(error))
    read = read_termination((tmp_path / "log").read_text())
    assert read == failure_of(error)
    assert (read.exit_code, read.reason, read.permanent) == (code, reason, permanent)
    assert (read.message, read.retry_after_seconds) == (str(error), error.retry_after_seconds)


def test_no_message_is_longer_than_kubernetes_keeps(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv(VARIABLE, str(tmp_path / "log"))
    for text in ("\x01" * 9000, "ß" * 9000):
        write_termination(failure_of(InvalidInput(text, field=text, remedy=text)))
        assert len((tmp_path / "log").read_bytes()) <= MAX_BYTES
        assert read_termination((tmp_path / "log").read_text()) is not None


@pytest.mark.parametrize("text", ["", "Killed", "{", '{"outcome": "danced"}', "[1]", '{"a": 1}\nx'])
def test_a_message_of_something_else_is_none_of_ours(text: str) -> None:
    assert read_termination(text) is None


def test_the_last_log_line_of_a_process_that_wrote_no_message_is_enough() -> None:
    line = '{"event": "the process ends", "message": "bad", "remedy": "mend it", "reason": '
    line += '"InvalidInput", "exit_code": 2, "field": "seed", "level": "error"}'
    read = read_termination(f'{{"event": "task started"}}\n{line}\n')
    assert read == Termination(
        outcome="failed", exit_code=2, reason="InvalidInput", message="bad; mend it", field="seed"
    )


def test_a_file_that_cannot_be_written_changes_nothing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv(VARIABLE, str(tmp_path / "absent" / "log"))
    write_termination(Termination(outcome="done", exit_code=0))
