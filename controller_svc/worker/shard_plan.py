"""The work of one shard of a rollout or a validation."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from controller_svc.worker.bounds import Bound
from controller_svc.worker.requests import NOTHING_RETAINED, RetainedSet
from seal.domains.base import Context
from seal.runs.shards import Alone
from seal.runs.task import ShardTask
from seal.settings import OptimizerSettings


@dataclass(frozen=True, kw_only=True)
class ShardPlan:
    """The work of one shard."""

    contexts: tuple[tuple[int, Context], ...]
    """(index in the stage, context)."""
    k: int
    """Edits per context; 0 for a prompt family without edits. A context without queries gets one,
    and neither baseline nor inner loops."""
    preselect: int = 0
    """Edits of a context that get inner loops (seal.restem.preselect); 0 gives them to all. It
    looks at gold answers: for training contexts alone."""
    survivors: tuple[int, ...] = ()
    """Edits of a context that get the second, third, ... repeat, the best first; empty: all get all
    (seal.restem.racing)."""
    bounds: tuple[Bound, ...] = ()
    """What is measured beside the edits."""
    passage_optimizer: OptimizerSettings | None = None
    """How the bound of the passage alone is trained; none trains it as the edits."""
    passage_if_empty: bool = False
    """An edit without examples is measured as the passage alone; else it is invalid."""
    baseline_if_empty: bool = False
    """An edit without examples is measured as its context's baseline; else it is invalid."""
    retained: RetainedSet = NOTHING_RETAINED
    """Questions on other passages; empty for none."""
    retained_per_model: int = 0
    """Of these, asked of each adapted model."""
    retained_alone: tuple[Alone, ...] = ()
    """Models that are asked all of them without an inner adapter; one shard of a stage asks."""

    def edits_of(self, context: Context) -> int:
        """Edits of one context: where no query could tell them apart, one will do."""
        return self.k if context.queries else min(1, self.k)

    def by_edits(self) -> Iterator[tuple[int, tuple[tuple[int, Context], ...]]]:
        """The contexts by how many edits they get, those with queries first."""
        for asked in (True, False):
            members = tuple(one for one in self.contexts if bool(one[1].queries) is asked)
            if members and (k := self.edits_of(members[0][1])):
                yield k, members


def shard_of(contexts: Sequence[Context], task: ShardTask) -> tuple[tuple[int, Context], ...]:
    """Every `shards`-th context from the shard's own on, with its index in the stage."""
    return tuple(enumerate(contexts))[task.shard :: task.shards]
