"""The command `seal` in this process, as its tests run it."""

from __future__ import annotations

import sys

import pytest

from controller_svc.cli import main

HEAD = """
apiVersion: seal.dev/v1alpha1
kind: RestEMRun
metadata: {name: tiny}
"""
MANIFEST = f"""{HEAD}
spec:
  rounds: 1
  edit: {{k: 2, family: implications}}
  inner: {{repeats: 1, optimizer: {{epochs: 1}}}}
  improve: {{credit: edit}}
  validation: {{retainedQueries: 1, goldBound: false}}
"""
VALIDATION = ["--validation", "validation.jsonl"]
RUN = ["run", "tiny.yaml", "--dataset", "train.jsonl", *VALIDATION]


def seal(*arguments: str, monkeypatch: pytest.MonkeyPatch | None = None) -> int:
    """Exit code of a command in this process."""
    if monkeypatch is not None:
        monkeypatch.setattr(sys, "argv", ["seal", *arguments])
    with pytest.raises(SystemExit) as end:
        main(arguments)
    return int(end.value.code or 0)


def one_line(text: str) -> str:
    return " ".join(text.split())
