"""Endpoints as options of the services, and as variables of local mode."""

from __future__ import annotations

from pathlib import Path

import pytest

from controller_svc.cli.preflight import check_endpoints
from evaluator_svc.__main__ import EvaluatorOptions
from generator_svc.options import GeneratorOptions
from seal.errors import InvalidInput
from seal.judge_options import JudgeVariables
from seal.settings import EditGenerator, EndpointLimits, EndpointSettings, JudgeSettings, RunSpec

URL = "http://127.0.0.1:9/v1"
STORE = ["--artifacts", "store"]


@pytest.fixture(autouse=True)
def no_variables(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("BASE_URL", "MODEL", "API_KEY_FILE", "API_KEY"):
        monkeypatch.delenv(f"SEAL_JUDGE_{name}", raising=False)


def test_the_judge_is_the_evaluators_own_option_with_its_bounds() -> None:
    options = EvaluatorOptions.parse(
        [
            *STORE,
            *("--judge-base-url", URL, "--judge-model", "m", "--judge-api-key-file", "key"),
            *("--judge-concurrency", "3", "--judge-max-calls", "9"),
        ]
    )
    assert options.judge == JudgeSettings(
        endpoint=EndpointSettings(base_url=URL, model="m", api_key_file="key"),
        limits=EndpointLimits(concurrency=3, max_calls=9),
    )
    assert EvaluatorOptions.parse(STORE).judge is None


@pytest.mark.parametrize(
    ("given", "option"),
    [
        (["--judge-base-url", URL], "judge_model"),
        (["--judge-model", "m"], "judge_base_url"),
        (["--judge-base-url", "nowhere", "--judge-model", "m"], "judge_base_url"),
        (["--judge-base-url", "http://me:secret@host", "--judge-model", "m"], "judge_base_url"),
        (["--judge-base-url", URL, "--judge-model", "two words"], "judge_model"),
    ],
)
def test_a_judge_that_is_half_named_is_refused_by_its_option(given: list[str], option: str) -> None:
    with pytest.raises(InvalidInput) as refused:
        _ = EvaluatorOptions.parse([*STORE, *given]).judge
    assert refused.value.field == option and refused.value.remedy
    assert "secret" not in str(refused.value)


def test_a_key_is_no_option() -> None:
    assert not [name for name in EvaluatorOptions.model_fields if name.endswith("api_key")]
    assert not [name for name in GeneratorOptions.model_fields if name.endswith("api_key")]


def test_a_generator_names_the_model_at_the_endpoint_as_its_model() -> None:
    options = GeneratorOptions.parse(
        [*STORE, "--backend", "openai", "--model", "m", "--openai-base-url", URL]
    )
    assert options.endpoint == EditGenerator(base_url=URL, model="m")
    with pytest.raises(InvalidInput) as refused:
        _ = GeneratorOptions.parse([*STORE, "--backend", "openai", "--model", "m"]).endpoint
    assert refused.value.field == "openai_base_url"


def test_local_mode_takes_its_judge_from_the_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    assert JudgeVariables.read().judge is None
    monkeypatch.setenv("SEAL_JUDGE_BASE_URL", URL)
    monkeypatch.setenv("SEAL_JUDGE_MODEL", "m")
    judge = JudgeVariables.read().judge
    assert judge is not None and judge.endpoint.model == "m"
    monkeypatch.setenv("SEAL_JUDGE_CONCURRENCY", "none")
    with pytest.raises(InvalidInput) as refused:
        JudgeVariables.read()
    assert refused.value.field == "judge_concurrency"


@pytest.mark.parametrize(
    ("values", "field"),
    [
        ({"evaluation": {"grader": "judge"}}, "spec.evaluation.grader"),
        ({"inner": {"preselect": 2, "preselectBy": "rubric"}}, "spec.inner.preselectBy"),
    ],
)
def test_a_run_without_the_judge_that_it_needs_is_refused_before_anything_starts(
    values: dict[str, object], field: str
) -> None:
    with pytest.raises(InvalidInput) as refused:
        check_endpoints(RunSpec.model_validate(values))
    assert refused.value.field == field and "SEAL_JUDGE_BASE_URL" in refused.value.remedy


def test_a_run_whose_key_cannot_be_read_is_refused_before_anything_starts(tmp_path: Path) -> None:
    generator = {"baseUrl": URL, "model": "m", "apiKeyFile": str(tmp_path / "absent")}
    with pytest.raises(InvalidInput) as refused:
        check_endpoints(RunSpec.model_validate({"edit": {"generator": generator}}))
    assert refused.value.field == "spec.edit.generator.apiKeyFile"
