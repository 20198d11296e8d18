"""What an M-step learns."""

from __future__ import annotations

from pydantic import Field

from seal.prompts import Message
from seal.records.base import Record


class LearntRow(Record):
    """One row of the M-step: what the policy learns to write after a prompt."""

    part: int
    """Index of the edit's part."""
    prompt: str
    """With the start of the part; with `messages` how the model's turn starts."""
    messages: tuple[Message, ...] = ()
    """Turns of a chat prompt; empty for a raw one."""
    completion: str
    """What follows the prompt: the part's text."""
    credit: float | None = None
    """What the part itself is held to have gained; None where it was chosen with its edit."""


class AbstainingRow(LearntRow):
    """A row of a part prompt on which the policy should write nothing."""

    context_id: str


class KeptEdit(Record):
    """One edit that the M-step learns, whole or some of its parts."""

    context_id: str
    candidate: int
    rows: tuple[LearntRow, ...]
    """What is learnt of it, at least one row."""
    reward: float
    gain: float
    sha256: str
    """Digest of the context's id and of the rows' prompts and completions."""


CONTROL_WITHOUT_REWARD = "control without reward"
"""Label of a selection, and of its round, that chance made and no reward."""


def written_by(model: str) -> str:
    """Label of a round whose policy has learnt edits that another model wrote."""
    return f"edits by {model}"


WARM_START = "warm start, supervised"
"""Label of a round 0 whose policy has learnt gold pairs."""


class GoldRow(Record):
    """One row of the warm start."""

    context_id: str
    """Training context whose gold pair it is."""
    row: LearntRow


class SupervisedRecord(Record):
    """What the warm start learnt: gold pairs of training contexts, which no reward chose."""

    label: str = WARM_START
    """What must be said wherever the round is shown."""
    rows: tuple[GoldRow, ...]
    dropped: dict[str, int]
    """Rows left out, by reason."""
    sha256: str
    """Digest over what is learnt, in order."""


class SelectionRecord(Record):
    """What a round kept and why the rest was dropped."""

    round: int
    label: str = ""
    """What must be said wherever the round is shown (`CONTROL_WITHOUT_REWARD`,
    `written_by`); else empty."""
    kept: tuple[KeptEdit, ...]
    abstaining: tuple[AbstainingRow, ...] = ()
    """Learnt beside the kept edits."""
    dropped: dict[str, int]
    """Candidates of which nothing is kept by reason (`seal.restem.select.DropReason`)."""
    dropped_parts: dict[str, int] = Field(default={})
    """Where parts are chosen: those not kept by reason (`seal.restem.select.PartDropReason`)."""
    too_long: tuple[tuple[str, int], ...] = ()
    """Where whole edits are chosen: (context, candidate) of those that would have been kept, but
    have a row that the trainer does not take."""
    sha256: str
    """Digest over the kept edits' digests and those of the abstaining rows, in order."""

    @property
    def rows(self) -> tuple[LearntRow, ...]:
        """All that the M-step learns."""
        return (*(row for edit in self.kept for row in edit.rows), *self.abstaining)
