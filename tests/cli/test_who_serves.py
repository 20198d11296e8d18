"""Who serves a root: this process, unless another one was faster."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any

import pytest
from command import seal
from fake_adaptations import FakeAdaptations
from front_door_on_fakes import install

from controller_svc.cli import serving
from controller_svc.cli.target import Target
from controller_svc.local.lock import Locked, run_lock
from seal.artifacts import ArtifactStore
from seal.errors import Conflict
from seal.settings import EngineSettings

LOCAL = serving.LocalServer(model="tiny", engine=EngineSettings(), offline=True)


def work(root: Path) -> None:
    """What a command does that works at adaptations."""
    target = Target(server="", namespace="default", root=str(root))
    with serving.working(target, LOCAL, say=lambda message: None, on_download=lambda *_: None):
        pass


@pytest.mark.parametrize("announced", [True, False])
def test_who_is_a_moment_too_late_to_serve_looks_who_was_faster(
    announced: bool, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    store = ArtifactStore(str(tmp_path))
    with ExitStack() as faster:

        @contextmanager
        def too_late(*_: object, **__: object) -> Iterator[None]:
            if announced:
                faster.enter_context(run_lock(store, serving.FOLDER))
                here = serving.Serving(address="unix:faster.sock", model="tiny", pid=os.getpid())
                store.write_json(serving.SERVING_FILE, here)
            raise Locked("run 'adaptations' is being run by process 1")
            yield

        monkeypatch.setattr(serving, "serve_here", too_late)
        with pytest.raises(serving.ServerGone):
            work(tmp_path)


def test_who_is_too_late_and_finds_nobody_any_more_serves_itself(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    fake, tries = FakeAdaptations(), []
    undo = install(fake)
    serve_here = serving.serve_here

    @contextmanager
    def late_once(*given: Any, **options: Any) -> Iterator[object]:
        tries.append(given)
        if len(tries) == 1:
            raise Locked("run 'adaptations' is being run by process 1")
        with serve_here(*given, **options) as server:
            yield server

    monkeypatch.setattr(serving, "serve_here", late_once)
    (tmp_path / "a.md").write_text("# A\n\nIt was built by Ann.\n")
    try:
        assert seal("adapt", str(tmp_path / "a.md"), "--root", str(tmp_path / "root")) == 0
    finally:
        undo()
    assert len(tries) == 2


def test_a_command_to_copy_names_the_root_unless_it_takes_the_same_without(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    usual = Target(server="", namespace="", root="seal-runs")
    monkeypatch.delenv("SEAL_ROOT", raising=False)
    assert usual.reach == ""
    assert Target(server="", namespace="", root="my runs").reach == "--root 'my runs'"
    monkeypatch.setenv("SEAL_ROOT", "/elsewhere")
    assert usual.reach == "--root seal-runs"


def test_another_conflict_is_the_commands_own_error(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    @contextmanager
    def refusing(*_: object, **__: object) -> Iterator[None]:
        raise Conflict("something else")
        yield

    monkeypatch.setattr(serving, "serve_here", refusing)
    with pytest.raises(Conflict, match="something else"):
        work(tmp_path)


def test_a_second_server_of_a_root_is_told_where_the_first_one_is(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    store = ArtifactStore(str(tmp_path))
    with run_lock(store, serving.FOLDER):
        here = serving.Serving(address="localhost:50051", model="tiny", pid=os.getpid())
        store.write_json(serving.SERVING_FILE, here)
        assert seal("serve", "--root", str(tmp_path)) == 2
    said = capsys.readouterr().err
    assert f"process {os.getpid()} serves {tmp_path} already, at localhost:50051" in said
    assert "use that one with --server localhost:50051" in said
