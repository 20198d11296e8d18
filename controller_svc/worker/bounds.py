"""What a passage is worth without self-edits: the bounds that round 0 measures beside them.

All are over the base model and do not depend on the policy. The passage alone gets its best: an
optimiser of its own, and as many optimiser steps as the context's first edit has, as one row takes
few steps where an edit takes many. The gold pairs are what no edit can beat; the base model with
the passage in view is what reading alone comes to. In a domain without passages the bounds are
edits that the settings give, tried as those of a policy.
"""

from __future__ import annotations

from typing import TypeVar

from seal.domains.base import Context, Domain, Example
from seal.limits import MAX_STEPS
from seal.records import InnerLoopKind
from seal.settings import DOMAIN_OPTIONS, MAX_EPOCHS, LearningSpec, OptimizerSettings, RunSpec

Row = TypeVar("Row")
Bound = InnerLoopKind
"""Any kind but `edit`."""

EQUAL_STEPS: Bound = "passage-equal-steps"
OPEN_BOOK: Bound = "open-book"
GIVEN_EDITS: tuple[Bound, ...] = ("fixed-edit", "oracle-edit")
"""Bounds that are edits of the settings, the same for every context."""


def given_edit(spec: LearningSpec, bound: Bound) -> str:
    """The text of an edit that the settings give; empty if they give none."""
    if not isinstance(spec, RunSpec):
        return ""
    given = spec.validation
    return given.fixed_edit if bound == "fixed-edit" else given.oracle_edit


def bounds_of(spec: RunSpec) -> tuple[Bound, ...]:
    """The bounds that a run measures in round 0, in the order of its records."""
    if not DOMAIN_OPTIONS[spec.domain].learns_text:
        return tuple(bound for bound in GIVEN_EDITS if given_edit(spec, bound))
    asked: tuple[tuple[Bound, bool], ...] = (
        ("passage", True),
        (EQUAL_STEPS, spec.validation.equal_steps),
        ("gold", spec.validation.gold_bound),
        (OPEN_BOOK, spec.validation.open_book),
    )
    return tuple(bound for bound, wanted in asked if wanted)


def repeats_of(spec: LearningSpec, bound: Bound) -> int:
    """Inner loops of a context's bound; what trains nothing answers the same every time."""
    return 1 if bound == OPEN_BOOK else spec.inner.repeats


def bound_training(
    domain: Domain,
    spec: LearningSpec,
    context: Context,
    bound: Bound,
    *,
    seed: int,
    passage_optimizer: OptimizerSettings | None,
    edit_rows: int = 0,
) -> tuple[tuple[Example, ...], OptimizerSettings]:
    """What a bound is trained on, and how.

    The passage stands in its rows at least once, and alone is trained by `passage_optimizer` if
    there is one. `seed` is that of what an edit draws; `edit_rows`: rows of the context's first
    edit, its passage included, for as many steps.
    """
    settings, optimizer = spec.inner.examples, spec.inner.optimizer
    if bound in GIVEN_EDITS:
        texts = (given_edit(spec, bound),)
        parsed = domain.parse_parts(
            texts,
            context=context,
            family=spec.edit.family,
            settings=settings,
            question_format=spec.evaluation.question_format,
            seed=seed,
        )
        rows = tuple(part.example for part in parsed)
        return rows, domain.optimizer(texts, optimizer) if rows else optimizer
    if bound == "gold":
        gold = domain.gold_examples(context, settings, spec.evaluation.question_format)
        return gold, optimizer
    passage = settings.model_copy(update={"passage_repeats": max(1, settings.passage_repeats)})
    rows = domain.passage_examples(context.title, context.text, passage)
    if bound == EQUAL_STEPS:
        return with_steps(rows, optimizer, steps=steps_of(optimizer, edit_rows))
    return rows, passage_optimizer or optimizer


def steps_of(optimizer: OptimizerSettings, rows: int) -> int:
    """Optimiser steps of a training on so many rows."""
    return optimizer.epochs * _steps_of_epoch(optimizer, rows)


def with_steps(
    rows: tuple[Row, ...], optimizer: OptimizerSettings, *, steps: int
) -> tuple[tuple[Row, ...], OptimizerSettings]:
    """The rows with so many epochs that they come to `steps` steps, or a few more.

    Where an epoch is so short that no optimiser takes as many, the rows are given several times.
    """
    most = MAX_EPOCHS * _steps_of_epoch(optimizer, len(rows))
    rows = rows * -(-steps // most)
    in_epoch = _steps_of_epoch(optimizer, len(rows))
    epochs = max(1, min(-(-steps // in_epoch), MAX_STEPS // in_epoch))
    return rows, optimizer.model_copy(update={"epochs": epochs})


def _steps_of_epoch(optimizer: OptimizerSettings, rows: int) -> int:
    return -(-rows // optimizer.batch_size)
