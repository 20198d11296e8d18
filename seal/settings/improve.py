"""The M-step."""

from __future__ import annotations

from typing import Literal

from pydantic import Field

from seal.limits import MAX_CHECKPOINT_SECONDS
from seal.settings.base import FileSettings
from seal.settings.training import ALL_PROJECTIONS, LoraSettings, OptimizerSettings


class ImproveSettings(FileSettings):
    """The M-step: supervised finetuning of the policy on the kept (prompt, edit) pairs."""

    lora: LoraSettings = LoraSettings(rank=64, alpha=128.0, target_modules=ALL_PROJECTIONS)
    """Shape of the policy update."""
    optimizer: OptimizerSettings = OptimizerSettings(learning_rate=3e-4, epochs=2, batch_size=10)
    """How it is trained."""
    start: Literal["policy", "base"] = "policy"
    """`policy`: train on top of the last policy and export both as one adapter, whose rank so grows
    by that of `lora` each time; `base`: train anew from the base model."""
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
    """`random`: the control without reward. As many edits of each context as the reward would keep,
    drawn from all that have one; with `credit: part` as many parts as credit would keep, drawn from
    all that could have had credit. Not with `inner.preselect`, which gold answers decide."""
    abstain_share: float = Field(default=0.0, ge=0, le=10)
    """Rows by which the policy learns to write nothing, per kept part: for part prompts to which
    all texts were filtered out or did harm, drawn by chance. With `selection: random` only the
    former."""
    checkpoint_every_seconds: float = Field(default=60.0, ge=0, le=MAX_CHECKPOINT_SECONDS)
    """Seconds between two checkpoints of the training, from which an interrupted one goes on; 0
    keeps none."""
