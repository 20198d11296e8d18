"""Who serves a root: this process, unless another one was faster."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path

import pytest

from controller_svc.cli import serving
from controller_svc.cli.target import Target
from controller_svc.local.lock import run_lock
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
            raise Conflict("run 'adaptations' is being run by process 1")
            yield

        monkeypatch.setattr(serving, "serve_here", too_late)
        with pytest.raises(serving.ServerGone if announced else Conflict):
            work(tmp_path)
