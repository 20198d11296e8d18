"""A release on a real cluster: how its commands are called, and who talks to it."""

from __future__ import annotations

import json
import os
import shlex
import subprocess
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

REPOSITORY = Path(__file__).resolve().parents[2]
SERVICES = ("generator", "trainer", "evaluator")
COMMAND_SECONDS = 120


@dataclass(frozen=True)
class Release:
    """An installed release, and who talks to its cluster."""

    namespace: str

    def kubectl(self, *arguments: str, stdin: str | None = None) -> str:
        """What kubectl prints about the release's namespace."""
        return call(["kubectl", "-n", self.namespace, *arguments], stdin=stdin)

    def get(self, *arguments: str) -> Any:
        """Objects as the API server has them."""
        return json.loads(self.kubectl("get", *arguments, "-o", "json"))


def call(
    command: Sequence[str], *, stdin: str | None = None, seconds: float = COMMAND_SECONDS
) -> str:
    """What a command prints; a failure shows all that it said."""
    done = subprocess.run(
        command,
        input=stdin,
        capture_output=True,
        text=True,
        timeout=seconds,
        check=False,
        cwd=REPOSITORY,
    )
    assert done.returncode == 0, f"{shlex.join(command)}\n{done.stdout}{done.stderr}"
    return done.stdout


def told(variable: str, default: str, **values: str) -> list[str]:
    """The command that a variable names; empty for none."""
    return [part.format(**values) for part in shlex.split(os.environ.get(variable, default))]
