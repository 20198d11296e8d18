"""`seal models`: base models on this machine."""

from __future__ import annotations

import json
import shlex
from pathlib import Path

import typer

from controller_svc.cli.messages import program
from controller_svc.cli.progress import open_screen
from seal.embedded import EMBEDDED_MODELS
from seal.errors import InvalidInput
from seal.files import cache_directory, file_errors
from seal.model_copies import keep_model
from seal.models import is_downloadable, resolve_model


def pull_model(name: str, *, to: Path | None, force: bool, as_json: bool) -> None:
    """Download, check and keep a model, in the cache or in `to`; print where it is.

    Raises InvalidInput if `to` is a file, and what keeps the model from coming.
    """
    if to is not None:
        with file_errors(to):
            if to.is_file():
                raise InvalidInput(f"{to} is a file", field="--to", remedy="give a directory")
    with open_screen(None, bars=not as_json) as screen:
        if to is None:
            model = resolve_model(name, force=force, progress=screen.on_download)
        else:
            model = keep_model(name, to=to.absolute(), force=force, progress=screen.on_download)
    facts = {
        "name": model.name,
        "path": str(model.path),
        "sha256": model.sha256,
    }
    if as_json:
        typer.echo(json.dumps(facts, indent=2))
    else:
        typer.echo(f"{model.name} is ready\npath    {model.path}\nsha256  {model.sha256}")
        if to is not None:
            by_name = is_downloadable(name)
            given = (name, "--model-cache", str(to.absolute())) if by_name else (str(model.path),)
            typer.echo(f"take it with  {shlex.join(('--model', *given, '--offline'))}")


def list_models(*, as_json: bool) -> None:
    """The embedded models, and which of them are in the cache."""
    models = cache_directory() / "models"
    rows = []
    for model in EMBEDDED_MODELS.values():
        path = model.place(models)
        ready = path.is_dir()
        rows.append(
            {
                "name": model.name,
                "ready": ready,
                "path": str(path) if ready else "",
                "download_bytes": model.wheel_bytes,
            }
        )
    if as_json:
        typer.echo(json.dumps(rows, indent=2))
        return
    for row in rows:
        state = (
            f"ready  {row['path']}"
            if row["ready"]
            else f"not downloaded yet ({model_size(row['download_bytes'])}): "
            f"{program()} models pull {row['name']}"
        )
        typer.echo(f"{row['name']}  {state}")
    typer.echo(
        "Other models: a directory with config, tokenizer and safetensors, or "
        "org/model[@revision] of the Hugging Face hub."
    )


def model_size(size: object) -> str:
    """Bytes in MB."""
    return f"{int(str(size)) / 1e6:.0f} MB"
