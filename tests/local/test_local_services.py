"""Local mode from end to end on a real engine with a tiny random model.

Real adapters, real resume.
"""

from __future__ import annotations

import asyncio
import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
import yaml
from controller_harness import IMPATIENT, RUN, small_spec
from engine_services import ENGINE
from resume_harness import REPOSITORY, Crash, Effects, KillPoint, Scene, crash
from tiny_model import save_tiny_model

from controller_svc.core import Phase
from controller_svc.local.services import local_services
from seal.artifacts import ArtifactStore
from seal.engine import load_adapter
from seal.errors import InvalidInput, Transient
from seal.resources import RestEMRun
from seal.settings import RunSpec

SMALL_LORA = {"rank": 2, "alpha": 4.0, "target_modules": ("q_proj", "v_proj")}


def tiny_spec(directory: Path) -> RunSpec:
    """One round on a random model that is graded by log-probability.

    So rewards differ though every answer is wrong.
    """
    return small_spec(
        directory,
        passages=(2, 1, 1),
        rounds=1,
        model=str(save_tiny_model(directory / "model")),
        edit={"k": 2, "max_tokens": 40},
        inner={"repeats": 1, "lora": SMALL_LORA, "optimizer": {"epochs": 2, "learning_rate": 0.05}},
        improve={"lora": SMALL_LORA, "optimizer": {"epochs": 1}},
        evaluation={"grader": "logprob", "max_tokens": 4},
        validation={"edits_per_context": 1, "retained_queries": 1},
    )


@pytest.fixture(scope="module")
def spec(tmp_path_factory: pytest.TempPathFactory) -> RunSpec:
    return tiny_spec(tmp_path_factory.mktemp("tiny"))


def scene(directory: Path, spec: RunSpec) -> Scene:
    directory.mkdir()
    return Scene(
        spec=spec,
        directory=directory,
        services="engine_services:resume_services",
        settings=IMPATIENT,
    )


async def test_a_directory_that_is_no_model_is_refused_before_anything_starts(
    tmp_path: Path,
) -> None:
    with pytest.raises(InvalidInput):
        async with local_services(str(tmp_path), root=tmp_path, engine=ENGINE):
            raise AssertionError("no services without a model")


async def test_an_engine_that_breaks_ends_local_mode_with_an_error_worth_a_retry(
    tmp_path: Path, spec: RunSpec
) -> None:
    async def work() -> None:
        async with local_services(spec.model, root=tmp_path, engine=ENGINE) as services:
            services.engine._health.give_up("lost")
            await asyncio.sleep(600)

    started = time.monotonic()
    with pytest.raises(Transient, match="the engine is broken: lost"):
        await work()
    assert time.monotonic() - started < 60


async def test_a_run_on_a_real_engine_makes_a_policy_and_a_crash_in_each_stage_changes_nothing(
    tmp_path: Path, spec: RunSpec
) -> None:
    calm = scene(tmp_path / "calm", spec)
    status = await calm.run(resume=False, effects=Effects())
    assert status.phase is Phase.COMPLETE
    assert status.rounds[1].kept > 0
    policy = status.policies[1].adapter
    assert policy is not None
    with ArtifactStore(calm.root).fetch_directory(policy) as directory:
        assert load_adapter(directory).base.name == spec.model
    for name, part in (
        ("rollout", "r1/rollout/edit"),
        ("m-step", "r1/improve"),
        ("validation", "r1/validate/edit"),
    ):
        crashed = scene(tmp_path / name, spec)
        with pytest.raises(Crash):
            await crashed.run(
                resume=False,
                effects=Effects(point=KillPoint(nth=1, when="during", match=part), die=crash),
            )
        finished, executed = crashed.finished_loops(), len(crashed.executed())
        await crashed.run(resume=True, effects=Effects())
        assert crashed.selections()[1].sha256 == calm.selections()[1].sha256
        again = crashed.status().policies[1].adapter
        assert again is not None
        assert again.sha256 == policy.sha256
        assert {request for _, request in crashed.executed()[executed:]}.isdisjoint(finished)


@pytest.fixture(scope="module")
def calm_process(tmp_path_factory: pytest.TempPathFactory, spec: RunSpec) -> Scene:
    """A run that nothing disturbs, in a process of its own."""
    calm = scene(tmp_path_factory.mktemp("calm") / "scene", spec)
    assert calm.run_child(resume=False) == 0
    return calm


@pytest.mark.parametrize("part", ["r1/rollout/edit", "r1/improve", "r1/validate/edit"])
def test_a_process_killed_with_its_real_engine_resumes_to_the_same_digests(
    calm_process: Scene, tmp_path: Path, spec: RunSpec, part: str
) -> None:
    killed = scene(tmp_path / "killed", spec)
    assert killed.run_child(resume=False, point=KillPoint(nth=1, when="during", match=part)) == -9
    finished, executed = killed.finished_loops(), len(killed.executed())
    assert killed.run_child(resume=True) == 0
    assert killed.selections()[1].sha256 == calm_process.selections()[1].sha256
    ours, theirs = (
        [policy.adapter and policy.adapter.sha256 for policy in run.status().policies]
        for run in (killed, calm_process)
    )
    assert ours == theirs
    assert {request for _, request in killed.executed()[executed:]}.isdisjoint(finished)


@pytest.fixture(scope="module")
def long_spec(tmp_path_factory: pytest.TempPathFactory) -> RunSpec:
    """The same with an M-step of many steps, checkpointed all the time."""
    spec = tiny_spec(tmp_path_factory.mktemp("long"))
    optimizer = {"epochs": 12, "batch_size": 1, "learning_rate": 1e-4}
    improve = spec.improve.model_dump(by_alias=False) | {
        "optimizer": optimizer,
        "checkpoint_every_seconds": 0.01,
    }
    return RunSpec.model_validate(spec.model_dump(by_alias=False) | {"improve": improve})


def policy_digests(run: Scene) -> list[str | None]:
    """Digests of the policies, round by round."""
    return [policy.adapter and policy.adapter.sha256 for policy in run.status().policies]


@pytest.fixture(scope="module")
def calm_long_process(tmp_path_factory: pytest.TempPathFactory, long_spec: RunSpec) -> Scene:
    calm = scene(tmp_path_factory.mktemp("calm-long") / "scene", long_spec)
    assert calm.run_child(resume=False) == 0
    assert calm.executed("resumed") == []
    return calm


def resumed_at(run: Scene) -> tuple[int, int]:
    """(step, steps in all) of the one M-step that went on from a checkpoint."""
    ((_, line),) = run.executed("resumed")
    where, request_id = line.split(" ")
    assert request_id == "demo/r1/improve/policy"
    step, steps = where.split("/")
    return int(step), int(steps)


def test_a_process_killed_in_the_m_step_resumes_it_in_the_middle_to_the_same_policy(
    calm_long_process: Scene, tmp_path: Path, long_spec: RunSpec
) -> None:
    killed = scene(tmp_path / "killed", long_spec)
    assert (
        killed.run_child(
            resume=False, point=KillPoint(nth=4, when="during", effect="train", match="r1/improve")
        )
        == -9
    )
    assert killed.run_child(resume=True) == 0
    step, steps = resumed_at(killed)
    assert 0 < step < steps
    assert policy_digests(killed) == policy_digests(calm_long_process)
    assert killed.selections()[1].sha256 == calm_long_process.selections()[1].sha256
    assert ArtifactStore(killed.root).list("demo/checkpoints") == ()


def test_the_command_stopped_in_the_m_step_leaves_a_last_checkpoint_and_goes_on_from_it(
    calm_long_process: Scene, tmp_path: Path, long_spec: RunSpec
) -> None:
    stopped = scene(tmp_path / "stopped", long_spec)
    config = tmp_path / "run.yaml"
    config.write_text(yaml.safe_dump(RestEMRun.of(RUN, long_spec).model_dump(mode="json")))
    arguments = ["run", str(config), "--root", stopped.root, "--output", "json"]
    for field, value in ENGINE.model_dump(exclude_defaults=True).items():
        arguments += ["--engine", f"{field}={value}"]
    command = [
        sys.executable,
        "-c",
        "from controller_svc.cli import main; main()",
        "--log-level",
        "info",
        "--log-format",
        "json",
        *arguments,
    ]
    environment = os.environ | {"PYTHONPATH": str(REPOSITORY)}
    with subprocess.Popen(
        command, env=environment, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True
    ) as process:
        assert process.stderr is not None
        for line in process.stderr:
            if "checkpoint written" in line:
                process.send_signal(signal.SIGTERM)
                break
        rest = process.stderr.read()
        assert process.wait(timeout=60) == 130, rest
    assert "training suspended" in rest
    assert len(ArtifactStore(stopped.root).list("demo/checkpoints")) == 1
    again = subprocess.run(
        [*command, "--resume"],
        env=environment,
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )
    assert again.returncode == 0, again.stderr
    (resumed,) = [
        line for line in again.stderr.splitlines() if "training of the policy resumed" in line
    ]
    assert json.loads(resumed)["step"] > 0
    assert "round 1 of 1, improve: done in" in again.stderr
    assert f"(resumed at step {json.loads(resumed)['step']})" in again.stderr
    assert policy_digests(stopped) == policy_digests(calm_long_process)
    assert ArtifactStore(stopped.root).list("demo/checkpoints") == ()
