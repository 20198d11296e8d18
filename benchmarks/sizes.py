"""How much each figure measures.

One frozen model with a docstring per field, overridden on the command line by `--size FIELD=VALUE`.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Annotated

import yaml
from pydantic import Field, ValidationError

from seal.errors import InvalidInput
from seal.settings import Settings

Positive = Annotated[int, Field(ge=1)]
NotNegative = Annotated[int, Field(ge=0)]


class Sizes(Settings):
    """Sizes of all figures.

    The defaults are those of docs/benchmarks.md: what `make bench` measures takes at most 20
    minutes on 2 cores, the figures that are measured by name only take another 60.
    """

    samples: Positive = 3
    """Rounds of each interleaved comparison; the figure is their median."""
    slots: Positive = 32
    """Adapters that the engine trains at once (P1-P4, P6-P8)."""
    edits: Positive = 48
    """Edits that pass through the slots in one sample of P1-P4."""
    epochs: Positive = 1
    """Epochs of each of those edits; a whole inner loop has 10 of the same steps. Many edits for
    one epoch are nearer to a rollout of hundreds of edits than few for several: what is rare, the
    thin end, stays small."""
    reference_steps: Positive = 3
    """Optimiser steps of one sample of P1's opponent."""
    reference_tokens: Positive = 2048
    """Tokens to which P1's opponent pads every row."""
    exact_adapters: Positive = 6
    """Adapters of P5."""
    exact_slots: Positive = 4
    """Slots of P5's batched side; fewer than adapters, so that some join a running batch."""
    exact_epochs: Positive = 2
    """Epochs of P5."""
    evaluation_adapters: Positive = 32
    """Adapters of P6 on the engine's side."""
    evaluation_reference_adapters: Positive = 8
    """Adapters of one sample of P6's opponent, which takes them one after another: the same ones in
    each sample, spread over all."""
    evaluation_queries: Positive = 5
    """Questions per adapter (P6-P8)."""
    answer_tokens: Positive = 64
    """New tokens per answer at most (P6-P8); 64 are published."""
    evaluation_epochs: Positive = 2
    """Epochs of the adapters that P6 evaluates."""
    agreement_contexts: Positive = 24
    """Passages of P7."""
    agreement_edits: Positive = 2
    """Edits per passage of P7."""
    agreement_seeds: int = Field(default=2, ge=2)
    """Trainings of each edit of P7 in each mode, each with its own seeds."""
    agreement_epochs: Positive = 3
    """Epochs of P7; 10 are published."""
    agreement_tokens: Positive = 256
    """Tokens up to which P7's parity mode fills a row; 2,048 are published, at eight times the
    cost."""
    agreement_resamples: Positive = 2000
    """Bootstrap resamples of P7."""
    service_adapters: Positive = 24
    """Inner loops of one sample of P8."""
    service_epochs: Positive = 1
    """Epochs of P8; the overhead is per inner loop, so fewer epochs make its share larger."""
    front_door_samples: Positive = 1
    """Rounds of P10, which are long."""
    front_door_clients: Positive = 16
    """Clients of P10 that come together."""
    front_door_alone: Positive = 3
    """Adaptations of one sample of P10's other side, one after another."""
    few_shot_samples: Positive = 3
    """Rounds of the few-shot inner loops."""
    few_shot_loops: Positive = 8
    """Few-shot tasks, each with an edit of its own."""
    few_shot_rows: Positive = 8
    """Rows of each training set at most; the embedded profile takes 16."""
    controller_samples: Positive = 1
    """Rounds of the controller's figure, which are long."""
    controller_runs: Positive = 1000
    """RestEMRuns that are active together."""
    controller_rounds: NotNegative = 1
    """Rounds of each: with a warm start 6 Jobs, with 4 rounds 15, with none 3."""
    controller_shards: Positive = 1
    """Pods of each rollout and validation."""
    scaling_slots: tuple[Positive, ...] = (1, 2, 4, 8, 16, 32, 64)
    """Slots of the first curve."""
    scaling_row_tokens: int = Field(default=48, ge=4)
    """Tokens per row of the first curve."""
    scaling_steps: Positive = 4
    """Steps per point of the first curve."""
    scaling_lengths: tuple[Positive, ...] = (16, 32, 64, 128, 256, 512, 1024)
    """Tokens per row of the second curve."""
    scaling_length_slots: Positive = 8
    """Slots of the second curve."""
    scaling_length_tokens: Positive = 4096
    """Tokens per point of the second curve, about: so many steps are done, but at least one."""
    profile_steps: Positive = 5
    """Steps that are profiled."""
    memory_points: tuple[tuple[int, int], ...] = (
        (1, 48),
        (16, 48),
        (32, 48),
        (64, 48),
        (16, 256),
        (16, 1024),
    )
    """(slots, tokens per row) of which the peak memory is measured, each in a process of its
    own."""


QUICK: dict[str, object] = {
    "samples": 1,
    "edits": 4,
    "slots": 4,
    "epochs": 1,
    "reference_steps": 2,
    "exact_adapters": 2,
    "exact_slots": 2,
    "exact_epochs": 1,
    "evaluation_adapters": 4,
    "evaluation_reference_adapters": 2,
    "evaluation_queries": 2,
    "answer_tokens": 8,
    "evaluation_epochs": 1,
    "agreement_contexts": 2,
    "agreement_edits": 2,
    "agreement_epochs": 1,
    "service_adapters": 4,
    "front_door_clients": 2,
    "front_door_alone": 1,
    "few_shot_samples": 1,
    "few_shot_loops": 2,
    "few_shot_rows": 2,
    "controller_runs": 10,
    "controller_rounds": 1,
    "scaling_slots": (1, 4),
    "scaling_steps": 1,
    "scaling_lengths": (16, 64),
    "profile_steps": 1,
    "memory_points": ((1, 48), (4, 48)),
}
"""What `--quick` sets: a few minutes in all, to try the harness; its figures mean nothing."""


def parse_sizes(overrides: Sequence[str], *, quick: bool = False) -> Sizes:
    """Sizes with `FIELD=VALUE` overrides, VALUE in YAML. Raises InvalidInput naming the field."""
    values: dict[str, object] = dict(QUICK) if quick else {}
    for override in overrides:
        name, equals, text = override.partition("=")
        if not equals or name not in Sizes.model_fields:
            raise InvalidInput(
                f"--size {override!r} sets no size",
                field="size",
                remedy="use FIELD=VALUE with one of: " + ", ".join(Sizes.model_fields),
            )
        values[name] = yaml.safe_load(text)
    try:
        return Sizes.model_validate(values)
    except ValidationError as error:
        detail = error.errors(include_url=False)[0]
        name = str(detail["loc"][0])
        raise InvalidInput(
            f"--size {name}: {detail['msg']}, got {detail['input']!r}",
            field=f"size.{name}",
            remedy="correct the value",
        ) from error
