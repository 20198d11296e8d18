"""The wire contract.

The generated code is what the .proto files say, and buf's STANDARD rules hold.
"""

from __future__ import annotations

import importlib.util
import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
PROTOS = sorted((ROOT / "proto" / "seal" / "v1").glob("*.proto"))
GENERATED = sorted(path.name for path in (ROOT / "seal" / "v1").glob("*_pb2*"))


def without_versions(text: str) -> str:
    """What does not depend on the patch release of the generator.

    Neither comments nor its version numbers.
    """
    lines = [line for line in text.splitlines() if not line.startswith("#")]
    return re.sub(r"\d+\.\d+\.\d+", "X", re.sub(r"(?m)^    \d+,$", "    N,", "\n".join(lines)))


@pytest.fixture(scope="module")
def fresh(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Code generated anew from proto/."""
    if importlib.util.find_spec("grpc_tools") is None:
        pytest.skip("grpcio-tools is not installed")
    out = tmp_path_factory.mktemp("generated")
    kinds = [
        f"--python_out={out}",
        f"--grpc_python_out={out}",
        f"--mypy_out=quiet:{out}",
        f"--mypy_grpc_out=quiet:{out}",
    ]
    command = [
        sys.executable,
        "-m",
        "grpc_tools.protoc",
        f"-I{ROOT / 'proto'}",
        *kinds,
        *map(str, PROTOS),
    ]
    path = f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}"
    done = subprocess.run(
        command, capture_output=True, text=True, env={**os.environ, "PATH": path}, check=False
    )
    assert done.returncode == 0, done.stderr
    return out / "seal" / "v1"


def test_there_is_generated_code_for_every_proto_and_no_other(fresh: Path) -> None:
    assert sorted(path.name for path in fresh.iterdir()) == GENERATED


@pytest.mark.parametrize("name", GENERATED)
def test_the_committed_code_is_what_the_protos_generate(fresh: Path, name: str) -> None:
    committed = (ROOT / "seal" / "v1" / name).read_text()
    assert without_versions(committed) == without_versions((fresh / name).read_text()), (
        "run `make proto` and commit what it changes"
    )


def test_the_generated_code_runs_on_the_pinned_runtime_line() -> None:
    for name in GENERATED:
        text = (ROOT / "seal" / "v1" / name).read_text()
        if name.endswith("_pb2_grpc.py"):
            assert re.search(r"GRPC_GENERATED_VERSION = '1\.78\.\d+'", text)
        if name.endswith("_pb2.py"):
            assert re.search(r"Protobuf Python Version: 6\.", text)


def test_buf_finds_nothing_to_say() -> None:
    buf = shutil.which("buf")
    command = [buf] if buf else [shutil.which("npx") or "", "--no-install", "@bufbuild/buf"]
    if (
        not command[0]
        or subprocess.run(
            [*command, "--version"], capture_output=True, cwd=ROOT, check=False
        ).returncode
        != 0
    ):
        pytest.skip("buf is not installed: put it on PATH, or npm install @bufbuild/buf")
    done = subprocess.run([*command, "lint"], capture_output=True, text=True, cwd=ROOT, check=False)
    assert done.returncode == 0, done.stdout
