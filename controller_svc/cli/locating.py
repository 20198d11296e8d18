"""Which run is meant: by a name below a root, or by its directory or URI."""

from __future__ import annotations

from pathlib import Path
from urllib.parse import unquote

from controller_svc.cli.roots import existing_store
from controller_svc.cli.runs import is_name, require_name, require_run
from seal.artifacts import ArtifactStore
from seal.errors import NotFound
from seal.files import file_errors, given_path
from seal.runs.store import manifest_path

NAME_A_RUN = "give its name (see `seal list`), or the directory that `seal run` named at its end"


def locate_run(run: str, *, root: str) -> tuple[ArtifactStore, str]:
    """The store and the name of a run: by its name below `root`, or by its directory or URI.

    Raises:
        NotFound: there is no such run; the message lists runs of similar names, or those that lie
            below the directory.
        InvalidInput: nothing can have such a name.
    """
    require_name(run)
    if is_name(run):
        with file_errors(run):
            is_here = Path(run).is_dir()
        store = ArtifactStore(root) if is_here else existing_store(root)
        if not is_here:
            require_run(store, run)
        if store.exists(manifest_path(run)):
            return store, run
    return _run_in(run)


def _run_in(directory: str) -> tuple[ArtifactStore, str]:
    plain = directory.rstrip("/")
    uri = plain if "://" in plain else given_path(plain or "/", field="RUN").as_uri()
    root, _, name = uri.rpartition("/")
    name = unquote(name) if uri.startswith("file://") else name
    if root in ("", "file://"):
        raise NotFound(f"{directory} holds no run", remedy=NAME_A_RUN)
    store = ArtifactStore(root)
    if not store.exists(f"{name}/run.json"):
        runs = [path.split("/")[-2] for path in _specs_below(store, name)]
        near = f"did you mean {directory.rstrip('/')}/{runs[0]}?" if runs else NAME_A_RUN
        raise NotFound(f"{directory} holds no run: there is no run.json in it", remedy=near)
    return store, name


def _specs_below(store: ArtifactStore, name: str) -> list[str]:
    return [
        path
        for path in store.list(name)
        if path.count("/") == name.count("/") + 2 and path.endswith("/run.json")
    ]
