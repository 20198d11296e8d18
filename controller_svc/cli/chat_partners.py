"""Where both models of a chat come from: a server, or this process."""

from __future__ import annotations

import tempfile
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path

from controller_svc.adaptations import DEFAULT_NAMESPACE
from controller_svc.cli.messages import program
from controller_svc.cli.references import AdapterDirectory, NamedAdaptation
from controller_svc.cli.roots import existing_store, shown
from controller_svc.cli.target import Target
from controller_svc.cli.typed import as_typed
from controller_svc.local.objects import Objects
from seal.artifacts import ArtifactStore
from seal.errors import InvalidInput, NotFound, PreconditionFailed
from seal.records import AdapterReference
from seal.rpc.client import open_channel
from seal.settings import EngineSettings, QuestionFormat
from seal.v1 import generator_pb2_grpc

Reference = AdapterReference | AdapterDirectory | NamedAdaptation
OnDownload = Callable[[str, int, int], None]
OPTION = "--adapter"


@dataclass(frozen=True, kw_only=True)
class Partners:
    """Who answers."""

    generator: generator_pb2_grpc.GeneratorServiceAsyncStub
    adapter: AdapterReference
    format: QuestionFormat = "few-shot"
    """How the adapter's evaluation asked, where that is known."""


@asynccontextmanager
async def partners_on(target: Target, reference: Reference) -> AsyncIterator[Partners]:
    """Both models of a server.

    Raises InvalidInput for a directory, which the server does not see, and as `_of_adaptation`.
    """
    if isinstance(reference, AdapterDirectory):
        raise InvalidInput(
            f"{OPTION} {reference.path} is a directory of this machine, which {target.server} does "
            "not see",
            field=OPTION,
            remedy="name an adapter of the server's store or an adaptation, or leave out --server",
        )
    with as_typed():
        if isinstance(reference, NamedAdaptation):
            from seal.client import AsyncClient, ClientOptions

            options = ClientOptions(namespace=target.namespace)
            async with AsyncClient(target.server, options=options) as client:
                found = (await client.get(reference.name)).adapter
            reference = _trained(reference, found, target)
        async with open_channel(target.server) as channel:
            yield Partners(
                generator=generator_pb2_grpc.GeneratorServiceStub(channel), adapter=reference
            )


@asynccontextmanager
async def partners_here(
    target: Target,
    reference: Reference,
    *,
    model: str,
    engine: EngineSettings,
    offline: bool,
    on_download: OnDownload,
) -> AsyncIterator[Partners]:
    """Both models in this process. `model`: the base model; empty: the adapter's own.

    Raises InvalidInput if the adapter is not of this model, NotFound if there is none, and what
    keeps the model from loading.
    """
    root, format = target.root, Partners.format
    if not isinstance(reference, AdapterDirectory):
        existing_store(root)  # before anything is loaded
    from controller_svc.local.services import local_services  # loads torch
    from seal.engine import load_adapter, save_adapter

    with tempfile.TemporaryDirectory(prefix="seal-chat-") as scratch:
        if isinstance(reference, AdapterDirectory):
            adapter = load_adapter(reference.path)
            root = f"{scratch}/store"
            save_adapter(adapter, Path(scratch, "adapter"))  # without what else lies beside it
            store = ArtifactStore(root)
            stored = store.publish_directory(Path(scratch, "adapter"), "adapters")
        else:
            store = ArtifactStore(root)
            if isinstance(reference, NamedAdaptation):
                stored, format = _of_adaptation(store, reference, target)
            else:
                stored = reference
            with store.fetch_directory(stored) as directory:
                adapter = load_adapter(directory)
        async with local_services(
            model or adapter.base.name,
            root=root,
            engine=engine.model_copy(update={"slots": 0}),  # nothing is trained
            offline=offline,
            on_download=on_download,
        ) as services:
            if not adapter.base.same_as(services.engine.base):
                raise InvalidInput(
                    f"the adapter was trained on base model {adapter.base}, loaded is "
                    f"{services.engine.base}",
                    field="--model",
                    remedy="name the model that it was trained on",
                )
            async with open_channel(services.addresses.generator) as channel:
                yield Partners(
                    generator=generator_pb2_grpc.GeneratorServiceStub(channel),
                    adapter=stored,
                    format=format,
                )


def _of_adaptation(
    store: ArtifactStore, named: NamedAdaptation, target: Target
) -> tuple[AdapterReference, QuestionFormat]:
    """The adapter of an adaptation in a store of this machine, and how it was asked."""
    objects = Objects(store)
    try:
        one = objects.read((target.namespace or DEFAULT_NAMESPACE, named.name))
        adaptation = objects.status(one).adaptation
    except NotFound as error:
        raise NotFound(
            f"there is no adaptation {named.name!r} in {shown(store.root_uri)}",
            field=OPTION,
            remedy="check its name, --namespace and --root, or name the --server that keeps it",
        ) from error
    result = adaptation.result if adaptation is not None else None
    adapter = _trained(named, result.adapter if result is not None else None, target)
    return adapter, one.manifest.spec.evaluation.question_format


def _trained(
    named: NamedAdaptation, adapter: AdapterReference | None, target: Target
) -> AdapterReference:
    if adapter is None:
        at = f" {target.reach}" if target.reach else ""
        raise PreconditionFailed(
            f"adaptation {named.name!r} has no adapter",
            field=OPTION,
            remedy=f"see how it is:  {program()} get {named.name}{at}",
        )
    return adapter
