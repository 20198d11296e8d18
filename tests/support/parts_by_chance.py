"""Edits by sentence on the fakes, whose parts are credited by chance.

The fakes' pairs have nothing to do with the questions: here each serves each by a hash. Their
answers are the last words of the passages' sentences, one of which each gold answer holds.
"""

from __future__ import annotations

from pathlib import Path

import pytest
from controller_harness import small_spec
from fake_services import chance

from seal.domains.base import Query
from seal.domains.knowledge import KnowledgeDomain
from seal.settings import EditSettings, ImproveSettings, InnerLoopSettings, RunSpec


def use_chance_affinity(monkeypatch: pytest.MonkeyPatch) -> None:
    """Let a pair serve a query as far as a hash of both says."""

    def affinity(
        self: KnowledgeDomain, question: str, answer: str, query: Query, *, title: str
    ) -> float:
        return chance("affinity", question, query.question)

    monkeypatch.setattr(KnowledgeDomain, "affinity", affinity)


def parts_spec(directory: Path, **changes: object) -> RunSpec:
    """Credit to parts, with abstaining rows."""
    values: dict[str, object] = {
        "rounds": 1,
        "edit": EditSettings(family="self-qa-by-sentence", k=2, trained_prompt="short"),
        "inner": InnerLoopSettings(repeats=1),
        "improve": ImproveSettings(credit="part", min_credit=0.01, abstain_share=0.5),
    }
    spec = small_spec(directory, **values | changes)
    train = Path(spec.data.train)
    train.write_text(train.read_text().replace(" lamp 0", " hills").replace(" lamp ", " lamps "))
    return spec
