"""The manifest that a run or an adaptation is pinned to, as the store has it."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Annotated

from pydantic import Field, RootModel

from seal.artifacts import ArtifactStore
from seal.errors import AccessDenied, Transient
from seal.resources import Adaptation, RestEMRun
from seal.runs.store import in_thread, manifest_path
from seal.settings import Spec


class Manifest(RootModel[Annotated[RestEMRun | Adaptation, Field(discriminator="kind")]]):
    """A manifest of either kind."""


async def read_spec(store: ArtifactStore, run: str) -> Spec:
    """What a run or an adaptation is to do. `run`: what it is called in the store.

    Raises:
        NotFound: there is none of this name.
        Internal: the file is damaged.
        Transient: the store is away.

    """
    return (await in_thread(store.read_json, manifest_path(run), Manifest)).root.spec


@contextmanager
def let_in() -> Iterator[None]:
    """What a process of a stage does once the store has let it read the manifest.

    Raises:
        Transient: in place of AccessDenied. The key was changed since, and the next pod has the new
            one.

    """
    try:
        yield
    except AccessDenied as error:
        raise Transient(
            f"{error.message}, though the manifest could be read: the credentials were changed "
            "since, or may not write",
            remedy=f"the next attempt takes those of its pod; if they are denied, too: "
            f"{error.remedy}",
        ) from error
