"""`seal run --plan`: what a run would do and take, without doing any of it."""

from __future__ import annotations

import json
import re
from pathlib import Path

import pytest
from command import RUN, seal
from fake_services import Fakes
from few_shot import FIXED, ORACLE, few_shot_spec, write_tasks
from tiny_model import save_tiny_model

import controller_svc.cli.machine as machine
from controller_svc.cli.workload import round_contexts, workload
from controller_svc.worker.prepare import load_data
from seal.config import load_run
from seal.domains import get_domain
from seal.records import Stage

EXAMPLES = Path(__file__).parents[2] / "examples"
SMOLLM2_WEIGHTS = 134_515_008
MEASURED_TERAFLOPS = 0.41
MEASURED_SECONDS = {
    (0, Stage.VALIDATE): 212,
    (1, Stage.ROLLOUT): 220,
    (1, Stage.IMPROVE): 34,
    (1, Stage.VALIDATE): 156,
    (2, Stage.ROLLOUT): 333,
    (2, Stage.IMPROVE): 69,
    (2, Stage.VALIDATE): 208,
}
"""`make demo` on 2 cores of that GEMM peak."""


def test_the_time_of_every_stage_of_the_demo_is_right_to_a_factor_of_two() -> None:
    spec = load_run(None).spec
    for work in workload(spec, load_data(spec)):
        seconds = work.seconds(weights=SMOLLM2_WEIGHTS, teraflops=MEASURED_TERAFLOPS)
        if (work.round, work.stage) in MEASURED_SECONDS:
            assert 0.5 < seconds / MEASURED_SECONDS[work.round, work.stage] < 2.0, work
        else:
            assert seconds < 1.0


def test_edits_in_parts_are_planned_part_by_part_with_what_they_share_read_once() -> None:
    spec = load_run(None).spec
    whole = {"family": "self-qa-by-sentence", "max_tokens": 24, "trained_prompt": "short"}
    spec = spec.model_copy(update={"edit": spec.edit.model_copy(update=whole)})
    data = load_data(spec)
    rollouts = [work for work in workload(spec, data) if work.stage is Stage.ROLLOUT]
    contexts = rollouts[0].contexts
    parts = [
        len(get_domain("knowledge").edit_prompts(c.title, c.text, "self-qa-by-sentence", "base"))
        for c in round_contexts(spec, data["train"])
    ]
    written = spec.edit.k * sum(parts)
    assert 0.5 * 24 < rollouts[0].edit_tokens / written < 24
    characters = sum(len(context.text) for context in round_contexts(spec, data["train"]))
    assert rollouts[0].edit_prompt_tokens < 600 * contexts + characters, "not once for each part"
    assert rollouts[1].edit_prompt_tokens < rollouts[0].edit_prompt_tokens, "no worked examples"
    improve = next(work for work in workload(spec, data) if work.stage is Stage.IMPROVE)
    optimizer = spec.improve.optimizer
    assert improve.steps * optimizer.batch_size > optimizer.epochs * contexts, (
        "several rows of each"
    )


def test_a_plan_shows_the_stages_and_runs_nothing(
    here: Path, fakes: Fakes, capsys: pytest.CaptureFixture[str]
) -> None:
    model = str(save_tiny_model(here / "model"))
    lengths = ["--set", "edit.maxTokens=32", "--set", "evaluation.maxTokens=8"]
    assert seal(*RUN, "--plan", "--model", model, *lengths) == 0
    out = capsys.readouterr().out
    assert "Plan of tiny: 3 passages to learn from, 2 passages to measure on." in out
    lines = out.splitlines()
    (rollout,) = (line for line in lines if line.startswith("round 1, rollout"))
    assert rollout.split()[3:6] == ["3", "6", "6"], "contexts, edits, trainings"
    assert "measured GEMM peak 0.75 TFLOP/s" in out
    assert "Memory: at most" in out
    table = [line for line in lines if line.startswith(("stage", "round", "all"))]
    assert len(table) == 7
    assert max(map(len, table)) <= 80
    assert not (here / "seal-runs").exists()
    assert not fakes.calls


@pytest.mark.parametrize(("teraflops", "long"), [(0.75, False), (1e-7, True)])
def test_a_plan_speaks_of_another_machine_where_this_one_takes_an_hour(
    here: Path,
    fakes: Fakes,
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
    teraflops: float,
    long: bool,
) -> None:
    monkeypatch.setattr(machine, "gemm_peak", lambda engine: ("float32", teraflops))
    model = str(save_tiny_model(here / "model"))
    lengths = ["--set", "edit.maxTokens=32", "--set", "evaluation.maxTokens=8"]
    assert seal(*RUN, "--plan", "--model", model, *lengths) == 0
    out = capsys.readouterr().out
    assert ("On one H100 in place of this machine" in out) is long
    assert ("H100" in out) is long


def test_a_plan_as_json_has_every_number(
    here: Path, fakes: Fakes, capsys: pytest.CaptureFixture[str]
) -> None:
    model = str(save_tiny_model(here / "model"))
    lengths = ["--set", "edit.maxTokens=32", "--set", "evaluation.maxTokens=8"]
    assert seal(*RUN, "--plan", "--model", model, *lengths, "-o", "json") == 0
    plan = json.loads(capsys.readouterr().out)
    assert [stage["stage"] for stage in plan["stages"]] == [
        "prepare",
        "validate",
        "rollout",
        "improve",
        "validate",
    ]
    assert all(stage["seconds"] >= 0 for stage in plan["stages"])
    assert plan["machine"]["needed_bytes"] > 0


def test_a_plan_says_where_the_model_is_missing_and_where_memory_does_not_do(
    here: Path,
    fakes: Fakes,
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    with monkeypatch.context() as patched:
        patched.setattr(machine, "gemm_peak", lambda engine: pytest.fail("measured in vain"))
        assert seal(*RUN, "--plan") == 0
    assert "seal models pull smollm2-135m" in capsys.readouterr().out
    model = str(save_tiny_model(here / "model"))
    lengths = ["--set", "edit.maxTokens=32", "--set", "evaluation.maxTokens=8"]
    assert seal(*RUN, "--plan", "--model", model, *lengths, "--engine", "memoryBytes=1000") == 0
    assert "the engine would not start" in capsys.readouterr().out


def test_a_plan_refuses_what_a_run_would_refuse(
    here: Path, fakes: Fakes, capsys: pytest.CaptureFixture[str]
) -> None:
    assert seal(*RUN, "--plan", "--set", "inner.lora.rank=500") == 2
    assert seal(*RUN, "--plan", "--dataset", "nowhere.jsonl") == 2


def test_a_plan_is_of_the_given_data_also_where_the_run_exists(
    here: Path, fakes: Fakes, capsys: pytest.CaptureFixture[str]
) -> None:
    assert seal(*RUN) == 0
    capsys.readouterr()
    assert seal(*RUN, "--plan", "--dataset", "nosuch.jsonl") == 2
    assert "nosuch.jsonl" in capsys.readouterr().err
    assert seal(*RUN, "--plan", "--set", "rounds=2") == 0
    out = capsys.readouterr().out
    assert "A run of that name exists already; --resume plans what is left of it" in out
    assert "all, 2 rounds" in out


def test_a_plan_to_resume_refuses_another_spec_and_shows_what_is_left(
    here: Path, fakes: Fakes, capsys: pytest.CaptureFixture[str]
) -> None:
    assert seal(*RUN, "--plan", "--resume") == 2, "there is nothing to resume"
    assert seal(*RUN) == 0
    capsys.readouterr()
    assert seal(*RUN, "--plan", "--resume", "--set", "seed=5") == 2
    assert "was started with another spec" in capsys.readouterr().err
    assert seal(*RUN, "--plan", "--resume") == 0
    out = capsys.readouterr().out
    assert "nothing is left to do" in out and "round 1, rollout" not in out
    assert seal(*RUN, "--plan", "--resume", "--set", "rounds=2", "-o", "json") == 0
    stages = json.loads(capsys.readouterr().out)["stages"]
    assert [(stage["round"], stage["stage"]) for stage in stages] == [
        (2, "rollout"),
        (2, "improve"),
        (2, "validate"),
    ]


def test_a_plan_counts_the_passages_that_a_round_takes(
    here: Path, fakes: Fakes, capsys: pytest.CaptureFixture[str]
) -> None:
    assert seal(*RUN, "--plan", "--set", "data.trainContexts=1") == 0
    assert "1 of 3 passages to learn from, 2 passages to measure on" in capsys.readouterr().out


def test_a_plan_counts_the_questions_that_are_left_out(
    here: Path, fakes: Fakes, capsys: pytest.CaptureFixture[str]
) -> None:
    questions = [{"question": "Which?", "answer": "this"}, {"question": "Why?", "answers": []}]
    row = {"title": "Hill", "context": "A hill.", "questions": questions}
    with (here / "train.jsonl").open("a") as file:
        file.write(json.dumps(row) + "\n")
    assert seal(*RUN, "--plan") == 0
    assert "Left out: 1 question without an answer." in capsys.readouterr().out


def test_the_published_few_shot_experiment_is_planned_with_its_hours_on_one_gpu(
    here: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    train = write_tasks(here / "training.json", range(2, 5))
    validation = write_tasks(here / "evaluation.json", range(5, 7))
    example = str(EXAMPLES / "arc.yaml")
    asked = ("run", example, "--plan", "--dataset", train, "--validation", validation)
    assert seal(*asked) == 0
    out = capsys.readouterr().out
    assert "3 tasks to learn from, 2 tasks to measure on" in out
    assert "Llama-3.2-1B-Instruct is not on this machine" in out
    line = re.search(
        r"On one H100 with 1 billion weights, .* about ([\d.]+) hours, if it trains and reads at "
        r"(\d+) TFLOP/s and writes at (\d+), of the 989 of its data sheet",
        out,
    )
    assert line is not None
    hours, train_rate, write_rate = map(float, line.groups())
    assert seal(*asked, "-o", "json") == 0
    stages = json.loads(capsys.readouterr().out)["stages"]
    rollout = next(stage for stage in stages if stage["stage"] == "rollout")
    assert (rollout["contexts"], rollout["edits"], rollout["trainings"]) == (3, 45, 45)
    flop = {"train": 0.0, "write": 0.0}  # of a billion weights, counted by hand
    for stage in stages:
        alone = 2.3 if stage["stage"] == "improve" else 1.0
        read = stage["edit_prompt_tokens"] + stage["question_tokens"]
        flop["train"] += 4e9 * alone * stage["train_tokens"] + 2e9 * read
        flop["write"] += 2e9 * (stage["edit_tokens"] + stage["answer_tokens"])
    seconds = flop["train"] / (train_rate * 1e12) + flop["write"] / (write_rate * 1e12)
    assert hours == pytest.approx(seconds / 3600, rel=0.05)


def test_a_plan_takes_edits_that_say_how_to_train_to_be_like_the_given_one(
    tmp_path: Path,
) -> None:
    spec = few_shot_spec(tmp_path)
    (validate, rollout) = workload(spec, load_data(spec))[1:3]
    given = json.loads(FIXED)["training"]["num_train_epochs"]
    other = json.loads(ORACLE)["training"]["num_train_epochs"]
    assert spec.inner.optimizer.epochs not in (given, other)
    assert rollout.steps == rollout.trainings * given * 2, "six rows in batches of four"
    assert validate.steps == 2 * 2 * (given + given + other), "an edit, the given one, the other"
