"""`seal serve`: this process serves until it is stopped."""

from __future__ import annotations

from controller_svc.cli.adapting import Showing
from controller_svc.cli.messages import program
from controller_svc.cli.reporting import shown
from controller_svc.cli.serving import LocalServer, serve_here
from controller_svc.cli.stopping import say_stopping
from seal.artifacts import ArtifactStore


def serve_until_stopped(root: str, local: LocalServer, *, showing: Showing) -> None:
    """Serve until Ctrl-C or SIGTERM, then end in order.

    Raises what keeps it from serving, or has ended it.
    """
    store = ArtifactStore(root)
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
