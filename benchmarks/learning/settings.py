"""The settings of a run by name, so that figures of other settings are not mixed in.

Names of data and model say what they are, never where they lie.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from pathlib import Path

from pydantic import JsonValue

from benchmarks.learning.data import Data
from benchmarks.learning.plan import OWN_SETTINGS
from seal.errors import Conflict
from seal.settings import RunSpec

_OWN = ("seed", "rounds", "data", *OWN_SETTINGS)
"""Settings in which runs of one page may differ; `goldBound` and its like only add rows."""
_BOUNDS = ("validation.goldBound", "validation.equalSteps", "validation.openBook")

Settings = dict[str, JsonValue]
"""A spec's leaves by dotted name, as files write them; data by name, not by path."""


def portable(spec: RunSpec, data: Data) -> RunSpec:
    """The spec with its data and its model named by what they are, not by where they lie."""
    named = {
        side: f"{place.source.name}#{place.source.sha256}#{place.source.contexts}"
        for side, place in (("train", data.train), ("validation", data.validation))
    }
    lies_here = spec.model.startswith(("file://", ".", "/", "~")) or Path(spec.model).exists()
    model = spec.model.rstrip("/").rpartition("/")[2] if lies_here else spec.model
    return spec.model_copy(update={"data": spec.data.model_copy(update=named), "model": model})


def settings_of(spec: RunSpec, data: Data) -> Settings:
    """A spec's settings."""
    return dict(_leaves(portable(spec, data).model_dump(mode="json", by_alias=True)))


def _leaves(values: Mapping[str, JsonValue], prefix: str = "") -> Iterator[tuple[str, JsonValue]]:
    for name, value in values.items():
        if isinstance(value, dict):
            yield from _leaves(value, f"{prefix}{name}.")
        else:
            yield f"{prefix}{name}", value


def check_same_settings(file: str, before: Settings, now: Settings, *, whole: bool = False) -> None:
    """Refuse to lay figures of different settings side by side.

    `file`: the summary that was made with those `before`. `whole`: the same run, so that nothing
    may differ; else what makes an arm, a seed and a corpus may. A setting that one of them does not
    know yet is not compared.

    Raises:
        Conflict: naming the setting and both values.
    """
    for name in sorted(before.keys() & now.keys()):
        if before[name] != now[name] and (whole or not is_own(name)):
            raise Conflict(
                f"{file} was made with {name} {before[name]!r}, not {now[name]!r}",
                field=name,
                remedy="delete it, so that its run is made again, or give --docs another directory",
            )


def is_own(name: str) -> bool:
    """Whether a setting may differ between runs of one page."""
    return name in _BOUNDS or any(name == own or name.startswith(f"{own}.") for own in _OWN)
