"""From a manifest and a profile to a run or an adaptation, and to the engine of local mode.

Profile, then file, then overrides, each laid over the one before, field by field. Every refusal
names where the value came from, the dotted field as the file writes it, what is wrong and, for a
field that does not exist, the one that was probably meant.
"""

from __future__ import annotations

import functools
import importlib.resources
import os
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Generic, TypeVar, cast

import structlog
from pydantic import BaseModel

from seal.errors import InvalidInput
from seal.layers import Layer, aliases, nested_tree, validated
from seal.resources import ADAPTATION_KIND, API_VERSION, RUN_KIND, Adaptation, RestEMRun
from seal.settings import PROFILES, EngineSettings, FileSettings, LearningSpec
from seal.settings.cluster import AdaptationClusterSettings, ClusterSettings
from seal.yaml_files import STANDARD_INPUT, Tree, parse_yaml, read_text

log = structlog.get_logger(__name__)

Section = TypeVar("Section", bound=ClusterSettings)


class _ClusterPart(FileSettings, Generic[Section]):
    """A manifest of which nothing is left but what only a cluster has."""

    spec: Section


def load_run(
    path: Path | None,
    overrides: Mapping[str, object] | None = None,
    options: Mapping[str, tuple[str, object]] | None = None,
) -> RestEMRun:
    """Read a run's manifest.

    `path`: YAML file, `-` for standard input, or None for the profile alone under the name `run`.
    `overrides`: values that win over the file, as `changes_to_run` makes them; a value of None is
    no override. `options`: what options of their own say, each with its field; they win over the
    overrides. The profile is the overrides' or the file's `spec.profile`, else `embedded`.

    Raises NotFound for a missing file and InvalidInput naming source, field and remedy for
    everything else.
    """
    file = _on_a_laptop(_manifest(path, RUN_KIND, name="run"), ClusterSettings)
    override = Layer("--set", nested_tree(_below_spec(overrides or {}, RestEMRun)))
    own = [
        Layer(option, nested_tree({field: value}), names_field=True)
        for option, (field, value) in (options or {}).items()
    ]
    return _run(file, override, *own)


def run_of_object(values: Tree) -> tuple[RestEMRun, ClusterSettings]:
    """The run that an object of a cluster asks for, and what it says of the cluster.

    It is the run that `seal run` makes of the same manifest. `values`: the object as the API server
    gives it. Raises InvalidInput naming field and remedy.
    """
    file, cluster = _split(_head(values, RUN_KIND, where="object"), ClusterSettings)
    return _run(file, Layer("", {})), cluster


def adaptation_of_object(values: Tree) -> tuple[Adaptation, AdaptationClusterSettings]:
    """`run_of_object` for an adaptation."""
    head = _head(values, ADAPTATION_KIND, where="object")
    file, cluster = _split(head, AdaptationClusterSettings)
    return _adaptation(file, Layer("", {})), cluster


def _run(file: Layer, override: Layer, *own: Layer) -> RestEMRun:
    """A manifest over its profile, and what wins over both."""
    profile = _load_profile(_profile_name(override.values) or _profile_name(file.values))
    spec = {"spec": profile.values.get("spec", {})}
    return validated(RestEMRun, (Layer(profile.name, spec), file, override, *own))


def load_adaptation(
    path: Path | None, overrides: Mapping[str, object] | None = None, *, source: str = "--set"
) -> Adaptation:
    """Read an adaptation's manifest.

    `path`: YAML file, `-` for standard input, or None for the profile alone under the name
    `adaptation`, with documents from the overrides. `overrides`: dotted fields with values that win
    over the file; a value of None is no override. `source`: what refusals call the overrides.

    What a profile says of runs and of adaptations alike holds for both; its section `adaptation`
    is laid over that.

    Raises NotFound for a missing file and InvalidInput naming source, field and remedy for
    everything else.
    """
    file = _manifest(path, ADAPTATION_KIND, name="adaptation")
    override = Layer(source, nested_tree(_below_spec(overrides or {}, Adaptation)))
    return _adaptation(_on_a_laptop(file, AdaptationClusterSettings), override)


def _adaptation(file: Layer, override: Layer) -> Adaptation:
    """A manifest over its profile, and what wins over both."""
    profile = _load_profile(_profile_name(override.values) or _profile_name(file.values))
    shared = set(aliases(LearningSpec))
    learning = {key: value for key, value in _section(profile, "spec").items() if key in shared}
    layers = (
        Layer(profile.name, {"spec": learning}),
        Layer(profile.name, {"spec": _section(profile, "adaptation")}),
        file,
        override,
    )
    return validated(Adaptation, layers)


def _section(layer: Layer, name: str) -> Tree:
    """A section of a profile; empty if it has none."""
    section = layer.values.get(name, {})
    return section if isinstance(section, dict) else {}


def load_engine_settings(
    profile: str, overrides: Mapping[str, object] | None = None
) -> EngineSettings:
    """The engine of local mode: what the profile says, then `SEAL_*` variables, then overrides.

    The variables are those of the services: `SEAL_MAX_RANK` for `maxRank`; an empty one is none.
    Raises InvalidInput naming source, field and remedy.
    """
    layer = _load_profile(profile)
    layers = (
        Layer(f"{layer.name}: engine", _section(layer, "engine")),
        Layer("environment", dict(_from_environment())),
        Layer("--engine", nested_tree(overrides or {})),
    )
    return validated(EngineSettings, layers)


def _from_environment() -> Iterator[tuple[str, str]]:
    """Engine fields that a `SEAL_*` variable sets, as files write them."""
    for name, field in EngineSettings.model_fields.items():
        if value := os.environ.get(f"SEAL_{name.upper()}"):
            yield field.alias or name, value


def _profile_name(values: Tree) -> str:
    spec = values.get("spec")
    name = spec.get("profile") if isinstance(spec, dict) else None
    return str(name) if name is not None else ""


def _below_spec(overrides: Mapping[str, object], kind: type[BaseModel]) -> dict[str, object]:
    """Overrides of fields of the spec may leave out `spec.`."""
    whole = ("spec", *aliases(kind))
    return {
        key if key.split(".")[0] in whole else f"spec.{key}": value
        for key, value in overrides.items()
    }


def _manifest(path: Path | None, wanted: str, *, name: str) -> Layer:
    """A file that says what it is; without one, nothing but a name.

    Raises InvalidInput if it is another kind of object, or says not which.
    """
    if path is None:
        return Layer("", {"metadata": {"name": name}})
    name = "standard input" if path == STANDARD_INPUT else str(path)
    return _head(parse_yaml(read_text(path, name), where=name), wanted, where=name)


def _head(values: Tree, wanted: str, *, where: str) -> Layer:
    """A manifest that says what it is, without the status that kubectl shows beside the spec."""
    head = f"begin it with `apiVersion: {API_VERSION}` and `kind: {wanted}`"
    kind, version = values.get("kind"), values.get("apiVersion")
    if kind is None or version is None:
        missing = "kind" if kind is None else "apiVersion"
        raise InvalidInput(
            f"{where} is no manifest: it has no `{missing}`",
            field=missing,
            remedy=f"{head}, `metadata.name`, and put the settings below `spec`",
        )
    if kind != wanted or version != API_VERSION:
        raise InvalidInput(
            f"{where} is a {kind!s:.80} of {version!s:.80}, which this command does not run",
            field="kind" if kind != wanted else "apiVersion",
            remedy=head,
        )
    return Layer(where, {key: value for key, value in values.items() if key != "status"})


def _split(file: Layer, kind: type[Section]) -> tuple[Layer, Section]:
    """A manifest without the fields that only a cluster has, and those.

    Raises InvalidInput if one of them is wrong.
    """
    spec = file.values.get("spec")
    known = aliases(kind)
    if not isinstance(spec, dict) or not known.keys() & spec.keys():
        return file, kind()
    given = {key: value for key, value in spec.items() if key in known}
    rest = {key: value for key, value in spec.items() if key not in known}
    settings = validated(_cluster_part(kind), (Layer(file.name, {"spec": given}),)).spec
    return Layer(file.name, {**file.values, "spec": rest}), cast("Section", settings)


@functools.cache  # pydantic forgets one that nobody holds, and takes milliseconds to make it anew
def _cluster_part(kind: type[Section]) -> type[_ClusterPart[Section]]:
    """The model of a manifest's part that only a cluster has."""
    return cast("type[_ClusterPart[Section]]", _ClusterPart.__class_getitem__(kind))


def _on_a_laptop(file: Layer, kind: type[ClusterSettings]) -> Layer:
    """A manifest without the fields that only a cluster has, which are checked and ignored."""
    rest, settings = _split(file, kind)
    if settings.model_fields_set:
        fields = sorted(f"spec.{alias}" for alias in settings.model_dump(exclude_unset=True))
        log.warning("ignored: only a cluster has these fields", source=file.name, fields=fields)
    return rest


@functools.cache  # laying over copies: nobody changes its values
def _load_profile(name: str) -> Layer:
    """Values of a profile, read once. Raises InvalidInput naming the profiles there are."""
    name = name or PROFILES[0]
    if name not in PROFILES:
        raise InvalidInput(
            f"spec.profile: {name!r} is unknown",
            field="spec.profile",
            remedy="use one of: " + ", ".join(PROFILES),
        )
    text = (importlib.resources.files("seal") / "profiles" / f"{name}.yaml").read_text(
        encoding="utf-8"
    )
    return Layer(f"profile {name}", parse_yaml(text, where=f"profile {name}"))
