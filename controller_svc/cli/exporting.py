"""`seal export`: an adapter as a PEFT directory, or merged into its base model."""

from __future__ import annotations

import json
import shutil
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import typer

from controller_svc.cli.references import AdapterDirectory, NamedAdaptation, parse_reference
from controller_svc.cli.resolving import adapter_of
from controller_svc.cli.roots import existing_store
from controller_svc.cli.serving import View, look
from controller_svc.cli.target import Target
from seal.client.transfers import check_new, new_directory
from seal.errors import InvalidInput
from seal.files import file_errors
from seal.records import AdapterReference

ARGUMENT = "ADAPTER"
"""What the reference is called on the command line."""


@dataclass(frozen=True, kw_only=True)
class Export:
    """What is to be written, as the command line says."""

    reference: str
    directory: Path
    """Must not exist yet."""
    merged: bool
    """Base and adapter in one, a whole model."""
    model: str
    """Base model to merge into; empty for the adapter's own."""
    offline: bool
    as_json: bool


def export_adapter(export: Export, *, target: Target) -> None:
    """Write an adapter, or the model that it makes of its base, into a new directory.

    Raises:
        NotFound: there is no such adaptation or adapter.
        Conflict: there is such a directory.
        InvalidInput: the reference is none, or the adapter belongs to another model.
        PreconditionFailed: the adaptation has no adapter.
    """
    check_new(export.directory)
    found = parse_reference(export.reference, option=ARGUMENT)
    if isinstance(found, NamedAdaptation):
        found = adapter_of(found.name, target, option=ARGUMENT)
    if export.merged:
        with _adapter_files(found, target) as files:
            model = _merge(files, export)
        facts = {"directory": str(export.directory.absolute()), "model": model}
        told = f"{model} with the adapter merged in is in {export.directory}"
    else:
        if isinstance(found, AdapterDirectory):
            raise InvalidInput(
                f"{found.path} is a directory of an adapter already",
                field=ARGUMENT,
                remedy="use it as it is, or add --merged",
            )
        _fetch(found, export.directory, target)
        facts = {"directory": str(export.directory.absolute()), "sha256": found.sha256}
        told = f"the adapter is in {export.directory}; PEFT and vLLM load it from there"
    typer.echo(json.dumps(facts, indent=2, ensure_ascii=False) if export.as_json else told)


def _fetch(adapter: AdapterReference, directory: Path, target: Target) -> None:
    """From the server, or straight from the store of this machine."""
    if target.server:

        def download(view: View) -> None:
            view.client.download(adapter, directory)

        look(target, download)
        return
    store = existing_store(target.root)
    with (
        store.fetch_directory(adapter) as source,
        new_directory(directory) as temporary,
        file_errors(directory),
    ):
        for file in sorted(source.iterdir()):
            shutil.copyfile(file, temporary / file.name)


@contextmanager
def _adapter_files(adapter: AdapterReference | AdapterDirectory, target: Target) -> Iterator[Path]:
    if isinstance(adapter, AdapterDirectory):
        yield adapter.path
        return
    with tempfile.TemporaryDirectory(prefix="seal-") as temporary:
        files = Path(temporary) / "adapter"
        _fetch(adapter, files, target)
        yield files


def _merge(files: Path, export: Export) -> str:
    """Merge an adapter into its base model; gives the model's name."""
    from seal.engine import load_adapter  # loads torch
    from seal.engine.merge import merge_adapter
    from seal.models import resolve_model

    name = export.model or load_adapter(files).base.name
    model = resolve_model(name, offline=export.offline)
    merge_adapter(model.path, files, export.directory, base=model.base)
    return model.name
