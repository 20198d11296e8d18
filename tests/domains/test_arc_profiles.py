"""The profiles of the few-shot domain: their edits parse, and their numbers are the published."""

from __future__ import annotations

import pytest

from seal.config import load_engine_settings, load_run
from seal.domains import get_domain
from seal.domains.arc.edits import MAX_EDIT_EPOCHS, parse_edit
from seal.domains.arc.training_sets import MAX_ROW_VISITS


@pytest.mark.parametrize("profile", ["arc", "published-arc"])
def test_a_profile_is_a_whole_run_whose_given_edits_are_edits(profile: str) -> None:
    spec = load_run(None, {"profile": profile}).spec
    assert spec.domain == "arc"
    assert parse_edit(spec.validation.fixed_edit)
    assert not spec.validation.oracle_edit or parse_edit(spec.validation.oracle_edit)
    assert load_engine_settings(profile).slots > 0


def test_the_published_numbers_are_those_of_the_paper() -> None:
    spec = load_run(None, {"profile": "published-arc"}).spec
    assert (spec.inner.lora.rank, spec.inner.lora.alpha) == (128, 16)
    assert (spec.inner.optimizer.batch_size, spec.inner.optimizer.schedule) == (2, "cosine")
    assert spec.inner.examples.max_examples == 250
    assert (spec.edit.k, spec.edit.temperature, spec.validation.edits_per_context) == (15, 0.8, 5)
    assert (spec.improve.lora.rank, spec.improve.lora.alpha) == (16, 16)
    assert (spec.improve.optimizer.epochs, spec.improve.optimizer.learning_rate) == (8, 5e-5)


def test_rows_of_the_embedded_profile_keep_within_the_budget_of_any_edit() -> None:
    spec = load_run(None, {"profile": "arc"}).spec
    assert spec.inner.examples.max_examples * MAX_EDIT_EPOCHS <= MAX_ROW_VISITS


def test_an_edit_s_rate_and_epochs_replace_those_of_the_profile() -> None:
    spec = load_run(None, {"profile": "arc"}).spec
    arc = get_domain("arc")
    changed = arc.optimizer([spec.validation.oracle_edit], spec.inner.optimizer)
    edit = parse_edit(spec.validation.oracle_edit)
    assert edit is not None
    assert changed.learning_rate == edit.training.learning_rate
    assert changed.batch_size == spec.inner.optimizer.batch_size
