"""`seal serve`: this process serves until it is stopped."""

from __future__ import annotations

from controller_svc.cli.adapting import Showing
from controller_svc.cli.messages import program
from controller_svc.cli.roots import shown
from controller_svc.cli.serving import LocalServer, serve_here, serving_now
from controller_svc.cli.stopping import say_stopping
from seal.artifacts import ArtifactStore
from seal.errors import Conflict


def serve_until_stopped(root: str, local: LocalServer, *, showing: Showing) -> None:
    """Serve until Ctrl-C or SIGTERM, then end in order.

    Raises what keeps it from serving, or has ended it.
    """
    store = ArtifactStore(root)
    _check_alone(store)
    try:
        with (
            showing.screen() as screen,
            serve_here(store, local, on_download=screen.on_download) as server,
        ):
            screen.ready()
            screen.say(
                f"serving {local.model} on {server.address}; what comes of it is kept in "
                f"{shown(store.root_uri)}"
            )
            screen.say(
                f"hand in documents with:  {program()} adapt FILE... --server {server.address}"
            )
            try:
                server.wait()
            except KeyboardInterrupt:
                say_stopping(screen.say)
    except KeyboardInterrupt:  # before it was up: nothing to end
        return


def _check_alone(store: ArtifactStore) -> None:
    """Refuse a root that another process serves, before anything is loaded."""
    if (serving := serving_now(store)) is not None:
        raise Conflict(
            f"process {serving.pid} serves {shown(store.root_uri)} already, at {serving.address}",
            field="--root",
            remedy=f"use that one with --server {serving.address}, stop it, or name another --root",
        )
