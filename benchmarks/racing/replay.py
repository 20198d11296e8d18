"""Replays selection policies on a log of SEAL's rollout: where an inner loop is worth most.

    python -m benchmarks.racing.replay PATH/TO/rank_iter0.json [--output json]

What is measured is chosen on some repeats and scored on a held-out one; everything else is marked
as simulated.
"""

from __future__ import annotations

import shlex
import sys
from collections.abc import Iterator
from enum import StrEnum
from pathlib import Path
from typing import Annotated

import typer
from rich.console import Console
from rich.table import Table

from benchmarks.racing.figures import Comparison, Replay, replay_log
from benchmarks.racing.policies import Spread
from benchmarks.racing.seal_log import read_log
from seal.errors import SealError

USAGE_EXIT_CODE = 2


class Output(StrEnum):
    """How the result is printed."""

    TABLE = "table"
    JSON = "json"


def main(
    log: Annotated[
        Path,
        typer.Argument(help="SEAL's log: passages x edits x repeats, such as rank_iter0.json."),
    ],
    output: Annotated[
        Output, typer.Option(help="A table for people or JSON for programs.")
    ] = Output.TABLE,
    seed: Annotated[int, typer.Option(min=0, help="Of the bootstrap and the simulation.")] = 0,
    resamples: Annotated[
        int, typer.Option(min=100, help="Bootstrap resamples of the passages.")
    ] = 2000,
    contexts: Annotated[int, typer.Option(min=100, help="Simulated contexts.")] = 40_000,
) -> None:
    """Compare ways to spend inner loops on choosing an edit."""
    command = shlex.join(["python", "-m", "benchmarks.racing.replay", *sys.argv[1:]])
    try:
        found = replay_log(
            read_log(log), command=command, seed=seed, number=resamples, contexts=contexts
        )
    except SealError as error:
        print(f"error: {error}", file=sys.stderr)
        raise typer.Exit(USAGE_EXIT_CODE) from error
    if output is Output.JSON:
        print(found.model_dump_json(indent=2))
        return
    console = Console()
    for part in render(found):
        console.print(part, highlight=False)


def render(found: Replay) -> Iterator[Table | str]:
    """The result for people, in points of accuracy."""
    log = found.log
    yield (
        f"{log.passages} passages x {log.candidates} edits x {log.repeats} repeats; without an "
        f"adapter {points(log.baseline)}, "
        f"with a random edit {points(log.reward)}"
    )
    if log.level_at_cut is not None:
        yield (
            f"In {percent(log.level_at_cut)} of the first repeats the second and the third edit "
            "are level; ties are broken at random."
        )
    yield _policies(found)
    yield _comparisons(found.comparisons)
    yield _reliability(found)
    calls, judge = found.judge.calls, found.judge
    yield (
        f"Judge cache: of {calls.adapter} calls for adapted models {calls.adapter_distinct} are "
        "distinct, it saves "
        f"{percent(judge.saved_adapter)}. With the baseline asked anew for each adapter "
        f"({calls.baseline} more calls) it saves "
        f"{percent(judge.saved_as_logged)}; with the baseline asked once per context "
        f"({calls.baseline_once} more) "
        f"{percent(judge.saved_baseline_once)}. Contradictory verdicts of one key: "
        f"{calls.contradictions}."
    )
    yield (
        f"Intervals: 95 %, {found.resamples} resamples of the passages. "
        f"Simulated: {found.simulated_contexts} contexts, fitted variances."
    )


def _policies(found: Replay) -> Table:
    table = Table(title="Gain of the chosen edit over a random one, points of accuracy")
    for name in ("policy", "inner loops", "measured, held out", "over the base", "simulated"):
        table.add_column(name, justify="left" if name == "policy" else "right")
    for each in found.policies:
        measured = (
            [interval(each.gain), interval(each.over_baseline)]
            if each.gain and each.over_baseline
            else ["-", "-"]
        )
        table.add_row(each.policy, str(each.inner_loops), *measured, interval(each.simulated_gain))
    return table


def _comparisons(comparisons: list[Comparison]) -> Table:
    table = Table(title="Policies against each other")
    for name in ("policy", "against", "inner loops", "share of its gain", "difference, points", ""):
        table.add_column(name, justify="left" if name in ("policy", "against", "") else "right")
    for each in comparisons:
        ratio = "-" if each.ratio is None else percent(each.ratio)
        loops = f"{each.inner_loops[0]} : {each.inner_loops[1]}"
        table.add_row(
            each.policy,
            each.over,
            loops,
            ratio,
            interval(each.difference),
            "simulated" if each.simulated else "measured",
        )
    return table


def _reliability(found: Replay) -> Table:
    facts = found.reliability
    table = Table(title="Reliability of the reward")
    for name in ("candidates compared", "one repeat", f"mean of {found.log.repeats}"):
        table.add_column(name, justify="left" if name == "candidates compared" else "right")
    table.add_row("within the same repeats", plain(facts.single), plain(facts.averaged))
    table.add_row("across repeats", plain(facts.single_across), plain(facts.averaged_across))
    table.caption = (
        f"Of the noise of one training, {plain(facts.shared_noise)} is common to the candidates "
        "of a passage in a repeat."
    )
    return table


def points(share: float) -> str:
    """Points of accuracy."""
    return f"{100 * share:.1f}"


def percent(share: float) -> str:
    """Whole per cent."""
    return f"{100 * share:.0f} %"


def interval(value: Spread) -> str:
    """Points with their interval."""
    return f"{100 * value.value:+.2f} [{100 * value.low:+.2f}, {100 * value.high:+.2f}]"


def plain(value: Spread) -> str:
    """A share of 1 with its interval."""
    return f"{value.value:.2f} [{value.low:.2f}, {value.high:.2f}]"


if __name__ == "__main__":
    typer.run(main)
