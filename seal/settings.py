"""The configuration of a run, as pydantic models.

A docstring with the unit under each field, unknown fields refused, integers bounded. A manifest's
`spec` holds any part of `RunSpec`; what it leaves out comes from its profile
(`seal/profiles/*.yaml`): `embedded` is tuned for the 135M model on a CPU, `published` holds the
numbers of the paper (arXiv 2506.10943, appendix B) for 7B models on GPUs. Files write the fields in
camelCase, as Kubernetes does. This module is light: no torch, no network.
"""

from __future__ import annotations

from collections.abc import Sequence
from itertools import pairwise
from typing import Annotated, Literal, Self

from pydantic import BaseModel, BeforeValidator, ConfigDict, Field, model_validator
from pydantic.alias_generators import to_camel

from seal.errors import InvalidInput
from seal.limits import (
    MAX_ANSWER_TOKENS,
    MAX_CHECKPOINT_SECONDS,
    MAX_EDIT_TOKENS,
    MAX_EDITS,
    MAX_RANK,
    MAX_ROW_CHARACTERS,
    MAX_TARGET_MODULES,
    MAX_TEMPERATURE,
    MIN_TOP_P,
)

ALL_PROJECTIONS = ("q_proj", "k_proj", "v_proj", "o_proj", "gate_proj", "up_proj", "down_proj")

PromptFamily = Literal[
    "implications",
    "implications-long",
    "implications-very-long",
    "rewrite",
    "self-qa",
    "self-qa-by-sentence",
    "none",
    "chain-of-thought",
]
BY_SENTENCE: PromptFamily = "self-qa-by-sentence"
"""The family whose edits have many parts."""
PromptFormat = Literal["base", "chat"]
QuestionFormat = Literal["few-shot", "plain", "chat"]
GraderName = Literal["exact", "contains", "f1", "logprob"]
ComputeType = Literal["auto", "bfloat16", "float32"]
RacingScore = Literal["reward", "logprob"]
"""What the first rung ranks by."""
MAX_SEED = 2**63 - 1
"""A seed fits the 64-bit integer that Kubernetes and protobuf know."""
MAX_EPOCHS = 1000
"""Passes over the examples of one training."""


def _yaml_switch(value: object) -> object:
    """YAML reads a bare `on` or `off` as true or false."""
    return {True: "on", False: "off"}[value] if isinstance(value, bool) else value


class Settings(BaseModel):
    """Base of every settings model: frozen, unknown fields refused, numbers finite."""

    model_config = ConfigDict(
        frozen=True, extra="forbid", allow_inf_nan=False, use_attribute_docstrings=True
    )


class FileSettings(Settings):
    """Base of the settings that stand in files: there, and in every dump, camelCase.

    Python code writes the fields' own names; a file is validated by alias alone.
    """

    model_config = ConfigDict(
        alias_generator=to_camel,
        validate_by_name=True,
        validate_by_alias=True,
        serialize_by_alias=True,
    )


class LoraSettings(FileSettings):
    """Shape of a LoRA adapter (arXiv 2106.09685)."""

    rank: int = Field(default=32, ge=1, le=MAX_RANK)
    """Rank r."""
    alpha: float = Field(default=64.0, gt=0)
    """Scale numerator: the update is alpha / rank * B A."""
    target_modules: tuple[str, ...] = Field(
        default=("q_proj", "v_proj"), min_length=1, max_length=MAX_TARGET_MODULES
    )
    """Names of the linear layers that get an adapter, each once."""

    @model_validator(mode="after")
    def _targets_are_unique(self) -> Self:
        names = self.target_modules
        twice = next((name for place, name in enumerate(names) if name in names[:place]), None)
        if twice is not None:
            raise InvalidInput(
                f"{twice!r} occurs twice", field="targetModules", remedy="name each layer once"
            )
        return self


class OptimizerSettings(FileSettings):
    """AdamW over the adapter's weights."""

    learning_rate: float = Field(default=1e-3, gt=0, le=1.0)
    """Peak learning rate."""
    epochs: int = Field(default=10, ge=1, le=MAX_EPOCHS)
    """Passes over the examples."""
    batch_size: int = Field(default=1, ge=1, le=256)
    """Rows per optimiser step."""
    schedule: Literal["linear", "cosine", "constant"] = "linear"
    """Decay of the learning rate over the steps; linear and cosine end at 0."""
    warmup_ratio: float = Field(default=0.0, ge=0, lt=1)
    """Share of the steps in which the rate rises linearly from 0."""
    weight_decay: float = Field(default=0.0, ge=0)
    """Decoupled weight decay."""
    max_grad_norm: float = Field(default=1.0, ge=0)
    """Global gradient norm is clipped to this; 0 is no clipping."""
    pad_to_tokens: int = Field(default=0, ge=0, le=32_768)
    """0 trains on each row's own tokens and one end-of-sequence token. Else shorter rows are filled
    up to so many tokens with end-of-sequence tokens that all count as targets, as the published
    system does with 2,048: for comparison, at its cost."""


class EditSettings(FileSettings):
    """How the policy is asked for self-edits."""

    family: PromptFamily = "implications"
    """Prompt family."""
    format: PromptFormat = "base"
    """Continuation prompt (base models) or the model's chat template."""
    k: int = Field(default=5, ge=1, le=1024)
    """Candidates per context in a rollout."""
    temperature: float = Field(default=1.0, ge=0, le=MAX_TEMPERATURE)
    """Softmax temperature; 0 is greedy."""
    top_p: float = Field(default=0.95, ge=MIN_TOP_P, le=1)
    """Nucleus mass."""
    max_tokens: int = Field(default=512, ge=1, le=MAX_EDIT_TOKENS)
    """Upper bound of new tokens per edit, or per part of an edit in parts."""
    trained_prompt: Literal["worked", "short"] = "worked"
    """How a policy that was trained in this run is asked, and what its M-step learns to follow: the
    prompt of the untrained policy, or one without worked examples (`short`). Families that have no
    such prompt go on with the one they have."""


class ExampleSettings(FileSettings):
    """How an edit becomes training examples."""

    passage_repeats: int = Field(default=1, ge=0, le=1000)
    """How often the passage itself is appended to the examples."""
    question_answer: Literal["document", "prompted"] = "document"
    """A question-answer pair as one document (as published), or as prompt and completion in the
    question format of the evaluation."""
    grounded_answers: bool = False
    """Drop a question-answer pair whose answer does not stand in the text that it was written on
    (the sentence in `self-qa-by-sentence`, else the passage), or stands in its question: a check of
    what a small model makes up."""
    shared_word: bool = False
    """Drop a question-answer pair whose question shares no word with the text that it was written
    on, beyond the title's and the answer's words and such words as "of": it asks for something
    else."""
    max_per_answer: int = Field(default=0, ge=0, le=1000)
    """Question-answer pairs kept of those on the same text with the same answer, the first ones; 0
    keeps all."""
    max_examples: int = Field(default=128, ge=1, le=10_000)
    """Examples taken from one edit; what is beyond is dropped: the last ones, or of an edit by
    sentences those that leave the same number to every sentence."""
    max_characters: int = Field(default=4000, ge=1, le=MAX_ROW_CHARACTERS)
    """Characters of one example; a longer one is cut at a word."""


class InnerLoopSettings(FileSettings):
    """Training of one candidate's adapter."""

    student: Literal["base", "policy"] = "policy"
    """What learns an edit and is asked: the policy that wrote it, as published, or the `base` model
    alone. Over the base the policy only writes: adapters do not drift with it and are served
    without it, and what a context's baseline and bounds are is the same in every round."""
    lora: LoraSettings = LoraSettings()
    """Shape of the adapter."""
    optimizer: OptimizerSettings = OptimizerSettings()
    """How it is trained."""
    examples: ExampleSettings = ExampleSettings()
    """What it is trained on."""
    repeats: int = Field(default=3, ge=1, le=100)
    """Trainings per candidate, each with its own seeds; the reward is their mean."""
    preselect: int = Field(default=0, ge=0, le=1024)
    """In a rollout, how many candidates of a context are trained on, those that promise most by
    their pairs' likeness to the context's questions and gold answers (seal.restem.preselect); 0
    trains on all. Validation always trains on all."""
    racing: tuple[int, ...] = ()
    """In a rollout, how many candidates of a context are trained again after each repeat but the
    last, the best first: `[2]` with 2 repeats of 5 candidates takes 7 trainings instead of 10, `[3,
    2]` with 3 repeats of 10 takes 15. Only those that ran all repeats can be kept. Empty: every
    candidate gets all repeats. Bounds and validation always get all: a race would flatter what it
    measures."""
    racing_score: RacingScore = "reward"
    """What the first repeat of a race ranks by: the reward, or the mean log-probability of the gold
    answers, which is finer than a few right or wrong answers. It is measured with every reward, so
    that it costs nothing and saves nothing. Later repeats rank by the mean reward."""


class EvaluationSettings(FileSettings):
    """How an adapted model is asked and graded."""

    question_format: QuestionFormat = "plain"
    """Question prompt; `few-shot` carries three fixed, unrelated question-answer pairs so that
    format is not counted as knowledge."""
    grader: GraderName = "contains"
    """What the reward is the mean of."""
    max_tokens: int = Field(default=64, ge=1, le=MAX_ANSWER_TOKENS)
    """Upper bound of new tokens per answer."""


class ImproveSettings(FileSettings):
    """The M-step: supervised finetuning of the policy on the kept (prompt, edit) pairs."""

    lora: LoraSettings = LoraSettings(rank=64, alpha=128.0, target_modules=ALL_PROJECTIONS)
    """Shape of the policy update."""
    optimizer: OptimizerSettings = OptimizerSettings(learning_rate=3e-4, epochs=2, batch_size=10)
    """How it is trained."""
    start: Literal["policy", "base"] = "policy"
    """`policy`: train on top of the last policy and export both as one adapter; `base`: train anew
    from the base model."""
    warm_start: Literal["none", "gold"] = "none"
    """`gold`: before the first round the policy learns gold questions of the training contexts that
    the round takes, as edits of `edit.family` would ask them. Supervised, and labelled so: the
    policy of round 0 is then this one, and the rounds go on from it. Held-out questions are never
    learnt."""
    keep_per_context: int = Field(default=1, ge=1, le=1024)
    """Best edits kept per context; no matter with `credit: part`."""
    credit: Literal["edit", "part"] = "edit"
    """`edit`: the best whole edits are learnt, by their mean reward; `part`: the parts that helped
    are, by the scores of the queries that they can serve (seal.restem.credit)."""
    min_credit: float = Field(default=0.05, ge=0, le=1000)
    """Parts with more credit than this are kept, in queries of their context: 0.05 is a twentieth
    of one query more answered."""
    max_parts_per_context: int = Field(default=0, ge=0, le=1_000_000)
    """Parts kept per context, the best; 0 keeps all above `min_credit`."""
    selection: Literal["reward", "random"] = "reward"
    """`random`: the control without reward. As many parts of each context as credit would keep,
    drawn from all that could have had credit; not with `inner.preselect`, which gold answers
    decide."""
    abstain_share: float = Field(default=0.0, ge=0, le=10)
    """Rows by which the policy learns to write nothing, per kept part: for part prompts to which
    all texts were filtered out or did harm, drawn by chance. With `selection: random` only the
    former."""
    checkpoint_every_seconds: float = Field(default=60.0, ge=0, le=MAX_CHECKPOINT_SECONDS)
    """Seconds between two checkpoints of the training, from which an interrupted one goes on; 0
    keeps none."""


class ValidationSettings(FileSettings):
    """Measuring a policy on held-out contexts."""

    edits_per_context: int = Field(default=1, ge=1, le=1024)
    """Edits sampled per validation context; the context's score is their mean."""
    empty_edit: Literal["invalid", "passage"] = "invalid"
    """An edit without training examples: `invalid` has no score; `passage` trains on the passage
    alone, which is what it comes to for one who adapts with the policy. No effect on rollouts."""
    passage: OptimizerSettings | None = None
    """How the bound of the passage alone is trained, where it has a best rate and best epochs of
    its own; none trains it as the edits, with `inner.optimizer`."""
    equal_steps: bool = False
    """Also train on the passage alone, once, with the rate of the edits and as many optimiser steps
    as the context's first edit has: one row takes few steps where an edit takes many."""
    open_book: bool = False
    """Also ask the base model with the passage before the question: the ceiling of reading, where
    nothing is trained."""
    gold_bound: bool = False
    """Also train on the gold question-answer pairs, once: the upper bound. Never shown to the
    policy."""
    retained_queries: int = Field(default=4, ge=0, le=1000)
    """Open-book questions of the retained set asked of every adapted model, to measure
    forgetting."""


class DataSettings(FileSettings):
    """Where the contexts come from.

    SQuAD files, Hugging Face rows or rows of our own (README), as JSON or JSONL: a path, or
    `corpus://NAME` for the embedded corpus.
    """

    train: str = "corpus://train"
    """Contexts of the rollouts."""
    validation: str = "corpus://validation"
    """Held-out contexts."""
    retained: str = "corpus://retained"
    """Passages for open-book questions; empty for none."""
    train_contexts: int = Field(default=0, ge=0, le=10_000_000)
    """Contexts a round takes from the training set; 0 takes all."""
    validation_contexts: int = Field(default=0, ge=0, le=10_000_000)
    """Validation contexts taken from the start of the file; 0 takes all."""


class ArtifactSettings(FileSettings):
    """What a run leaves in the artifact store beside its records and policies."""

    keep_inner_adapters: bool = False
    """Keep the adapter of every inner loop; else it is deleted once its shard has a summary."""


class EngineSettings(FileSettings):
    """One engine: a frozen base model and its slots."""

    slots: int = Field(default=16, ge=0, le=4096)
    """Adapters trained at once; 0 for an engine that trains nothing."""
    dtype: ComputeType = "auto"
    """Compute type; masters and optimiser state are always float32. `auto`: bfloat16 where the
    device multiplies it in hardware, else float32."""
    device: str = "cpu"
    """torch device."""
    threads: int = Field(default=0, ge=0, le=4096)
    """CPU threads that the engine computes with; 0 takes OMP_NUM_THREADS, or the cores, but no
    more than the container's CPU limit buys."""
    max_rank: int = Field(default=128, ge=1, le=MAX_RANK)
    """Largest LoRA rank that is accepted."""
    max_row_tokens: int = Field(default=2048, ge=1, le=1_048_576)
    """Longest training example, tokens."""
    max_pass_tokens: int = Field(default=2048, ge=1, le=16_777_216)
    """Tokens of one forward and backward pass, within half a row; a larger step is cut into
    several."""
    evaluation_rows: int = Field(default=192, ge=1, le=65_536)
    """Rows decoded at once in an evaluation, at most: rows that memory has no room for wait."""
    generation_rows: int = Field(default=64, ge=1, le=65_536)
    """Rows sampled at once, at most: rows that memory has no room for wait."""
    max_queue: int = Field(default=1024, ge=1, le=10_000_000)
    """Requests of each kind that may wait; more are refused with RESOURCE_EXHAUSTED."""
    stall_seconds: float = Field(default=600.0, gt=0)
    """The engine counts as broken once work waits and no step has ended for so long."""
    memory_bytes: int = Field(default=0, ge=0, le=2**50)
    """Bytes that the engine may take, base model included; 0 takes what the device has free. Slots
    that need more are refused."""
    gradient_checkpointing: Annotated[
        Literal["auto", "on", "off"], BeforeValidator(_yaml_switch)
    ] = "auto"
    """Compute each layer again in the backward pass in place of keeping its activations; `auto`: in
    passes that do not fit otherwise."""


class RunSpec(FileSettings):
    """The algorithm of one ReST^EM run; where and how it is computed is no part of it."""

    profile: Literal["embedded", "published"] = "embedded"
    """Where the fields that the manifest leaves out come from."""
    seed: int = Field(default=0, ge=0, le=MAX_SEED)
    """Every sample, shuffle and initial weight derives from it."""
    model: str = "smollm2-135m"
    """Base model: an embedded name, a path, `file://`, or `org/model[@revision]` of the hub."""
    domain: Literal["knowledge"] = "knowledge"
    """What is learnt."""
    rounds: int = Field(default=2, ge=0, le=1000)
    """ReST^EM rounds; 0 only measures the base policy, or the warm start."""
    shards: int = Field(default=1, ge=1, le=10_000)
    """Parts into which the contexts of a stage are cut; each is one task or Job index."""
    data: DataSettings = DataSettings()
    """Contexts."""
    edit: EditSettings = EditSettings()
    """Sampling of edits."""
    inner: InnerLoopSettings = InnerLoopSettings()
    """Inner loop."""
    evaluation: EvaluationSettings = EvaluationSettings()
    """Reward."""
    improve: ImproveSettings = ImproveSettings()
    """M-step."""
    validation: ValidationSettings = ValidationSettings()
    """Validation."""
    artifacts: ArtifactSettings = ArtifactSettings()
    """What is kept. It may be changed by a resume."""
    max_unscored_share: float = Field(default=0.5, ge=0, le=1)
    """Share of a stage's inner loops that may be without a score; above it the run fails with
    `TooFewScores`. It may be changed by a resume."""

    @model_validator(mode="after")
    def _edits_are_there(self) -> Self:
        """What is measured by self-edits needs a family that writes some."""
        if not self.edit.family.startswith("self-qa") and self.improve.warm_start == "gold":
            raise InvalidInput(
                f"edits of family {self.edit.family!r} ask no questions that gold ones could be "
                "learnt as",
                field="improve.warmStart",
                remedy="set it to none, or edit.family to a self-qa family",
            )
        if self.edit.family == "none" and self.validation.equal_steps:
            raise InvalidInput(
                "family 'none' writes no edit that the passage could be given the steps of",
                field="validation.equalSteps",
                remedy="set it to false, or choose an edit.family that writes edits",
            )
        return self

    @property
    def trained_candidates(self) -> int:
        """Candidates of a context that a rollout trains on."""
        return self.inner.preselect or self.edit.k

    @model_validator(mode="after")
    def _preselection_fits(self) -> Self:
        """Of `edit.k` candidates no more than that, and at least `improve.keepPerContext`."""
        chosen, keep = self.inner.preselect, self.improve.keep_per_context
        if chosen and self.improve.selection == "random":
            raise InvalidInput(
                "gold answers say which candidates are trained on, so that a control would not be "
                "without reward",
                field="inner.preselect",
                remedy="set it to 0 in the control and in the run that it is for",
            )
        if chosen > self.edit.k:
            raise InvalidInput(
                f"{chosen} of {self.edit.k} candidates cannot be trained on",
                field="inner.preselect",
                remedy=f"give {self.edit.k} or fewer, 0 for all, or raise edit.k",
            )
        if chosen and keep > chosen and self.improve.credit == "edit":
            raise InvalidInput(
                f"{keep} edits of a context cannot be kept where {chosen} are trained on",
                field="improve.keepPerContext",
                remedy=f"keep {chosen} or fewer, or raise inner.preselect",
            )
        return self

    @model_validator(mode="after")
    def _racing_fits(self) -> Self:
        """A race runs from `edit.k` over `inner.repeats` to at least `improve.keepPerContext`."""
        racing, keep = self.inner.racing, self.improve.keep_per_context
        if racing:
            check_survivors(racing, candidates=self.trained_candidates, repeats=self.inner.repeats)
        if racing and keep > racing[-1]:
            raise InvalidInput(
                f"{keep} edits of a context cannot be kept where {racing[-1]} end the race",
                field="improve.keepPerContext",
                remedy=f"keep {racing[-1]} or fewer, or let more end inner.racing",
            )
        return self

    @property
    def learns(self) -> bool:
        """Whether the policy is trained at all, so that training contexts are read."""
        return self.rounds > 0 or self.improve.warm_start == "gold"

    def learnt_rows_at_most(self, contexts: int) -> int:
        """Rows of an M-step on so many contexts, if as much is kept as can be."""
        improve, many_parts = self.improve, self.edit.family == BY_SENTENCE
        per_edit = self.inner.examples.max_examples if many_parts else 1
        if improve.credit == "edit":
            return contexts * min(improve.keep_per_context, self.edit.k) * per_edit
        kept = contexts * min(improve.max_parts_per_context or MAX_EDITS, self.edit.k * per_edit)
        return kept + int(improve.abstain_share * kept)

    @model_validator(mode="after")
    def _credit_fits(self) -> Self:
        """Credit to parts needs question-answer pairs and scores of 0 to 1."""
        improve = self.improve
        if improve.credit == "part":
            if not self.edit.family.startswith("self-qa"):
                raise InvalidInput(
                    f"parts of {self.edit.family!r} ask no question that a query could be "
                    "compared with",
                    field="improve.credit",
                    remedy="set edit.family to a self-qa family, or improve.credit to edit",
                )
            if self.evaluation.grader == "logprob":
                raise InvalidInput(
                    "credit is counted in answered queries, and a log-probability is none",
                    field="evaluation.grader",
                    remedy="use exact, contains or f1, or set improve.credit to edit",
                )
            if improve.abstain_share and self.edit.family != BY_SENTENCE:
                raise InvalidInput(
                    f"an edit of {self.edit.family!r} is one part, which always fits",
                    field="improve.abstainShare",
                    remedy=f"set edit.family to {BY_SENTENCE}, or leave it out",
                )
            return self
        if improve.selection == "random" or improve.abstain_share:
            field = "selection" if improve.selection == "random" else "abstainShare"
            raise InvalidInput(
                "parts are chosen by it, and whole edits are learnt",
                field=f"improve.{field}",
                remedy=f"set improve.credit to part, or leave improve.{field} out",
            )
        return self


def check_survivors(survivors: Sequence[int], *, candidates: int, repeats: int) -> None:
    """Refuse a schedule that is no race.

    Raises:
        InvalidInput: numbers that do not fall strictly from below `candidates` to 1 or more, or not
            one number per repeat but the last.
    """
    sizes = (candidates, *survivors)
    shown = list(survivors)
    if survivors[-1] < 1 or any(after >= before for before, after in pairwise(sizes)):
        raise InvalidInput(
            f"survivors {shown} of {candidates} candidates do not become fewer with every repeat",
            field="inner.racing",
            remedy=f"give numbers that fall strictly, from below edit.k = {candidates} (or "
            "inner.preselect) to 1 or more, or none",
        )
    if len(sizes) != repeats:
        raise InvalidInput(
            f"a race to {shown} has {len(sizes)} repeats, but inner.repeats is {repeats}",
            field="inner.racing",
            remedy=f"set inner.repeats to {len(sizes)}, or inner.racing to "
            f"{'[]' if repeats == 1 else f'{repeats - 1} numbers'}",
        )
