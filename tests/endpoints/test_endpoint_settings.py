"""Who writes and who judges, as a run's settings say it."""

from __future__ import annotations

import pytest
from pydantic import ValidationError

from seal.errors import InvalidInput
from seal.settings import EditGenerator, EndpointSettings, RunSpec

ENDPOINT = {"baseUrl": "http://127.0.0.1:9/v1", "model": "writer"}


def refused(values: dict[str, object]) -> tuple[str, str]:
    """Field and message with which a spec is refused."""
    with pytest.raises(ValidationError) as refusal:
        RunSpec.model_validate(values)
    detail = refusal.value.errors()[0]
    error = detail.get("ctx", {}).get("error")
    assert isinstance(error, InvalidInput) and error.remedy
    place = [str(part) for part in detail["loc"]]
    return ".".join([*place, *filter(None, [error.field])]), error.message


@pytest.mark.parametrize(
    "url",
    [
        "",
        "host/v1",
        "ftp://host/v1",
        "http://",
        "http://host:0/v1",
        "http://host:99999/v1",
        "https://me:secret@host/v1",
        "https://host/v1?key=secret",
        "https://host/v1#secret",
    ],
)
def test_an_address_that_is_none_or_holds_a_secret_is_refused_and_not_repeated(url: str) -> None:
    field, message = refused({"edit": {"generator": {**ENDPOINT, "baseUrl": url}}})
    assert field == "edit.generator.baseUrl"
    assert "secret" not in message


def test_an_address_is_kept_without_its_last_slash() -> None:
    settings = EndpointSettings(base_url="https://host:8443/v1/", model="m")
    assert settings.base_url == "https://host:8443/v1"


def test_a_generator_is_written_in_a_file_as_base_url_model_and_key_file() -> None:
    spec = RunSpec.model_validate({"edit": {"generator": {**ENDPOINT, "apiKeyFile": "key"}}})
    assert spec.edit.generator == EditGenerator(
        base_url="http://127.0.0.1:9/v1", model="writer", api_key_file="key", api="chat"
    )


def test_a_key_is_no_setting() -> None:
    with pytest.raises(ValidationError) as refusal:
        RunSpec.model_validate({"edit": {"generator": {**ENDPOINT, "apiKey": "secret"}}})
    assert refusal.value.errors()[0]["loc"] == ("edit", "generator", "apiKey")


def test_an_adapter_of_the_writer_cannot_lie_beneath_another_model() -> None:
    writer = {"edit": {"model": "writer"}}
    assert refused(writer)[0] == "inner.student"
    over_base = RunSpec.model_validate(writer | {"inner": {"student": "base"}})
    assert (over_base.writer, over_base.model, over_base.cross_model) == (
        "writer",
        "smollm2-135m",
        True,
    )


def test_a_model_that_is_named_twice_is_one_model() -> None:
    spec = RunSpec.model_validate({"edit": {"model": "smollm2-135m"}})
    assert not spec.cross_model and spec.writer == RunSpec().writer == "smollm2-135m"


def test_a_rubric_without_a_choice_is_refused() -> None:
    assert refused({"inner": {"preselectBy": "rubric"}})[0] == "inner.preselectBy"


def test_a_run_needs_a_judge_for_its_reward_or_for_its_choice_of_candidates() -> None:
    asked: list[dict[str, object]] = [
        {},
        {"evaluation": {"grader": "judge"}},
        {"inner": {"preselect": 2, "preselectBy": "rubric"}},
        {"inner": {"preselect": 2}},
    ]
    needs = [RunSpec.model_validate(values).needs_judge for values in asked]
    assert needs == [False, True, True, False]
