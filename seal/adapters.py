"""Adapters in memory by reference, shared by three services and many calls.

Nobody reads the same directory again and again. A policy is used by every call of a round, so it is
fetched, verified and parsed once; an inner adapter usually once. Concurrent callers of one
reference wait for one load. Least recently used adapters leave first.
"""

from __future__ import annotations

import asyncio
from collections import OrderedDict
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING

from seal.engine import Adapter, load_adapter
from seal.errors import InvalidInput
from seal.records import AdapterReference

if TYPE_CHECKING:
    from seal.artifacts import ArtifactStore
    from seal.bases import BaseReference

CAPACITY = 16
"""Adapters kept."""


class AdapterCache:
    """Loaded adapters by reference; belongs to one event loop."""

    def __init__(
        self,
        store: ArtifactStore,
        *,
        base: BaseReference,
        load: Callable[[Path], Adapter] = load_adapter,
    ) -> None:
        """`base`: the engine's base model; adapters of another are refused.

        `load` reads a PEFT directory.
        """
        self._store = store
        self.base = base
        self._load = load
        self._loads: OrderedDict[AdapterReference, asyncio.Task[Adapter]] = OrderedDict()

    async def get(self, reference: AdapterReference, *, field: str) -> Adapter:
        """Adapter of `reference`, its files verified against the digest when it is first read.

        Raises InvalidInput naming both bases if it was trained on another model, and what the store
        and the reader raise.
        """
        adapter = await asyncio.shield(self._loading(reference))
        if not adapter.base.same_as(self.base):
            raise InvalidInput(
                f"{field}: adapter {reference.sha256[:12]} was trained on base model "
                f"{adapter.base}, this service has loaded {self.base}",
                field=field,
                remedy=f"use an adapter trained on {self.base.name!r}, or call a service that has "
                f"loaded {adapter.base.name!r}",
            )
        return adapter

    def check_base(self, asked: BaseReference) -> None:
        """Raise InvalidInput naming both bases if `asked` is not the loaded one.

        A digest is compared where it is given; then the name is for people.
        """
        if asked.same_as(self.base):
            return
        if asked.sha256 and self.base.sha256:
            raise InvalidInput(
                f"policy.base_sha256: asked for base model {asked.name!r} with weights "
                f"{asked.sha256}, this service has loaded {self.base.name!r} with weights "
                f"{self.base.sha256}",
                field="policy.base_sha256",
                remedy="call a service that has loaded these weights",
            )
        raise InvalidInput(
            f"policy.base_model: asked for base model {asked.name!r}, this service has loaded "
            f"{self.base.name!r}",
            field="policy.base_model",
            remedy=f"ask for {self.base.name!r}, or call a service that has loaded {asked.name!r}",
        )

    def _loading(self, reference: AdapterReference) -> asyncio.Task[Adapter]:
        digest = reference.sha256
        if (loading := self._loads.get(reference)) is None:
            loading = asyncio.create_task(
                asyncio.to_thread(self._fetch, reference), name=f"load adapter {digest[:12]}"
            )
            loading.add_done_callback(lambda done: self._forget_failed(reference, done))
            self._loads[reference] = loading
            while len(self._loads) > CAPACITY:
                self._loads.popitem(last=False)
        self._loads.move_to_end(reference)
        return loading

    def _fetch(self, reference: AdapterReference) -> Adapter:
        with self._store.fetch_directory(reference) as directory:
            return self._load(directory)

    def _forget_failed(self, reference: AdapterReference, done: asyncio.Task[Adapter]) -> None:
        if (done.cancelled() or done.exception() is not None) and self._loads.get(
            reference
        ) is done:
            del self._loads[reference]
