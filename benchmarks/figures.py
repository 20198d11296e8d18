"""A figure: value, samples and goal, both sides' own samples, and where it was measured."""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from statistics import median
from types import MappingProxyType
from typing import Literal

from pydantic import Field, ValidationError

from seal.errors import InvalidInput
from seal.files import file_errors
from seal.records import Record


@dataclass(frozen=True)
class Goal:
    """What is asked of one figure."""

    title: str
    relation: Literal[">=", "<=", ""]
    """How the value has to lie to `must`; empty where the figure's own test decides, or nothing is
    asked."""
    must: float
    aim: float | None
    unit: str
    must_with_matrix_units: float | None = None
    """What is asked instead where a processor has matrix units (AMX, a GPU's tensor cores): one
    slot is then bound by reading weights, and many slots gain more."""

    def on(self, *, matrix_units: bool) -> Goal:
        """What is asked on such a machine."""
        if not matrix_units or self.must_with_matrix_units is None:
            return self
        return replace(self, must=self.must_with_matrix_units)

    @property
    def must_text(self) -> str:
        """For people."""
        return (
            f"{self.relation} {self.must:g}{_spaced(self.unit)}"
            if self.relation
            else "no significant drop"
        )

    @property
    def aim_text(self) -> str:
        """For people."""
        return "–" if self.aim is None else f"{self.aim:g}{_spaced(self.unit)}"

    def met(self, value: float) -> bool:
        """Whether a value reaches it."""
        return value >= self.must if self.relation == ">=" else value <= self.must


GOALS: Mapping[str, Goal] = MappingProxyType(
    {
        "P1": Goal("inner loop against the reference style, same edits", ">=", 70, 120, "x"),
        "P2": Goal(
            "32 slots against the engine's own single slot, unpadded",
            ">=",
            2.2,
            4,
            "x",
            must_with_matrix_units=3,
        ),
        "P3": Goal("sustained share of the measured GEMM peak, real length mix", ">=", 50, 65, "%"),
        "P4": Goal(
            "real length mix against equal lengths, time per real token", "<=", 1.15, 1.05, "x"
        ),
        "P5": Goal(
            "batched against alone, fp32: largest relative weight difference of any adapter",
            "<=",
            1e-5,
            None,
            "",
        ),
        "P6": Goal(
            "evaluation of 32 adapters x 5 queries against one adapter after another",
            ">=",
            6,
            12,
            "x",
        ),
        "P7": Goal("agreement of rewards, clean against parity mode (Spearman)", "", 0, None, ""),
        "P8": Goal(
            "inner loop through gRPC and artifact store against the engine called directly",
            "<=",
            1.05,
            1.03,
            "x",
        ),
        "P10": Goal(
            "adaptations of 16 clients at once against one after another", ">=", 2.5, None, "x"
        ),
        "few-shot": Goal(
            "inner loops of 8 few-shot tasks at once against one after another", ">=", 1, None, "x"
        ),
        "controller": Goal(
            "Jobs of 1,000 runs through the controller against a bare loop, or 40 a second",
            ">=",
            0.8,
            None,
            "x",
        ),
        "looks": Goal(
            "looks at 1,000 active runs whose stages take minutes, 99th percentile",
            "<=",
            250,
            None,
            "ms",
        ),
    }
)
"""The figures of the table. Curves (`slots`, `lengths`, `memory`) have no goal."""

CURVES: Mapping[str, str] = MappingProxyType(
    {
        "slots": "time of one adapter's step over the number of slots",
        "lengths": "time per real token over the row length",
        "memory": "peak memory, measured and by the memory model",
        "step": "where a step's time goes",
    }
)
"""Titles of the figures that are curves."""

KEYS = (*GOALS, *CURVES)
BY_NAME_ONLY = ("P7", "P10", "few-shot", "controller", "looks", "slots", "lengths", "memory")
"""Figures that take long and tell nothing new of a change: measured where `--only` names them."""
DEFAULT_KEYS = tuple(key for key in KEYS if key not in BY_NAME_ONLY)


class Side(Record):
    """One side of a comparison."""

    name: str
    unit: str
    samples: tuple[float, ...]

    @property
    def median(self) -> float:
        """Median of the samples."""
        return median(self.samples)


class Curve(Record):
    """One line of a plot."""

    name: str
    x: str
    """What the first numbers are, with unit."""
    y: str
    """What the second numbers are, with unit."""
    points: tuple[tuple[float, float], ...]


class Provenance(Record):
    """Where and how figures were measured."""

    command: str
    machine: str
    """Processor, cores, versions, threads, measured GEMM peak in the compute type."""
    data: str
    """Which edits and questions."""
    model: str


class Figure(Record):
    """One measured figure, as docs/benchmarks.json holds it."""

    title: str
    value: float
    unit: str
    samples: tuple[float, ...]
    """What `value` is made of: one per round of an interleaved comparison unless `reading` says
    otherwise."""
    command: str
    reading: str
    """How `value` comes from the samples."""
    goal: str = ""
    aim: str = ""
    met: bool | None = None
    """None where nothing is asked."""
    sides: tuple[Side, ...] = ()
    details: dict[str, str] = Field(default_factory=dict)
    curves: tuple[Curve, ...] = ()
    sizes: dict[str, object] = Field(default_factory=dict)
    """Sizes that the figure depends on."""
    machine: str = ""
    data: str = ""
    model: str = ""
    seconds: float = 0.0
    """What it took to measure, together with the figures that share its run."""


Figures = dict[str, Figure]


def read_figures(file: Path) -> Figures:
    """Figures of an earlier run; none if there is no file.

    Raises InvalidInput for a file that is something else.
    """
    with file_errors(file):
        if not file.is_file():
            return {}
        text = file.read_text(encoding="utf-8")
    try:
        return {key: Figure.model_validate(value) for key, value in json.loads(text).items()}
    except (json.JSONDecodeError, AttributeError, ValidationError) as error:
        raise InvalidInput(
            f"{file} holds no figures: {str(error).splitlines()[0]}",
            remedy="move it away, or give another --out",
        ) from error


def write_figures(file: Path, figures: Figures) -> None:
    """Write all figures, in the order of the table."""
    ordered = {key: figures[key].model_dump(mode="json") for key in in_order(figures)}
    with file_errors(file):
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_text(json.dumps(ordered, indent=1, ensure_ascii=False) + "\n", encoding="utf-8")


def in_order(keys: Iterable[str]) -> list[str]:
    """Keys in the order of the table."""
    return sorted(keys, key=KEYS.index)


def _spaced(unit: str) -> str:
    return unit if unit in ("", "x") else f" {unit}"
