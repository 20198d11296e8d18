"""What a soak's records say: none lost, memory flat, order fair; as numbers and as a plot."""

from __future__ import annotations

import itertools
from collections import Counter
from collections.abc import Iterable, Sequence
from pathlib import Path
from statistics import linear_regression, median

import matplotlib as mpl
from pydantic import Field

from seal.files import file_errors
from seal.settings import Settings

WARM_UP_SHARE = 0.2
"""Adapters, from the first on, that do not count for memory: slots are made and the allocator's
pools fill."""
MB = 1e6


class Served(Settings):
    """What became of one adapter."""

    number: int
    """Place among the requests."""
    run: str
    outcome: str
    admitted: int | None
    """Place in the order of admissions; None if it never got a slot."""
    ended: int
    """Place in the order of ends."""
    measured_bytes: int
    """Memory when it ended."""


class Turns(Settings):
    """How one run was served."""

    adapters: int
    admission_deviation: int
    """Largest difference of places in the order of admissions between what was and round-robin."""
    end_deviation: int
    """Largest difference between an adapter's place in the order of ends and that in the order of
    admissions: lengths differ."""


class SoakFigures(Settings):
    """The result of one soak."""

    command: str = ""
    machine: str = ""
    model: str = ""
    data: str = ""
    slots: int = 0
    epochs: int = 0
    seconds: float = 0.0
    rows_min_median_max: tuple[int, float, int] = (0, 0.0, 0)
    """Training rows per adapter."""
    requested: int
    lost: int
    """Requests without a result."""
    outcomes: dict[str, int]
    slope_mb_per_100: float
    """Growth of memory per 100 adapters after the warm-up, least squares."""
    first_quarter_mb: float
    """Median memory of the first quarter after the warm-up."""
    last_quarter_mb: float
    largest_lead: int
    """While every run has adapters waiting: most adapters that any run was admitted ahead of
    another. Round-robin gives 1."""
    turns: dict[str, Turns]
    memory_mb: tuple[float, ...] = Field(repr=False)
    """When each adapter ended."""
    admissions: tuple[str, ...] = Field(repr=False)
    """Run of each admission."""


def round_robin(runs: Sequence[str]) -> list[int]:
    """The order in which requests (each of a run, in the order queued) are served by turns."""
    waiting: dict[str, list[int]] = {}
    for number, run in enumerate(runs):
        waiting.setdefault(run, []).append(number)
    rounds = itertools.zip_longest(*waiting.values())
    return [number for turn in rounds for number in turn if number is not None]


def largest_lead(admissions: Iterable[str], totals: Counter[str]) -> int:
    """Most adapters that one run is ahead of another while all of them still have some waiting."""
    counts, worst = dict.fromkeys(totals, 0), 0
    for run in admissions:
        counts[run] += 1
        worst = max(worst, max(counts.values()) - min(counts.values()))
        if counts[run] == totals[run]:
            break
    return worst


def summarise(served: Sequence[Served], runs: Sequence[str]) -> SoakFigures:
    """Figures of the records; `runs` are the requests' in the order queued."""
    admitted = sorted(
        (item for item in served if item.admitted is not None), key=lambda item: item.admitted or 0
    )
    places = {item.number: place for place, item in enumerate(admitted)}
    wanted = {
        number: place
        for place, number in enumerate(number for number in round_robin(runs) if number in places)
    }
    memory = [item.measured_bytes / MB for item in served]
    steady = list(enumerate(memory))[int(WARM_UP_SHARE * len(memory)) :]
    quarter = max(1, len(steady) // 4)
    turns = {}
    for run in dict.fromkeys(runs):
        own = [item for item in admitted if item.run == run]
        turns[run] = Turns(
            adapters=len(own),
            admission_deviation=max(
                (abs(places[item.number] - wanted[item.number]) for item in own), default=0
            ),
            end_deviation=max((abs(item.ended - places[item.number]) for item in own), default=0),
        )
    return SoakFigures(
        requested=len(runs),
        lost=len(runs) - len({item.number for item in served}),
        outcomes=dict(Counter(item.outcome for item in served)),
        slope_mb_per_100=100 * linear_regression(*zip(*steady, strict=True)).slope,
        first_quarter_mb=median(value for _, value in steady[:quarter]),
        last_quarter_mb=median(value for _, value in steady[-quarter:]),
        largest_lead=largest_lead([item.run for item in admitted], Counter(runs)),
        turns=turns,
        memory_mb=tuple(round(value, 1) for value in memory),
        admissions=tuple(item.run for item in admitted),
    )


def draw(figures: SoakFigures, file: Path) -> None:
    """Memory over the adapters that ended, and each run's admissions.

    The same figures give the same bytes.
    """
    from matplotlib.figure import Figure as Canvas  # not pyplot: no global state, no display

    with mpl.rc_context(
        {"svg.hashsalt": "seal", "font.size": 9, "axes.grid": True, "grid.alpha": 0.3}
    ):
        canvas = Canvas(figsize=(9.0, 3.4), layout="constrained")
        left, right = canvas.subplots(1, 2)
        left.plot(range(1, len(figures.memory_mb) + 1), figures.memory_mb)
        left.axvline(
            WARM_UP_SHARE * len(figures.memory_mb),
            color="grey",
            linestyle=":",
            label="warm-up until here",
        )
        left.set_title(f"{figures.slope_mb_per_100:+.2f} MB per 100 adapters")
        left.set(xlabel="adapters ended", ylabel="resident memory, MB", ylim=(0, None))
        left.legend(fontsize=8, loc="lower right")
        for run in figures.turns:
            counts = list(itertools.accumulate(int(name == run) for name in figures.admissions))
            right.plot(range(1, len(counts) + 1), counts, label=run)
        right.set(
            xlabel="adapters admitted",
            ylabel="of this run",
            title=f"{figures.slots} slots, runs queued one after another",
        )
        right.legend(fontsize=8)
        with file_errors(file):
            canvas.savefig(file, format="svg", metadata={"Date": None})
