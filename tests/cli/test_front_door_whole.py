"""`seal adapt` and `seal serve` with a real, tiny model: killed midway, they come to the same."""

from __future__ import annotations

import json
import os
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import numpy as np
import pytest
from numpy.typing import NDArray
from s3_server import S3Server
from safetensors.numpy import load_file
from tiny_model import save_tiny_model

NOTE = """# Veldra

The lighthouse of Veldra was built by Ama Torrin in 1907. Its lamp burns seal oil.

## Keepers

The keeper of Veldra is the youngest member of the fishers' guild, which has forty members.
"""
QUESTIONS = {
    "Who built the lighthouse of Veldra?": "Ama Torrin",
    "When was it built?": "1907",
    "What does the lamp burn?": "seal oil",
    "Who is the keeper?": "the youngest member",
    "How many members has the guild?": "forty",
}
ADAPT = ["adapt", "note.md", "--questions", "questions.jsonl", "--name", "veldra"]
HERE = ["--model", "model", "--engine", "dtype=float32", "--engine", "slots=2"]


@pytest.fixture
def place(tmp_path: Path) -> Path:
    save_tiny_model(tmp_path / "model")
    (tmp_path / "note.md").write_text(NOTE)
    rows = [json.dumps({"question": one, "answer": gold}) for one, gold in QUESTIONS.items()]
    (tmp_path / "questions.jsonl").write_text("\n".join(rows))
    return tmp_path


@contextmanager
def started(place: Path, *arguments: str) -> Iterator[subprocess.Popen[str]]:
    """The real command in a process of its own; killed at the end, if it still lives."""
    process = subprocess.Popen(
        [sys.executable, "-c", "from controller_svc.cli import main; main()", *arguments],
        cwd=place,
        env=os.environ | {"PYTHONPATH": os.pathsep.join(sys.path)},
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )
    try:
        yield process
    finally:
        if process.poll() is None:
            process.kill()
            process.communicate()


def until(process: subprocess.Popen[str], words: str) -> None:
    assert process.stderr is not None
    seen = []
    for line in process.stderr:
        seen.append(line)
        if words in line:
            return
    raise AssertionError(f"it ended without {words!r}: {seen}")


Weights = dict[str, NDArray[np.float32]]
ROUNDING = 1e-5
"""The last bits of a sum depend on who shares a batch, in which slots. Initial weights of another
seed differ by a hundred thousand times as much."""


def result(
    process: subprocess.Popen[str], root: Path
) -> tuple[dict[str, dict[str, object]], Weights]:
    """What came out: the numbers, and the weights."""
    out, err = process.communicate(timeout=200)
    assert process.returncode == 42, err  # a random model learns nothing that the gate lets pass
    told = json.loads(out)
    assert told["state"] == "Refused" and told["gate"]["reason"] == "GainUncertain"
    weights = root / told["adapter"]["path"] / "adapter_model.safetensors"
    return {name: told[name] for name in ("evaluation", "gate", "counts")}, load_file(weights)


def check_same_weights(one: Weights, other: Weights) -> None:
    assert one.keys() == other.keys()
    for name, values in one.items():
        np.testing.assert_allclose(values, other[name], rtol=0, atol=ROUNDING, err_msg=name)


def free_address() -> str:
    with socket.socket() as probe:
        probe.bind(("localhost", 0))
        return f"localhost:{probe.getsockname()[1]}"


def test_killed_midway_command_and_server_come_back_to_the_same_adapter(place: Path) -> None:
    arguments = [*ADAPT, "--candidates", "1", *HERE, "--root", "alone", "--output", "json"]
    with started(place, *arguments) as process:
        until(process, "edits tried")
        process.send_signal(signal.SIGKILL)
        process.communicate()
    with started(place, *arguments) as process:
        until(process, "going on where it is")
        alone, weights = result(process, place / "alone")

    address = free_address()
    serving = ["serve", "--address", address, *HERE, "--root", "served"]
    handing_in = [*ADAPT, "--candidates", "1", "--server", address, "--output", "json"]
    with started(place, *serving) as server:
        until(server, "serving model on")
        with started(place, *handing_in) as client:
            until(client, "in 2 passages")
            server.send_signal(signal.SIGKILL)
            server.communicate()
            with started(place, *serving) as next_server:
                served, others = result(client, place / "served")
                assert served == alone
                check_same_weights(others, weights)
                next_server.send_signal(signal.SIGTERM)
                next_server.communicate(timeout=200)
                assert next_server.returncode == 0


def test_an_adaptation_on_s3_outlives_its_server_and_comes_to_what_it_does_on_a_disk(
    place: Path, running_s3: S3Server, s3_root: str
) -> None:
    arguments = [*ADAPT, "--candidates", "1", *HERE, "--output", "json", "--root"]
    with started(place, *arguments, "alone") as process:
        alone, weights = result(process, place / "alone")
    with started(place, *arguments, s3_root) as process:
        until(process, "in 2 passages")
        running_s3.kill()
        time.sleep(1)
        running_s3.start()
        bucket = running_s3.bucket_directory / s3_root.rpartition("/")[2]
        told, others = result(process, bucket)
    assert told == alone
    check_same_weights(others, weights)
