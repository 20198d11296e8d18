"""Local mode with models beside the one that learns: a second engine, an endpoint, a judge."""

from __future__ import annotations

import io
import json
from pathlib import Path

import pytest
from controller_harness import IMPATIENT, RUN, small_spec
from engine_services import ENGINE
from openai_server import MODEL, Call, Reply, openai_server, says
from tiny_model import save_tiny_model

from controller_svc.core import Phase
from controller_svc.local.observer import SILENT
from controller_svc.local.services import OtherModels, local_services
from controller_svc.local.world import run_local
from seal.artifacts import ArtifactStore
from seal.engine import load_adapter
from seal.errors import InvalidInput
from seal.records import AdapterReference, Stage
from seal.resources import RestEMRun
from seal.runs.shards import ShardStore
from seal.runs.store import read_prepared, read_selection
from seal.settings import EndpointSettings, JudgeSettings, RunSpec
from seal.telemetry import configure_logging

SMALL_LORA = {"rank": 2, "alpha": 4.0, "target_modules": ("q_proj", "v_proj")}
KEY = "sk-a-very-secret-key"


def tiny_spec(directory: Path, **changes: object) -> RunSpec:
    """One round on a random model that learns over the base."""
    values: dict[str, object] = {
        "rounds": 1,
        "model": str(save_tiny_model(directory / "model")),
        "edit": {"k": 2, "max_tokens": 40},
        "inner": {
            "student": "base",
            "repeats": 1,
            "lora": SMALL_LORA,
            "optimizer": {"epochs": 2, "learning_rate": 0.05},
        },
        "improve": {"lora": SMALL_LORA, "optimizer": {"epochs": 1}},
        "evaluation": {"grader": "logprob", "max_tokens": 4},
        "validation": {"edits_per_context": 1, "retained_queries": 1},
        "artifacts": {"keep_inner_adapters": True},
    }
    return small_spec(directory, passages=(2, 1, 1), **(values | changes))


async def run_through(spec: RunSpec, root: Path, others: OtherModels) -> None:
    """The run, on services of this process."""
    async with local_services(spec.model, root=root, engine=ENGINE, others=others) as services:
        status = await run_local(
            RestEMRun.of(RUN, spec),
            root=root,
            services=services.addresses,
            progress=SILENT,
            settings=IMPATIENT,
        )
    assert status.phase is Phase.COMPLETE, status.condition("Failed")


def base_of(store: ArtifactStore, adapter: AdapterReference) -> str:
    with store.fetch_directory(adapter) as directory:
        return load_adapter(directory).base.name


async def test_one_tiny_model_writes_what_another_learns(tmp_path: Path) -> None:
    writer = str(save_tiny_model(tmp_path / "writer", "qwen2", seed=1))
    spec = tiny_spec(tmp_path, edit={"k": 2, "max_tokens": 40, "model": writer})
    root = tmp_path / "runs"
    await run_through(spec, root, OtherModels.of(spec, judge=None))
    store = ArtifactStore(str(root))
    prepared = await read_prepared(store, RUN)
    assert prepared is not None and prepared.writer is not None
    digests = {prepared.model.base_sha256, prepared.writer.base_sha256}
    assert len(digests) == 2 and "" not in digests
    improved = await shard(store, Stage.IMPROVE).summary()
    assert improved is not None and improved.policy is not None
    assert base_of(store, improved.policy) == writer
    loops = (await shard(store, Stage.ROLLOUT).inner_loops()).values()
    adapters = [loop.training.adapter for loop in loops if loop.training]
    assert {base_of(store, adapter) for adapter in adapters if adapter} == {spec.model}


def shard(store: ArtifactStore, stage: Stage) -> ShardStore:
    return ShardStore(store, run=RUN, round=1, stage=stage, shard=0)


def writes_and_judges(call: Call) -> Reply:
    """What edits it is asked for it writes, right is who says anything, and all notes are good."""
    system = str(call.body["messages"][0]["content"])  # type: ignore[index]
    if "grade answers" in system:
        return says("yes")
    if "rate notes" in system:
        return says(json.dumps(dict.fromkeys(("correct", "complete", "plain", "varied"), 4)))
    return says(f"The tower holds nine lamps.\nIt is number {call.body['seed']}.")


async def test_an_endpoint_writes_rates_and_judges_and_its_key_is_left_nowhere(
    tmp_path: Path,
) -> None:
    key_file = tmp_path / "key"
    key_file.write_text(KEY)
    log = io.StringIO()
    async with openai_server(writes_and_judges) as server:
        endpoint = {
            "base_url": server.base_url,
            "model": MODEL,
            "api_key_file": str(key_file),
        }
        spec = tiny_spec(
            tmp_path,
            edit={"k": 3, "max_tokens": 40, "generator": endpoint},
            inner={
                "student": "base",
                "repeats": 1,
                "preselect": 2,
                "preselect_by": "rubric",
                "lora": SMALL_LORA,
                "optimizer": {"epochs": 1},
            },
            evaluation={"grader": "judge", "max_tokens": 4},
        )
        judge = JudgeSettings(endpoint=EndpointSettings.model_validate(endpoint))
        configure_logging("debug", json=True, stream=log)
        try:
            await run_through(spec, tmp_path / "runs", OtherModels.of(spec, judge=judge))
        finally:
            configure_logging()
        assert {call.headers["authorization"] for call in server.calls} == {f"Bearer {KEY}"}
    store = ArtifactStore(str(tmp_path / "runs"))
    prepared, selection = await read_prepared(store, RUN), await read_selection(store, RUN, 1)
    assert prepared is not None and prepared.judge == MODEL
    assert selection is not None and selection.label == f"edits by {MODEL}"
    records, _ = await shard(store, Stage.ROLLOUT).read_records()
    assert {len(record.inner_loops) for record in records} == {2}
    assert all(part.logprob is None for record in records for part in record.edits[0].parts)
    written = [path for path in (tmp_path / "runs").rglob("*") if path.is_file()]
    assert log.getvalue() and written
    assert KEY not in log.getvalue()
    assert not [path for path in written if KEY.encode() in path.read_bytes()]


async def test_a_key_that_cannot_be_read_ends_local_mode_by_its_field(tmp_path: Path) -> None:
    endpoint = {
        "base_url": "http://127.0.0.1:9/v1",
        "model": MODEL,
        "api_key_file": str(tmp_path / "absent"),
    }
    spec = tiny_spec(tmp_path, edit={"k": 2, "max_tokens": 40, "generator": endpoint})
    with pytest.raises(InvalidInput) as refused:
        await run_through(spec, tmp_path / "runs", OtherModels.of(spec, judge=None))
    assert refused.value.field == "spec.edit.generator.apiKeyFile"
