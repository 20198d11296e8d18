"""What was measured, as JSON and as the page docs/gpu.md."""

from __future__ import annotations

from pathlib import Path

from pydantic import BaseModel, ConfigDict

JSON_FILE, PAGE_FILE = Path("docs/gpu.json"), Path("docs/gpu.md")


class Line(BaseModel):
    """One figure, or one check."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    name: str
    value: float
    unit: str = ""
    arithmetic: str = ""
    """What it should be, or where it comes from."""
    passed: bool | None = None
    """Of a check; None for a figure."""

    def __str__(self) -> str:
        verdict = {True: "ok", False: "FAILED", None: ""}[self.passed]
        words = (
            f"{self.value:.4g}",
            self.unit,
            verdict,
            self.arithmetic and f"({self.arithmetic})",
        )
        return f"{self.name}: " + " ".join(word for word in words if word)


class Part(BaseModel):
    """One part's lines as they came."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    key: str
    title: str
    seconds: float
    lines: tuple[Line, ...]
    missing: str = ""
    """Why it, or the rest of it, was not measured."""
    failed: bool = False
    """It ended with an error."""


class Report(BaseModel):
    """One run."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    machine: str
    command: str
    notes: str = ""
    """What somebody who read the figures wrote beside them, Markdown; laid into the page."""
    parts: tuple[Part, ...]

    @property
    def sound(self) -> bool:
        """No part has ended with an error and every check has passed."""
        lines = [line for part in self.parts for line in part.lines]
        return not any(part.failed for part in self.parts) and not any(
            line.passed is False for line in lines
        )


def write_report(report: Report, file: Path) -> None:
    """Write the JSON, whole each time."""
    file.parent.mkdir(parents=True, exist_ok=True)
    file.write_text(report.model_dump_json(indent=1) + "\n", encoding="utf-8")


def read_report(file: Path) -> Report:
    """Read what `write_report` wrote."""
    return Report.model_validate_json(file.read_text(encoding="utf-8"))


def render(report: Report) -> str:
    """The page."""
    blocks = [
        "# On a GPU",
        f"Measured by `{report.command}` on {report.machine}. The weights are random, in the "
        "models' shapes: they cost what real ones cost. Beside each figure stands what it should "
        "be; how that is computed is in [engine.md](engine.md).",
        *([report.notes] if report.notes else []),
    ]
    for part in report.parts:
        blocks.append(f"## {part.title}")
        if part.lines:
            rows = [f"| {line.name} | {_cell(line)} | {line.arithmetic} |" for line in part.lines]
            blocks.append("\n".join(["| | measured | computed |", "|---|---|---|", *rows]))
        if part.missing:
            blocks.append(f"Not measured: {part.missing}.")
    return "\n\n".join(blocks) + "\n"


def _cell(line: Line) -> str:
    value = f"{line.value:.4g} {line.unit}".strip()
    return value if line.passed is None else f"{value}: {'ok' if line.passed else '**failed**'}"
