"""A whole adaptation on a real engine with a tiny random model."""

from __future__ import annotations

from pathlib import Path

import pytest
from adaptation_harness import RUN, Adapting, adaptation_spec
from controller_harness import IMPATIENT
from engine_services import ENGINE
from tiny_model import save_tiny_model

from controller_svc.local.services import local_services
from controller_svc.worker.clients import ServiceClients
from seal.artifacts import ArtifactStore
from seal.outcomes import Outcome
from seal.records import GateReason, Stage
from seal.settings import (
    AdapterTraining,
    EditSettings,
    GateSettings,
    InnerLoopSettings,
    LoraSettings,
    OptimizerSettings,
    PassageSettings,
)


@pytest.mark.parametrize("given", [True, False])
async def test_a_real_engine_trains_measures_and_finds_everything_again(
    tmp_path: Path, given: bool
) -> None:
    root = str(tmp_path / "artifacts")
    store = ArtifactStore(root)
    spec = adaptation_spec(
        tmp_path,
        store,
        given=given,
        model=str(save_tiny_model(tmp_path / "model")),
        edit=EditSettings(family="implications", k=2, max_tokens=12),
        passages=PassageSettings(max_tokens=256),
        inner=InnerLoopSettings(
            student="base",
            repeats=1,
            lora=LoraSettings(rank=2),
            optimizer=OptimizerSettings(epochs=1),
        ),
        adapter=AdapterTraining(
            lora=LoraSettings(rank=2), optimizer=OptimizerSettings(epochs=2), replay_rows=1
        ),
        gate=GateSettings(retained_questions=2),
    )
    async with (
        local_services(spec.model, root=root, engine=ENGINE) as services,
        ServiceClients(services.addresses, IMPATIENT) as clients,
    ):
        place = Adapting(spec, store, clients)
        result = await place.run_all()
        store.remove(f"{place.files(Stage.ADAPT).path}/summary.json")
        again = (await place.run(Stage.ADAPT)).result
    assert again == result
    assert result.outcomes == {"passages": Outcome.OK, "adapter": Outcome.OK}
    assert result.adapter is not None and result.adapter.path.startswith(f"{RUN}/adapters/")
    assert store.exists(f"{result.adapter.path}/adapter_model.safetensors")
    assert result.rows["passage"] == 3 and result.rows["replay"] == 1
    evaluation = result.evaluation
    assert evaluation.self_made is not given and evaluation.retained_questions == 2
    assert evaluation.retained_change is not None
    if given:
        assert evaluation.questions == 4 and evaluation.gain is not None
    else:  # a random model makes no questions, and nothing could be judged
        assert result.gate.reason is GateReason.NO_SCORE
