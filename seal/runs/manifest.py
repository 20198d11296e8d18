"""The manifest that a run or an adaptation is pinned to, as the store has it."""

from __future__ import annotations

from typing import Annotated

from pydantic import Field, RootModel

from seal.artifacts import ArtifactStore
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
