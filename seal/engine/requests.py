"""What callers hand to the engine and what they get back.

The engine knows nothing of SEAL: slots, rows, seeds, tokens.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from enum import StrEnum

from seal.engine.peft_format import Adapter
from seal.outcomes import Outcome
from seal.prompts import Prompt
from seal.settings import LoraSettings, OptimizerSettings


class TaskState(StrEnum):
    """Where a request is."""

    QUEUED = "queued"
    """Waits for a slot."""
    RUNNING = "running"
    """Holds a slot."""
    DONE = "done"
    """Ended."""


@dataclass(frozen=True, kw_only=True)
class TrainingRequest:
    """One adapter to train."""

    run: str
    """Whom it is for; the scheduler is fair between runs."""
    policy: Adapter | None
    """Frozen adapter beneath the new one."""
    examples: tuple[tuple[str | Prompt, str], ...]
    """(prompt, completion): loss is on the completion and one end-of-sequence token. A string is a
    raw prompt."""
    lora: LoraSettings
    optimizer: OptimizerSettings
    init_seed: int
    order_seed: int
    with_policy: bool = False
    """Export policy and new adapter as one."""


@dataclass(frozen=True)
class TrainingProgress:
    """News of one training."""

    state: TaskState
    step: int
    total_steps: int
    loss: float
    """Mean loss of the last step, nats per target token."""
    eta_seconds: float
    resumed_step: int = 0
    """Step at which a checkpoint was taken up; 0 if the training began here."""
    tokens: int = 0
    """Real tokens trained on so far."""


@dataclass(frozen=True, kw_only=True)
class TrainingResult:
    """The end of one training."""

    outcome: Outcome
    """ok, diverged or cancelled."""
    adapter: Adapter | None
    steps: int
    final_loss: float
    """Mean loss over the last epoch, nats per target token."""
    tokens: int
    """Real tokens forwarded with gradient."""
    seconds: float
    """From joining the batch to the end."""
    engine_seconds: float
    """Share of the engine's time: the shares of one step sum to the step."""


@dataclass(frozen=True, kw_only=True)
class GenerationRequest:
    """Texts to sample."""

    run: str
    policy: Adapter | None
    prompts: tuple[str | Prompt, ...]
    seeds: tuple[tuple[int, ...], ...]
    """Seeds of each prompt's samples."""
    temperature: float
    """0 is greedy."""
    top_p: float
    max_tokens: int
    stop: tuple[str, ...] = ()
    """Strings that end a sample; they are not part of it."""
    json_schema: str = ""
    """JSON schema that every sample conforms to unless max_tokens cut it off; empty for none. Only
    a backend with structured decoding takes one."""


@dataclass(frozen=True)
class Sample:
    """One sampled text."""

    text: str
    seed: int
    tokens: int
    truncated: bool
    """max_tokens cut it off."""
    logprob: float | None = field(compare=False)
    """Mean log p of its tokens, nats, an ending one included; 0 without a token, None where nobody
    knows it. By the model itself, at temperature 1 and before top_p, whatever it was sampled with.
    Rounding follows the company in the batch, the text does not: equal samples may differ in the
    last digits."""


@dataclass(frozen=True, kw_only=True)
class GenerationResult:
    """Samples of each prompt, in the order of the seeds."""

    samples: tuple[tuple[Sample, ...], ...]
    engine_seconds: tuple[float, ...]
    """Share of the engine's time of each prompt."""


@dataclass(frozen=True, kw_only=True)
class EvaluationRequest:
    """Questions to answer greedily and gold completions to score."""

    run: str
    policy: Adapter | None
    adapter: Adapter | None
    prompts: tuple[str | Prompt, ...]
    golds: tuple[str, ...]
    """One completion per prompt, scored teacher-forced."""
    max_tokens: int
    stop: tuple[str, ...] = ()


@dataclass(frozen=True, kw_only=True)
class EvaluationResult:
    """Answers and scores."""

    answers: tuple[str, ...]
    logprobs: tuple[float, ...]
    """Mean log p of each gold completion's tokens, nats."""
    max_logit_difference: float
    """Largest absolute difference of the adapted logits to the policy's after the first prompt; 0
    without an adapter."""
    tokens: int
    """Tokens generated."""
    engine_seconds: float
