"""A small run of the few-shot domain."""

from __future__ import annotations

import json
from pathlib import Path

from controller_harness import small_spec
from few_shot_edits import settings_edit

from seal.settings import RunSpec

FIXED, ORACLE = settings_edit(1), settings_edit(2)
SMALL_LORA = {"rank": 2, "alpha": 4.0, "target_modules": ("q_proj", "v_proj")}


def write_tasks(path: Path, colours: range) -> str:
    """Tasks that swap the first two cells of a strip, one for each colour."""
    rows = [
        {
            "id": f"swap-{colour}",
            "train": [
                {"input": [[colour, cell, 1]], "output": [[cell, colour, 1]]} for cell in (1, 2, 3)
            ],
            "test": [{"input": [[colour, 0, 1]], "output": [[0, colour, 1]]}],
        }
        for colour in colours
    ]
    path.write_text("".join(f"{json.dumps(row)}\n" for row in rows), encoding="utf-8")
    return str(path)


def few_shot_spec(directory: Path, **changes: object) -> RunSpec:
    """One round: two tasks to learn from, two to measure on, both given edits beside them."""
    values: dict[str, object] = {
        "domain": "arc",
        "rounds": 1,
        "data": {
            "train": write_tasks(directory / "tasks.jsonl", range(4, 6)),
            "validation": write_tasks(directory / "held-out.jsonl", range(6, 8)),
            "retained": "",
        },
        "edit": {"family": "train-settings", "k": 2, "max_tokens": 112},
        "inner": {
            "student": "base",
            "repeats": 1,
            "lora": SMALL_LORA,
            "optimizer": {"batch_size": 4, "schedule": "cosine"},
            "examples": {"passage_repeats": 0, "max_examples": 6},
        },
        "improve": {"lora": SMALL_LORA, "optimizer": {"epochs": 1}},
        "evaluation": {"question_format": "letters", "grader": "grid", "max_tokens": 12},
        "validation": {
            "edits_per_context": 1,
            "retained_queries": 0,
            "empty_edit": "baseline",
            "fixed_edit": FIXED,
            "oracle_edit": ORACLE,
        },
    }
    return small_spec(directory, passages=(1, 1, 0), **(values | changes))
