"""`seal delete`: adaptations with their results, once it is certain that this is meant."""

from __future__ import annotations

import json
import sys
from collections.abc import Sequence

import typer

from controller_svc.cli.serving import View, look
from controller_svc.cli.target import Target
from seal.errors import InvalidInput


def confirm_and_delete(
    names: Sequence[str], *, target: Target, keep_adapters: bool, yes: bool, as_json: bool
) -> None:
    """Delete adaptations, and say so: a line for each, or all of them as JSON.

    Raises:
        NotFound: there is no such adaptation; nothing is deleted then.
        InvalidInput: there is nobody to ask, and no --yes.
    """
    names = tuple(dict.fromkeys(names))
    uids = look(target, lambda view: {name: view.client.get(name).uid for name in names})
    if not yes:
        if not sys.stdin.isatty():
            raise InvalidInput(
                f"deleting {', '.join(names)} has to be confirmed",
                field="--yes",
                remedy="add --yes",
            )
        kept = "; adapters stay" if keep_adapters else ", adapters included"
        question = f"Delete {', '.join(names)} with all results{kept}?"
        typer.confirm(question, abort=True, err=True)

    def delete(view: View) -> None:
        for name, uid in list(uids.items()):
            view.client.delete(name, uid=uid, keep_adapters=keep_adapters)
            del uids[name]  # done, also where another process has to go on
            if not as_json:
                typer.echo(f"deleted {name}")

    look(target, delete)
    if as_json:
        typer.echo(json.dumps({"deleted": list(names)}, ensure_ascii=False))
