"""An adaptation on stdout: what its adapter is worth, what the gate said, what it cost, what next.

A number that rests on questions of the model itself stands under `SELF_MADE`.
"""

from __future__ import annotations

import json
import time
from collections.abc import Mapping, Sequence
from dataclasses import asdict
from types import MappingProxyType

import typer
from rich.console import Console
from rich.table import Table
from rich.text import Text

from controller_svc.cli.messages import program
from controller_svc.cli.tables import number_table, two_lines, wide_console
from seal.client import Adaptation, Counts, Evaluation, Interval, Serving, State
from seal.report.numbers.formats import (
    MEASURE_NAMES,
    MISSING,
    count,
    counts,
    duration,
    interval,
    plural,
    score,
)
from seal.report.numbers.model import Estimate
from seal.telemetry import harmless

SELF_MADE = "self-made"
"""Stands beside every number that rests on questions which the model itself wrote."""
MODEL_NAMES = {"base": "base model", "passages": "passages alone", "adapter": "adapter"}
INTERVALS = "Intervals: 95 %, bootstrap over passages; differences are paired."
MEASURES_IN_A_TABLE = 3
"""So many fit into 80 columns, whatever the numbers are."""
REFUSAL_REMEDIES: Mapping[str, str] = MappingProxyType(
    {
        "GainTooSmall": "more --candidates or a trained --policy write better edits",
        "GainUncertain": "more documents or questions make it more certain, more --candidates "
        "may raise the gain; --not-confident judges by the gain's mean alone",
        "Forgets": "--replay-rows help against forgetting",
        "NoScore": "other --questions, or another --seed",
    }
)
"""By the gate's reason, what may change it."""
FACT_COLUMNS = 10
"""Columns of the name of a fact."""


def as_json(adaptation: Adaptation) -> dict[str, object]:
    """An adaptation for programs; times are Unix seconds, a missing number is null."""
    plain = asdict(adaptation)
    for name in ("adapter", "passages_adapter"):
        reference = getattr(adaptation, name)
        plain[name] = None if reference is None else reference.model_dump()
    options = adaptation.options
    plain["options"] |= {
        name: None if value is None else value.model_dump(mode="json", by_alias=False)
        for name, value in (
            ("policy", options.policy),
            ("lora", options.lora),
            ("optimizer", options.optimizer),
        )
    }
    return plain


def print_adaptation(
    adaptation: Adaptation, *, json_output: bool, reach: str, resume: str = ""
) -> None:
    """One adaptation on stdout.

    `reach`: options that lead other commands to it, for example `--server HOST:PORT`. `resume`:
    the command that goes on with it, where nobody works at it.
    """
    if json_output:
        typer.echo(json.dumps(as_json(adaptation), indent=2, ensure_ascii=False))
        return
    with wide_console() as console:
        console.print()
        console.print(Text(headline(adaptation), style="bold"))
        console.print()
        for table in _tables(adaptation):
            if table is not None:
                console.print(table)
        for name, value in _facts(adaptation, reach, resume):
            _print_fact(console, name, value)
        if adaptation.evaluation is not None:
            console.print(Text(INTERVALS, style="dim"))


def print_list(adaptations: Sequence[Adaptation]) -> None:
    """Adaptations, a line each."""
    rows = [("NAME", "STATE", "STAGE", "GAIN IN F1", "CREATED", "TOOK"), *map(_cells, adaptations)]
    widths = [max(len(row[column]) for row in rows) for column in range(len(rows[0]))]
    for row in rows:
        cells = (cell.ljust(width) for cell, width in zip(row, widths, strict=True))
        typer.echo("  ".join(cells).rstrip())


def headline(adaptation: Adaptation) -> str:
    """Name, state, and the number that it comes to."""
    state = f"{adaptation.name}: {adaptation.state.lower()}"
    if not adaptation.state.final:
        progress = adaptation.progress
        at = f", {progress.stage}" if progress.stage else ""
        return f"{state}{at}, {progress.percent:.0f} %"
    evaluation = adaptation.evaluation
    if evaluation is None:
        return state
    base, adapter = (evaluation.score(model, "f1") for model in ("base", "adapter"))
    if base is None and adapter is None:
        return f"{state}. No held-out question{label(evaluation.self_made)} has a score"
    return (
        f"{state}. F1{label(evaluation.self_made)} {_mean(base, 'f1')} before, "
        f"{_mean(adapter, 'f1')} after, on {plural(evaluation.questions, 'held-out question')}"
    )


def refusal_remedy(adaptation: Adaptation) -> str:
    """What may change the gate's refusal; empty where nothing is known that may, or it passed."""
    gate, evaluation = adaptation.gate, adaptation.evaluation
    if gate is None or gate.passed:
        return ""
    if evaluation is not None and evaluation.self_made and not evaluation.questions:
        return "give questions with --questions: of the model's own none is left for the test"
    if adaptation.adapter is None and gate.reason == "NoScore":
        return "the training left no adapter: shorter --passage-tokens, or another --seed"
    return REFUSAL_REMEDIES.get(gate.reason, "")


def label(self_made: bool) -> str:
    """What stands behind a number; empty for given questions."""
    return f" ({SELF_MADE})" if self_made else ""


def _tables(adaptation: Adaptation) -> tuple[Table | None, ...]:
    if (evaluation := adaptation.evaluation) is None:
        return (_costs(adaptation),)
    groups = _groups(evaluation)
    return (
        *(_scores(evaluation, measures) for measures in groups),
        *(_differences(evaluation, measures) for measures in groups),
        _retained(evaluation),
        _costs(adaptation),
    )


def _scores(evaluation: Evaluation, measures: Sequence[str]) -> Table | None:
    passages = max((one.value.passages for one in evaluation.scores), default=0)
    title = (
        f"Held-out questions{label(evaluation.self_made)}: {evaluation.questions} on "
        f"{plural(passages, 'passage')} [95 % interval]"
        if _come_first(evaluation, measures)
        else f"The same questions{label(evaluation.self_made)}"
    )
    rows = [
        [
            MODEL_NAMES.get(model, model),
            *(_two_lines(evaluation.score(model, each), each) for each in measures),
        ]
        for model in dict.fromkeys(one.model for one in evaluation.scores)
    ]
    return number_table(title, ["model", *(_head(each) for each in measures)], rows)


def _differences(evaluation: Evaluation, measures: Sequence[str]) -> Table | None:
    pairs = dict.fromkeys((one.model, one.against) for one in evaluation.differences)
    rows = [
        [
            f"over {MODEL_NAMES.get(against, against)}",
            *(
                _two_lines(evaluation.difference(model, against, each), each, signed=True)
                for each in measures
            ),
        ]
        for model, against in pairs
    ]
    title = "The same gain"
    if _come_first(evaluation, measures):
        title = "Gain of the adapter, passage by passage"
    return number_table(
        f"{title}{label(evaluation.self_made)} [95 % interval]",
        ["adapter", *(_head(each) for each in measures)],
        rows,
    )


def _retained(evaluation: Evaluation) -> Table | None:
    """What is forgotten: these questions are never self-made."""
    rows = [
        [MODEL_NAMES.get(one.model, one.model), _head(one.measure), _one_line(one.value)]
        for one in evaluation.retained
    ]
    if evaluation.retained_change is not None:
        rows.append(["change", "F1", _one_line(evaluation.retained_change, signed=True)])
    return number_table(
        f"Retained: {plural(evaluation.retained_questions, 'question')} elsewhere [95 %]",
        ["model", "measure", "score"],
        rows,
        words=(0, 1),
    )


def _costs(adaptation: Adaptation) -> Table | None:
    rows = [
        [
            cost.stage,
            *(
                count(cost.tokens[kind]) if kind in cost.tokens else MISSING
                for kind in ("generate", "train", "evaluate")
            ),
            duration(cost.seconds),
            duration(cost.engine_seconds),
        ]
        for cost in adaptation.costs
    ]
    return number_table(
        "Cost, in tokens and time",
        ["stage", "written", "trained", "evaluated", "time", "engine"],
        rows,
    )


def _facts(adaptation: Adaptation, reach: str, resume: str) -> list[tuple[str, str]]:
    facts = [("of", _made_of(adaptation.counts))]
    if (gate := adaptation.gate) is not None:
        verdict = "passed" if gate.passed else f"refused, {gate.reason}"
        self_made = adaptation.evaluation is not None and adaptation.evaluation.self_made
        facts.append(("gate", f"{verdict}: {gate.message}{label(self_made)}"))
        if remedy := refusal_remedy(adaptation):
            facts.append(("may help", remedy))
    facts += [
        (one.type.lower(), f"{one.reason}: {one.message}")
        for one in adaptation.conditions
        if one.type == "Failed" and one.status == "True"
    ]
    if adaptation.progress.waiting:
        facts.append(("waits", adaptation.progress.waiting))
    if adaptation.base is not None:
        facts.append(("model", adaptation.base.name))
    if adaptation.adapter is not None:
        facts.append(("adapter", adaptation.adapter.path))
    if (serving := adaptation.serving) is not None:
        facts.append(("served", _served(serving)))
    if adaptation.finished_seconds is not None and adaptation.started_seconds is not None:
        facts.append(("took", duration(adaptation.finished_seconds - adaptation.started_seconds)))
    return [*facts, *(("next", step) for step in next_steps(adaptation, reach, resume))]


def _served(serving: Serving) -> str:
    by = f"{serving.kind} {serving.service}"
    where = f"as {serving.adapter_name} by {by}" if serving.adapter_name else f"not by {by}"
    return f"{where} ({serving.reason}): {serving.message}"


def next_steps(adaptation: Adaptation, reach: str, resume: str = "") -> tuple[str, ...]:
    """Commands that make sense now."""
    name, at = adaptation.name, f" {reach}" if reach else ""
    if not adaptation.state.final:
        return (resume or f"{program()} watch {name}{at}",)
    if adaptation.adapter is None:
        return (f"{program()} delete {name}{at}",)
    return (
        f"{program()} chat --adapter {name}{at}",
        f"{program()} export {name} DIRECTORY{at}",
    )


def _made_of(made: Counts) -> str:
    documents = plural(made.documents, "document")
    if not made.passages:
        return documents  # not prepared yet
    questions = made.reward_questions + made.held_out_questions
    too_long = f", {made.passages_too_long} of them too long" if made.passages_too_long else ""
    parts = [
        documents,
        f"{plural(made.passages, 'passage')}{too_long}",
        f"{plural(questions, 'question')}{label(made.self_made)}, {made.held_out_questions} of "
        "them held out"
        + (f", {made.questions_dropped} more not used" if made.questions_dropped else ""),
    ]
    if made.edits:
        parts.append(f"edits: {counts(made.edits)}")
    if made.rows:
        asked = made.examples_left_out
        left_out = f", {asked} left out as the test asks the same" if asked else ""
        parts.append(f"rows learnt: {counts(made.rows)}{left_out}")
    return "; ".join(parts)


def _cells(adaptation: Adaptation) -> tuple[str, ...]:
    evaluation, gain = adaptation.evaluation, MISSING
    if evaluation is not None:
        found = evaluation.difference("adapter", "base", "f1")
        gain = f"{_one_line(found, signed=True)}{label(evaluation.self_made)}"
    took = (
        duration(adaptation.finished_seconds - adaptation.started_seconds)
        if adaptation.finished_seconds and adaptation.started_seconds
        else ""
    )
    return (
        adaptation.name,
        str(adaptation.state),
        adaptation.progress.stage,
        gain if adaptation.state in (State.PUBLISHED, State.REFUSED) else "",
        ""
        if adaptation.created_seconds is None
        else time.strftime("%Y-%m-%d %H:%M", time.localtime(adaptation.created_seconds)),
        took,
    )


def _groups(evaluation: Evaluation) -> list[list[str]]:
    """The measures that share a table: a fourth one would not fit."""
    measures = list(dict.fromkeys(one.measure for one in evaluation.scores))
    return [
        measures[start : start + MEASURES_IN_A_TABLE]
        for start in range(0, len(measures), MEASURES_IN_A_TABLE)
    ]


def _come_first(evaluation: Evaluation, measures: Sequence[str]) -> bool:
    """Whether these measures are those of the first table of a kind."""
    return not evaluation.scores or evaluation.scores[0].measure in measures


def _head(measure: str) -> str:
    return MEASURE_NAMES.get(measure, measure)


def _mean(value: Interval | None, measure: str) -> str:
    return MISSING if value is None else score(value.mean, measure, "")


def _two_lines(value: Interval | None, measure: str, *, signed: bool = False) -> str:
    if value is None:
        return MISSING
    return two_lines(
        score(value.mean, measure, "", signed=signed),
        interval(_estimate(value), measure, "", signed=signed),
    )


def _one_line(value: Interval | None, *, signed: bool = False) -> str:
    """In F1."""
    return _two_lines(value, "f1", signed=signed).replace("\n", " ")


def _estimate(value: Interval) -> Estimate:
    return Estimate(n=value.passages, mean=value.mean, low=value.low, high=value.high)


def _print_fact(console: Console, name: str, value: str) -> None:
    console.print(
        Text(f"{name:<{FACT_COLUMNS}}", style="bold").append(harmless(value), style="default"),
        soft_wrap=True,
    )
