"""A few-shot run on a laptop: real services, a tiny random model, edits that an endpoint writes.

A random model solves nothing, so that the reward is the log-probability of the gold grid; its own
edits, of the round after the endpoint's, hold nothing and count as the baseline.
"""

from __future__ import annotations

from pathlib import Path

import pytest
from controller_harness import IMPATIENT, RUN
from engine_services import ENGINE
from few_shot import few_shot_spec
from few_shot_edits import settings_edit
from openai_server import MODEL, Call, Reply, openai_server, says
from tiny_model import save_tiny_model

from controller_svc.core import Phase
from controller_svc.local.observer import SILENT
from controller_svc.local.services import OtherModels, local_services
from controller_svc.local.world import run_local
from seal.artifacts import ArtifactStore
from seal.records import ContextRecord, Stage
from seal.report.numbers.build import build_report
from seal.report.page.html import render_html
from seal.resources import RestEMRun
from seal.runs.shards import ShardStore
from seal.runs.store import read_selection
from seal.settings import RunSpec

NO_EDIT = "turn it around"


def written(call: Call) -> Reply:
    """Every fourth edit is none."""
    return says(NO_EDIT if call.number % 4 == 0 else settings_edit(call.number), tokens=95)


async def records_of(store: ArtifactStore, stage: Stage, round: int) -> tuple[ContextRecord, ...]:
    records, _ = await ShardStore(store, run=RUN, round=round, stage=stage, shard=0).read_records()
    return records


def spec_of(directory: Path, base_url: str) -> RunSpec:
    return few_shot_spec(
        directory,
        model=str(save_tiny_model(directory / "model")),
        edit={
            "family": "train-settings",
            "format": "chat",
            "k": 2,
            "max_tokens": 112,
            "generator": {"base_url": base_url, "model": MODEL},
        },
        evaluation={
            "question_format": "digits",
            "grader": "logprob",
            "max_tokens": 6,
        },
    )


@pytest.mark.timeout(240)
async def test_a_few_shot_run_goes_from_files_of_tasks_to_a_report(tmp_path: Path) -> None:
    root = tmp_path / "runs"
    async with openai_server(written) as server:
        spec = spec_of(tmp_path, server.base_url)
        async with local_services(
            spec.model, root=root, engine=ENGINE, others=OtherModels.of(spec, judge=None)
        ) as services:
            status = await run_local(
                RestEMRun.of(RUN, spec),
                root=root,
                services=services.addresses,
                progress=SILENT,
                settings=IMPATIENT,
            )
    assert status.phase is Phase.COMPLETE, status.condition("Failed")
    store = ArtifactStore(str(root))
    rollout = await records_of(store, Stage.ROLLOUT, 1)
    tried = [edit for record in rollout for edit in record.edits if edit.examples]
    assert tried
    for edit in tried:
        assert edit.optimizer is not None and len(edit.examples) <= 6
    before = await records_of(store, Stage.VALIDATE, 0)
    for record in before:
        kinds = [loop.kind for loop in record.inner_loops]
        assert kinds == ["edit", "fixed-edit", "oracle-edit"]
        fixed, oracle = (loop for loop in record.inner_loops if loop.kind != "edit")
        assert fixed.training and oracle.training
    after = await records_of(store, Stage.VALIDATE, 1)
    for record in after:
        (loop,) = record.inner_loops
        assert loop.training is None and loop.evaluation is not None
        assert loop.evaluation.reward == record.baseline.reward, "nothing was trained"
    selection = await read_selection(store, RUN, 1)
    assert selection is not None and selection.kept
    report = build_report(store, RUN)
    assert [row.key for row in report.rows] == [
        "base",
        "fixed-edit",
        "edit-0",
        "edit-1",
        "oracle-edit",
    ]
    assert report.rows[0].label == "in-context learning"
    assert report.measures == ("grid", "shape", "cells")
    (chosen,) = {frozenset(shape.choices) for shape in report.shapes if shape.choices}
    assert "learning rate" in chosen
    page = render_html(report)
    assert "What the policy chose" in page
    assert "a task shows an unknown rule on a few grids" in page
    said = " ".join((report.headline, *report.findings, *report.notes, report.interval))
    assert "passage" not in said.lower()
