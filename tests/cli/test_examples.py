"""The manifests in examples/ are those that the commands take."""

from __future__ import annotations

from pathlib import Path

import pytest

from seal.config import load_run

EXAMPLES = sorted((Path(__file__).parents[2] / "examples").glob("*.yaml"))


@pytest.mark.parametrize("example", EXAMPLES, ids=lambda example: example.stem)
def test_an_example_is_a_run_of_the_name_of_its_file(example: Path) -> None:
    assert load_run(example).metadata.name == example.stem


def test_the_smoke_run_takes_every_step_once() -> None:
    (smoke,) = (load_run(example).spec for example in EXAMPLES if example.stem == "smoke")
    assert (smoke.rounds, smoke.data.train_contexts, smoke.data.validation_contexts) == (1, 1, 1)
    assert smoke.model == "smollm2-135m"
    assert smoke.edit.k > 1  # of two that differ one is better, so the M-step has what to learn
