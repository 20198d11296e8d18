"""The curve `memory`.

What training takes beside the loaded model, over slots and row lengths, and what the engine's
memory model says. Every point is a process of its own (`benchmarks.memory_point`), so that no point
hides behind the peak of another. The published targets and rank. Measured is the peak of the
resident set in two full steps less the resident set once the base model is loaded.
"""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Collection
from dataclasses import dataclass
from pathlib import Path

from benchmarks.common import Setting, make_curves
from benchmarks.figures import CURVES, Curve, Figures
from seal.engine.precision import dtype_name
from seal.errors import Internal

KEYS = ("memory",)
ROOT = Path(__file__).resolve().parent.parent
MIB = float(1 << 20)


@dataclass(frozen=True)
class Point:
    """One measured setting."""

    slots: int
    tokens: int
    loaded_bytes: int
    """Resident once the model was loaded."""
    peak_bytes: int
    """Peak at the end."""
    estimated_bytes: int
    """The memory model's word for the difference."""

    @property
    def taken_bytes(self) -> int:
        """What training took."""
        return self.peak_bytes - self.loaded_bytes


def measure(setting: Setting, wanted: Collection[str]) -> Figures:
    """One process per point."""
    points = []
    for done, (slots, tokens) in enumerate(setting.sizes.memory_points):
        setting.report("memory", done, len(setting.sizes.memory_points))
        points.append(_measure_point(setting, slots, tokens))
    setting.report("memory", len(points), len(points))
    figure = make_curves(
        setting,
        CURVES["memory"],
        _curves(points),
        samples=[point.taken_bytes / point.estimated_bytes for point in points],
        unit="x",
        reading="measured over estimated, median over the points",
        sizes=("memory_points",),
    )
    details = {
        f"{point.slots} slots, rows of {point.tokens} tokens": (
            f"{point.taken_bytes / MIB:.0f} MiB measured, "
            f"{point.estimated_bytes / MIB:.0f} MiB estimated"
        )
        for point in points
    }
    details["beside it"] = (
        f"{points[0].loaded_bytes / MIB:.0f} MiB once the model is loaded: Python, torch and the "
        "base model"
    )
    return {"memory": figure.model_copy(update={"details": details})}


def _measure_point(setting: Setting, slots: int, tokens: int) -> Point:
    command = [
        sys.executable,
        "-m",
        "benchmarks.memory_point",
        "--directory",
        str(setting.directory),
        "--dtype",
        dtype_name(setting.dtype),
        "--slots",
        str(slots),
        "--tokens",
        str(tokens),
    ]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False)
    if done.returncode:
        raise Internal(
            f"the process that measures memory ended with {done.returncode}: "
            f"{done.stderr.strip()[-500:]}"
        )
    measured = json.loads(done.stdout.splitlines()[-1])
    return Point(
        slots, tokens, measured["loaded_bytes"], measured["peak_bytes"], measured["estimated_bytes"]
    )


def _curves(points: list[Point]) -> list[Curve]:
    """Over slots for the row length that most points have, measured and estimated."""
    lengths = [point.tokens for point in points]
    common = max(set(lengths), key=lengths.count)
    chosen = [point for point in points if point.tokens == common]
    axes = {"x": "slots", "y": "memory beside the model, MiB"}
    return [
        Curve(
            name=f"measured, rows of {common} tokens",
            points=tuple((float(one.slots), one.taken_bytes / MIB) for one in chosen),
            **axes,
        ),
        Curve(
            name="memory model",
            points=tuple((float(one.slots), one.estimated_bytes / MIB) for one in chosen),
            **axes,
        ),
    ]
