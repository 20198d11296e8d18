"""The examples of a client: one on gRPC alone, and a notebook on ours."""

from __future__ import annotations

import ast
import json
import runpy
from itertools import pairwise
from pathlib import Path

import pytest
from fake_adaptations import FILES, FakeAdaptations, serve_in_thread

EXAMPLES = Path(__file__).parents[2] / "examples"
CLIENT, NOTEBOOK = EXAMPLES / "adapt_plain_grpc.py", EXAMPLES / "adapt.ipynb"


def test_the_plain_client_watches_over_lost_connections_and_gets_the_adapter(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("time.sleep", lambda seconds: None)
    (tmp_path / "note.md").write_text("The lighthouse of Veldra was built by Ama Torrin.")
    main = runpy.run_path(str(CLIENT))["main"]
    fake = FakeAdaptations(drops=[0, 2, 3])
    with serve_in_thread(fake) as server:
        for directory in ("first", "again"):
            main(
                [str(tmp_path / "note.md")],
                server=server.address,
                directory=str(tmp_path / directory),
            )
    assert {path.name: path.read_bytes() for path in (tmp_path / "first").iterdir()} == FILES
    assert len(fake.jobs) == 1, "the same documents again find the same adaptation"
    said = capsys.readouterr().out
    assert said.count("1 accepted") == 2 and "found again" in said
    lines = said.splitlines()
    assert not [one for one, after in pairwise(lines) if one == after], "progress is said once"
    assert "12 held-out questions (self-made questions)" in said
    assert "gate: passed" in said


def test_the_plain_client_imports_nothing_of_this_project_but_the_stubs() -> None:
    tree = ast.parse(CLIENT.read_text())
    modules = {node.module for node in ast.walk(tree) if isinstance(node, ast.ImportFrom)}
    assert {name for name in modules if name and name.startswith("seal")} == {"seal.v1"}


def test_the_cells_of_the_notebook_run_one_after_another(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    cells = json.loads(NOTEBOOK.read_text())["cells"]
    code = ["".join(cell["source"]) for cell in cells if cell["cell_type"] == "code"]
    monkeypatch.chdir(tmp_path)
    with serve_in_thread(FakeAdaptations()) as server:
        monkeypatch.setenv("SEAL_SERVER", server.address)
        names: dict[str, object] = {}
        for number, source in enumerate(code):
            exec(compile(source, f"cell {number}", "exec"), names)
    said = capsys.readouterr().out
    assert "veldra accepted" in said
    assert "12 held-out questions (given)" in said
    assert str(sorted(FILES)) in said


def test_the_notebook_is_kept_without_output() -> None:
    cells = json.loads(NOTEBOOK.read_text())["cells"]
    assert all(not cell.get("outputs") for cell in cells)
