"""Config of a run: profile, file, overrides; every refusal names source, field and remedy."""

from __future__ import annotations

import re
import subprocess
import sys
from pathlib import Path

import pytest

from seal.config import PROFILES, load_run_spec
from seal.errors import InvalidInput, NotFound
from seal.settings import ALL_PROJECTIONS, RunSpec


@pytest.fixture
def config(tmp_path: Path) -> Path:
    return tmp_path / "run.yaml"


def refusal(config: Path, text: str, **overrides: object) -> InvalidInput:
    config.write_text(text)
    with pytest.raises(InvalidInput) as caught:
        load_run_spec(config, overrides)
    return caught.value


@pytest.mark.parametrize(
    ("text", "field", "remedy"),
    [
        (
            "inner: {optimizer: {learning_rte: 0.1}}",
            "inner.optimizer.learning_rte",
            "did you mean inner.optimizer.learning_rate?",
        ),
        ("modle: x", "modle", "did you mean model?"),
        ("k: 3", "k", "did you mean edit.k?"),
        (
            "learning_rate: 1",
            "learning_rate",
            "did you mean inner.optimizer.learning_rate or improve.optimizer.learning_rate?",
        ),
        ("edit: {zzz: 1}", "edit.zzz", "the fields of edit are: family, format, k"),
        ("zzz: 1", "zzz", "the fields of a run are: name, profile"),
    ],
)
def test_an_unknown_field_is_refused_with_the_one_that_was_meant(
    config: Path, text: str, field: str, remedy: str
) -> None:
    error = refusal(config, text)
    assert error.field == field and error.remedy.startswith(remedy)
    assert f"{config}: {field}: there is no such field" in error.message


@pytest.mark.parametrize(
    ("text", "field", "problem"),
    [
        ("edit: {k: 0}", "edit.k", "greater than or equal to 1, got 0"),
        ("edit: {k: -3}", "edit.k", "got -3"),
        ("edit: {k: many}", "edit.k", "valid integer"),
        ("edit: {top_p: 1.5}", "edit.top_p", "less than or equal to 1"),
        ("edit: {family: implication}", "edit.family", "'implications'"),
        ("inner: {optimizer: {learning_rate: .nan}}", "inner.optimizer.learning_rate", "got nan"),
        ("inner: {lora: {target_modules: []}}", "inner.lora.target_modules", "at least 1"),
        ("inner: 3", "inner", "got 3"),
        ("name: My_Run", "name", "pattern"),
        ("seed: -1", "seed", "got -1"),
    ],
)
def test_a_value_out_of_bounds_is_refused_by_file_and_field(
    config: Path, text: str, field: str, problem: str
) -> None:
    error = refusal(config, text)
    assert (
        error.field == field
        and problem in error.message
        and error.message.startswith(f"{config}: {field}: ")
    )


def test_a_wrong_override_is_not_blamed_on_the_file(config: Path) -> None:
    error = refusal(config, "edit: {k: 2}", **{"edit.k": 0})
    assert error.message.startswith("override: edit.k: ")


def test_all_wrong_fields_are_told_at_once(config: Path) -> None:
    message = refusal(config, "edit: {k: 0, top_p: 2}\nrounds: -1").message
    assert "edit.k" in message and "edit.top_p" in message and "rounds" in message


def test_a_long_value_is_not_repeated_in_full(config: Path) -> None:
    assert len(refusal(config, f"rounds: {'x' * 5000}").message) < 400


def test_an_unknown_profile_names_the_ones_there_are(config: Path) -> None:
    error = refusal(config, "profile: large")
    assert error.field == "profile" and "embedded, published" in error.remedy


@pytest.mark.parametrize(
    ("text", "problem"),
    [
        ("edit: {k: 1", "line 1"),
        ("edit:\n  k: 1\n k: 2", "line 3"),
        ("rounds: 1\nrounds: 2", "line 2, column 1: the key 'rounds' is there twice"),
        ("- a\n- b", "no mapping"),
        ("just text", "no mapping"),
        ("model: !!python/object/apply:os.system ['true']", "could not determine a constructor"),
    ],
)
def test_what_is_no_plain_yaml_mapping_is_refused_with_its_line(
    config: Path, text: str, problem: str
) -> None:
    error = refusal(config, text)
    assert str(config) in error.message and problem in error.message


def test_a_missing_file_a_directory_and_binary_data_are_refused_by_name(
    config: Path, tmp_path: Path
) -> None:
    with pytest.raises(NotFound, match=r"run\.yaml does not exist"):
        load_run_spec(config, {})
    with pytest.raises(InvalidInput, match="is a directory"):
        load_run_spec(tmp_path, {})
    config.write_bytes(b"\xff\xfe\x00")
    with pytest.raises(InvalidInput, match="not UTF-8"):
        load_run_spec(config, {})
    config.write_bytes(b"#" * (2 << 20))
    with pytest.raises(InvalidInput, match="not the dataset"):
        load_run_spec(config, {})


def test_overrides_win_over_the_file_and_the_file_over_the_profile(config: Path) -> None:
    config.write_text("profile: published\nedit: {k: 7, temperature: 0.5}\n")
    spec = load_run_spec(
        config, {"edit.temperature": 0.25, "inner": {"optimizer": {"epochs": 3}}, "name": None}
    )
    assert (spec.edit.k, spec.edit.temperature, spec.edit.top_p) == (7, 0.25, 0.95)
    assert (spec.inner.optimizer.epochs, spec.inner.optimizer.learning_rate) == (3, 1e-3)
    assert spec.name == "run"


def test_an_override_may_choose_the_profile(config: Path) -> None:
    config.write_text("rounds: 1")
    assert load_run_spec(config, {"profile": "published"}).inner.lora.rank == 32
    assert load_run_spec(None, {"profile": "published"}).profile == "published"


@pytest.mark.parametrize("text", ["", "# nothing but a comment\n", "edit:\ninner:\n  optimizer:\n"])
def test_an_empty_file_or_section_changes_nothing(config: Path, text: str) -> None:
    config.write_text(text)
    assert load_run_spec(config, {}) == load_run_spec(None)


def test_infinite_numbers_are_refused(config: Path) -> None:
    assert refusal(config, "inner: {lora: {alpha: .inf}}").field == "inner.lora.alpha"


def test_exponents_without_a_dot_are_numbers(config: Path) -> None:
    config.write_text("inner: {optimizer: {learning_rate: 1e-4}}")
    assert load_run_spec(config, {}).inner.optimizer.learning_rate == 1e-4


@pytest.mark.parametrize("profile", PROFILES)
def test_every_profile_is_valid_names_itself_and_survives_a_round_trip(profile: str) -> None:
    spec = load_run_spec(None, {"profile": profile})
    assert spec.profile == profile
    assert RunSpec.model_validate_json(spec.model_dump_json()) == spec


def test_the_published_profile_holds_the_numbers_of_the_paper() -> None:
    spec = load_run_spec(None, {"profile": "published"})
    assert (
        spec.edit.temperature,
        spec.edit.top_p,
        spec.edit.k,
        spec.inner.repeats,
        spec.rounds,
    ) == (1.0, 0.95, 5, 3, 2)
    inner, improve = spec.inner, spec.improve
    assert (inner.lora.rank, inner.lora.alpha, inner.lora.target_modules) == (
        32,
        64,
        ("q_proj", "v_proj"),
    )
    assert (inner.optimizer.epochs, inner.optimizer.learning_rate, inner.optimizer.schedule) == (
        10,
        1e-3,
        "linear",
    )
    assert (
        inner.optimizer.weight_decay,
        inner.optimizer.max_grad_norm,
        inner.optimizer.batch_size,
    ) == (0, 1.0, 1)
    assert (improve.lora.rank, improve.lora.alpha, improve.lora.target_modules) == (
        64,
        128,
        ALL_PROJECTIONS,
    )
    assert (
        improve.optimizer.epochs,
        improve.optimizer.learning_rate,
        improve.optimizer.batch_size,
    ) == (2, 3e-4, 10)
    assert (spec.evaluation.max_tokens, spec.data.train_contexts, spec.model) == (
        64,
        50,
        "hf://Qwen/Qwen2.5-7B",
    )


def test_reading_a_config_needs_neither_torch_nor_grpc() -> None:
    heavy = "{'torch', 'transformers', 'peft', 'grpc', 'fsspec', 'huggingface_hub', 'gguf'}"
    code = (
        "import seal.config, seal.artifacts, seal.models, seal.telemetry, sys; "
        f"print(sorted({heavy} & set(sys.modules)))"
    )
    assert (
        subprocess.run(
            [sys.executable, "-c", code], capture_output=True, text=True, check=True
        ).stdout.strip()
        == "[]"
    )


@pytest.mark.parametrize(
    ("text", "field", "message"),
    [
        (
            "inner: {racing: [2]}",
            "inner.racing",
            r"run\.yaml: inner\.racing: a race to \[2\] has 2 repeats, but inner\.repeats is 1",
        ),
        (
            "inner: {racing: [4], repeats: 2}",
            "inner.racing",
            "do not become fewer .*; give numbers that fall strictly, from below edit.k = 4",
        ),
        ("inner: {racing: [0], repeats: 2}", "inner.racing", "do not become fewer"),
        (
            "edit: {k: 10}\ninner: {racing: [3, 2], repeats: 3}\nimprove: {keep_per_context: 3}",
            "improve.keep_per_context",
            r"run\.yaml: improve\.keep_per_context: 3 edits of a context cannot be kept "
            r"where 2 end the race; keep 2 or fewer",
        ),
    ],
)
def test_a_race_that_contradicts_other_fields_is_refused_by_the_field_to_change(
    config: Path, text: str, field: str, message: str
) -> None:
    error = refusal(config, text)
    assert error.field == field
    assert re.search(message, str(error))


def test_a_race_is_off_unless_it_is_asked_for(config: Path) -> None:
    assert [load_run_spec(None, {"profile": profile}).inner.racing for profile in PROFILES] == [
        ()
    ] * len(PROFILES)
    config.write_text(
        "profile: published\nedit: {k: 10}\ninner: {racing: [3, 2], racing_score: logprob}\n"
    )
    inner = load_run_spec(config).inner
    assert (inner.racing, inner.repeats, inner.racing_score) == ((3, 2), 3, "logprob")
