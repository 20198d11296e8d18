"""The adapter that an adaptation has come to."""

from __future__ import annotations

from controller_svc.cli.messages import program
from controller_svc.cli.serving import look
from controller_svc.cli.target import Target
from seal.errors import NotFound, PreconditionFailed
from seal.records import AdapterReference


def adapter_of(name: str, target: Target, *, option: str) -> AdapterReference:
    """The adapter of an adaptation, published or refused.

    Raises:
        NotFound: there is no such adaptation; names `option`.
        PreconditionFailed: it has no adapter, or none yet; names `option`.

    """
    try:
        adaptation = look(target, lambda view: view.client.get(name))
    except NotFound as error:
        if error.field == "--root":
            raise
        raise NotFound(
            f"there is no adaptation {name!r} at {target.server or target.root}",
            field=option,
            remedy=f"see which there are:  {program()} list; --server and --root say where",
        ) from error
    if adaptation.adapter is None:
        at = f" {target.reach}" if target.reach else ""
        raise PreconditionFailed(
            f"{name} has no adapter: it is {adaptation.state.lower()}",
            field=option,
            remedy=f"see how it is:  {program()} get {name}{at}",
        )
    return adaptation.adapter
