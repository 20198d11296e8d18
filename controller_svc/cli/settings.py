"""`seal config show`: every setting with its value, its meaning and its bounds.

As text it is a manifest that runs: the meanings are comments. The engine's settings, which are no
part of a manifest, follow as comments altogether.
"""

from __future__ import annotations

import json
import textwrap
from collections.abc import Iterator, Mapping
from dataclasses import asdict, dataclass

import typer
import yaml
from pydantic import BaseModel

from seal.config import load_engine_settings, load_run
from seal.refusals import bounds
from seal.resources import API_VERSION, RUN_KIND
from seal.settings import FileSettings

WIDTH = 100
"""Columns of the text."""


@dataclass(frozen=True, kw_only=True)
class Setting:
    """One field."""

    field: str
    """Dotted, as `--set` and `--engine` take it."""
    value: object
    description: str
    bounds: str
    """What it may be: `1 to 1024`, `linear, cosine or constant`; empty where any value will do."""
    section: bool = False
    """It holds other fields; its value is empty."""


def show_settings(profile: str, *, as_json: bool) -> None:
    """Print all settings of a profile.

    Raises:
        InvalidInput: there is no such profile.
    """
    run = load_run(None, {"spec.profile": profile})
    engine = load_engine_settings(profile)
    spec = list(settings_of(run.spec, "spec."))
    machine = list(settings_of(engine, ""))
    if as_json:
        fields = {"spec": spec, "engine": machine}
        found = {
            name: [asdict(setting) for setting in settings if not setting.section]
            for name, settings in fields.items()
        }
        typer.echo(json.dumps({"profile": profile, **found}, indent=2))
        return
    typer.echo(f"# All settings of the profile `{profile}`: a manifest that `seal run` takes.")
    typer.echo(f"apiVersion: {API_VERSION}\nkind: {RUN_KIND}\nmetadata:\n  name: my-run\nspec:")
    for setting in spec:
        typer.echo("\n".join(_lines(setting, depth=setting.field.count("."))))
    typer.echo("\n# The engine of this machine is no part of a run: give these by --engine.")
    for setting in machine:
        typer.echo("\n".join(f"# {line}" for line in _lines(setting, depth=0)))


def settings_of(model: FileSettings, prefix: str) -> Iterator[Setting]:
    """All fields of a model, sections before what they hold."""
    schema = type(model).model_json_schema(by_alias=True)
    yield from _settings(model, schema, schema.get("$defs", {}), prefix)


def _settings(
    model: BaseModel, schema: Mapping[str, object], definitions: Mapping[str, object], prefix: str
) -> Iterator[Setting]:
    properties = schema["properties"]
    assert isinstance(properties, dict)  # every one of our models has fields  # noqa: S101
    for name, field in type(model).model_fields.items():
        alias, value = field.alias or name, getattr(model, name)
        about = properties[alias]
        description = str(about.get("description", ""))
        if isinstance(value, BaseModel):
            yield Setting(
                field=prefix + alias, value=None, description=description, bounds="", section=True
            )
            inner = definitions[type(value).__name__]
            assert isinstance(inner, dict)  # noqa: S101
            yield from _settings(value, inner, definitions, f"{prefix}{alias}.")
            continue
        yield Setting(
            field=prefix + alias,
            value=list(value) if isinstance(value, tuple) else value,
            description=description,
            bounds=bounds(about),
        )


def _lines(setting: Setting, *, depth: int) -> list[str]:
    """A comment and the field."""
    indent = "  " * depth
    meaning = " ".join(setting.description.split())
    if setting.bounds:
        meaning += f" ({setting.bounds})"
    comment = textwrap.wrap(
        meaning, WIDTH - 2, initial_indent=f"{indent}# ", subsequent_indent=f"{indent}# "
    )
    name = setting.field.rsplit(".", 1)[-1]
    if setting.section:
        return ["", *comment, f"{indent}{name}:"]
    value = yaml.safe_dump(setting.value, default_flow_style=True, width=1000).splitlines()[0]
    return [*comment, f"{indent}{name}: {value}"]
