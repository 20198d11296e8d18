"""The curve `memory`: peak resident memory of training over slots and row lengths, and what the engine's memory model says.

Every point is a process of its own (`benchmarks.memory_point`), so that no point hides behind the peak of another. The published
targets and rank; the peak is that of the whole process, Python, torch and the base model included.
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
from seal.errors import Internal

KEYS = ("memory",)
ROOT = Path(__file__).resolve().parent.parent
MIB = float(1 << 20)


def estimate_bytes(directory: Path, *, slots: int, row_tokens: int) -> int | None:
    """What the engine's memory model says of one point with the published targets and rank in bf16; None while there is no such model."""
    return None


@dataclass(frozen=True)
class Point:
    """One measured setting."""

    slots: int
    tokens: int
    loaded_bytes: int
    """Peak when the model was loaded."""
    peak_bytes: int
    """Peak at the end."""
    estimated_bytes: int | None


def measure(setting: Setting, wanted: Collection[str]) -> Figures:
    """One process per point."""
    points = []
    for done, (slots, tokens) in enumerate(setting.sizes.memory_points):
        setting.report("memory", done, len(setting.sizes.memory_points))
        points.append(_measure_point(setting.directory, slots, tokens))
    setting.report("memory", len(points), len(points))
    largest = max(points, key=lambda point: point.peak_bytes)
    estimated = all(point.estimated_bytes is not None for point in points)
    samples = [point.peak_bytes / (point.estimated_bytes or MIB) for point in points]
    reading = (
        "measured over estimated, median over the points" if estimated else "measured peak, median over the points; there is no estimate"
    )
    figure = make_curves(
        setting,
        CURVES["memory"],
        _curves(points),
        samples=samples,
        unit="x" if estimated else "MiB",
        reading=reading,
        sizes=("memory_points",),
    )
    details = {
        f"{point.slots} slots, rows of {point.tokens} tokens": f"{point.peak_bytes / MIB:.0f} MiB measured"
        + ("" if point.estimated_bytes is None else f", {point.estimated_bytes / MIB:.0f} MiB estimated")
        for point in points
    }
    details["before the first step"] = f"{largest.loaded_bytes / MIB:.0f} MiB (peak while loading the model)"
    return {"memory": figure.model_copy(update={"details": details})}


def _measure_point(directory: Path, slots: int, tokens: int) -> Point:
    command = [
        sys.executable,
        "-m",
        "benchmarks.memory_point",
        "--directory",
        str(directory),
        "--slots",
        str(slots),
        "--tokens",
        str(tokens),
    ]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False)
    if done.returncode:
        raise Internal(f"the process that measures memory ended with {done.returncode}: {done.stderr.strip()[-500:]}")
    measured = json.loads(done.stdout.splitlines()[-1])
    return Point(slots, tokens, measured["loaded_bytes"], measured["peak_bytes"], estimate_bytes(directory, slots=slots, row_tokens=tokens))


def _curves(points: list[Point]) -> list[Curve]:
    """Over slots for the row length that most points have; measured, and estimated where there is an estimate."""
    lengths = [point.tokens for point in points]
    common = max(set(lengths), key=lengths.count)
    chosen = [point for point in points if point.tokens == common]
    axes = {"x": "slots", "y": "peak memory, MiB"}
    measured = Curve(
        name=f"measured, rows of {common} tokens", points=tuple((point.slots, point.peak_bytes / MIB) for point in chosen), **axes
    )
    estimated = tuple((float(point.slots), point.estimated_bytes / MIB) for point in chosen if point.estimated_bytes is not None)
    return [measured, Curve(name="memory model", points=estimated, **axes)] if estimated else [measured]
