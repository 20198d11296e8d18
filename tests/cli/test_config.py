"""Config of a run: profile, file, overrides; every refusal names source, field and remedy."""

from __future__ import annotations

import gc
import io
import re
import subprocess
import sys
import textwrap
import weakref
from collections.abc import Iterator
from pathlib import Path

import pytest
import structlog
import yaml

from seal.config import (
    _ClusterPart,
    load_adaptation,
    load_engine_settings,
    load_run,
    run_of_object,
)
from seal.errors import InvalidInput, NotFound
from seal.resources import RestEMRun
from seal.settings import ALL_PROJECTIONS, PROFILES, EngineSettings


@pytest.fixture
def config(tmp_path: Path) -> Path:
    return tmp_path / "run.yaml"


HEAD = "apiVersion: seal.dev/v1alpha1\nkind: RestEMRun\nmetadata: {name: my-run}\n"


def manifest(spec: str) -> str:
    """A manifest with these lines below `spec`."""
    return f"{HEAD}spec:\n{textwrap.indent(spec, '  ')}\n"


def refused_file(config: Path, text: str, **overrides: object) -> InvalidInput:
    config.write_text(text)
    with pytest.raises(InvalidInput) as caught:
        load_run(config, overrides)
    return caught.value


def refusal(config: Path, spec: str, **overrides: object) -> InvalidInput:
    return refused_file(config, manifest(spec), **overrides)


@pytest.mark.parametrize(
    ("text", "field", "remedy"),
    [
        (
            "inner: {optimizer: {learningRte: 0.1}}",
            "spec.inner.optimizer.learningRte",
            "did you mean spec.inner.optimizer.learningRate?",
        ),
        ("modle: x", "spec.modle", "did you mean spec.model?"),
        ("k: 3", "spec.k", "did you mean spec.edit.k?"),
        ("edit: {max_tokens: 3}", "spec.edit.max_tokens", "did you mean spec.edit.maxTokens?"),
        ("train-contexts: 3", "spec.train-contexts", "did you mean spec.data.trainContexts?"),
        (
            "learningRate: 1",
            "spec.learningRate",
            "did you mean spec.inner.optimizer.learningRate or "
            "spec.improve.optimizer.learningRate or spec.validation.passage.learningRate?",
        ),
        ("edit: {zzz: 1}", "spec.edit.zzz", "the fields of spec.edit are: model, generator"),
        ("zzz: 1", "spec.zzz", "the fields of spec are: profile, seed"),
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
        ("edit: {k: 0}", "spec.edit.k", "must be at least 1, got 0"),
        ("edit: {k: -3}", "spec.edit.k", "got -3"),
        ("edit: {k: many}", "spec.edit.k", "must be a whole number, got 'many'"),
        ("edit: {topP: 1.5}", "spec.edit.topP", "must be at most 1, got 1.5"),
        ("edit: {family: implication}", "spec.edit.family", "'implication' is none of its values"),
        (
            "inner: {optimizer: {learningRate: .nan}}",
            "spec.inner.optimizer.learningRate",
            "got nan",
        ),
        (
            "inner: {lora: {targetModules: []}}",
            "spec.inner.lora.targetModules",
            "must have at least 1 entry, got 0",
        ),
        (
            "improve: {lora: {targetModules: [q_proj, q_proj]}}",
            "spec.improve.lora.targetModules",
            "'q_proj' occurs twice",
        ),
        ("inner: 3", "spec.inner", "must be a section of fields, got 3"),
        ("seed: -1", "spec.seed", "got -1"),
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


@pytest.mark.parametrize(
    ("change", "problem", "remedy"),
    [
        ({"rounds": ""}, "must be a whole number, got nothing", "give a whole number, 0 to 1000"),
        ({"rounds": "abc"}, "must be a whole number, got 'abc'", "give a whole number, 0 to 1000"),
        ({"rounds": 2000}, "must be at most 1000, got 2000", "give a whole number, 0 to 1000"),
        ({"rounds": 1.5}, "must be a whole number, got 1.5", "give a whole number, 0 to 1000"),
        ({"rounds": True}, "must be a whole number, got 'true'", "give a whole number, 0 to 1000"),
        ({"edit.temperature": False}, "must be a number, got 'false'", "give a number, 0"),
        ({"inner.racing": [True]}, "must be a whole number, got 'true'", "give a whole number"),
        ({"rounds": [1, 2]}, "must be a whole number, got a list", "give a whole number, 0 to"),
        ({"edit.temperature": {"a": 1}}, "got a section of fields", "give a number, 0"),
        ({"inner.racing": 3}, "must be a list, got 3", "give a list"),
        ({"inner.lora.targetModules": [1]}, "must be a text, got 1", "give a text"),
        ({"validation.goldBound": "maybe"}, "must be true or false, got 'maybe'", "give true or"),
        (
            {"inner.optimizer.schedule": "cosinus"},
            "'cosinus' is none of its values",
            "did you mean cosine? It is one of: linear, cosine, constant",
        ),
        ({"edit.format": 7}, "7 is none of its values", "use one of: base, chat"),
        ({"edit": "many"}, "must be a section of fields, got 'many'", "give a section of fields"),
    ],
)
def test_a_wrong_value_is_refused_in_plain_words_with_what_it_may_be(
    config: Path, change: dict[str, object], problem: str, remedy: str
) -> None:
    error = refusal(config, "rounds: 1", **change)
    assert error.message.endswith(problem)
    assert error.remedy.startswith(remedy)
    assert "Input" not in str(error)


@pytest.mark.parametrize(
    ("text", "field"),
    [
        ("rounds: yes", "spec.rounds"),
        ("edit: {temperature: on}", "spec.edit.temperature"),
        ("inner: {optimizer: {learningRate: true}}", "spec.inner.optimizer.learningRate"),
        ("inner: {repeats: 2, racing: [true]}", "spec.inner.racing.0"),
        ("ttlSecondsAfterFinished: yes", "spec.ttlSecondsAfterFinished"),
    ],
)
def test_yes_is_no_number(config: Path, text: str, field: str) -> None:
    error = refusal(config, text)
    assert error.field == field and "got 'true'" in error.message


def test_yes_is_no_number_of_an_engine_or_an_adaptation() -> None:
    with pytest.raises(InvalidInput, match="must be a whole number, got 'true'") as caught:
        load_engine_settings("embedded", {"slots": True})
    assert caught.value.field == "slots"
    data = {"data.documents": [{"name": "a.txt", "path": "a.txt", "sha256": "a" * 64}]}
    with pytest.raises(InvalidInput, match="must be a number, got 'true'") as caught:
        load_adaptation(None, data | {"questions.heldOutShare": True})
    assert caught.value.field == "spec.questions.heldOutShare"


def test_what_an_option_of_its_own_says_is_refused_by_the_name_of_the_option(config: Path) -> None:
    config.write_text(manifest("rounds: 1"))
    with pytest.raises(InvalidInput) as caught:
        load_run(config, {"metadata.name": "other"}, {"--name": ("metadata.name", "My Run")})
    error = caught.value
    assert error.message == "--name: 'My Run' has not the form that is asked for"
    assert error.remedy.startswith("give a name of at most 40 lower-case letters, digits and")
    assert error.field == "metadata.name"


def test_a_wrong_override_is_not_blamed_on_the_file(config: Path) -> None:
    error = refusal(config, "edit: {k: 2}", **{"edit.k": 0})
    assert error.message.startswith("--set: spec.edit.k: ")


def test_all_wrong_fields_are_told_at_once(config: Path) -> None:
    message = refusal(config, "edit: {k: 0, topP: 2}\nrounds: -1").message
    assert "edit.k" in message and "edit.topP" in message and "rounds" in message


def test_a_long_value_is_not_repeated_in_full(config: Path) -> None:
    assert len(refusal(config, f"rounds: {'x' * 5000}").message) < 400


def test_an_unknown_profile_names_the_ones_there_are(config: Path) -> None:
    error = refusal(config, "profile: large")
    assert error.field == "spec.profile" and "embedded, published" in error.remedy


@pytest.mark.parametrize(
    ("text", "problem"),
    [
        ("edit: {k: 1", "line 1"),
        ("edit:\n  k: 1\n k: 2", "line 3"),
        ("rounds: 1\nrounds: 2", "line 2, column 1: the key 'rounds' is there twice"),
        ("model: {{ .Values.model }}", "line 1, column 9: a key is a list or a mapping"),
        ("? [rounds]\n: 2", "line 1, column 3: a key is a list or a mapping"),
        ("- a\n- b", "no mapping"),
        ("just text", "no mapping"),
        ("model: !!python/object/apply:os.system ['true']", "could not determine a constructor"),
    ],
)
def test_what_is_no_plain_yaml_mapping_is_refused_with_its_line(
    config: Path, text: str, problem: str
) -> None:
    error = refused_file(config, text)
    assert str(config) in error.message and problem in error.message


def test_a_missing_file_a_directory_and_binary_data_are_refused_by_name(
    config: Path, tmp_path: Path
) -> None:
    with pytest.raises(NotFound, match=r"run\.yaml does not exist"):
        load_run(config, {})
    with pytest.raises(InvalidInput, match="is a directory"):
        load_run(tmp_path, {})
    config.write_bytes(b"\xff\xfe\x00")
    with pytest.raises(InvalidInput, match="not UTF-8"):
        load_run(config, {})
    config.write_bytes(b"#" * (2 << 20))
    with pytest.raises(InvalidInput, match="not the dataset"):
        load_run(config, {})


def test_overrides_win_over_the_file_and_the_file_over_the_profile(config: Path) -> None:
    config.write_text(manifest("profile: published\nedit: {k: 7, temperature: 0.5}"))
    run = load_run(
        config,
        {
            "edit.temperature": 0.25,
            "spec.inner": {"optimizer": {"epochs": 3}},
            "metadata.name": None,
        },
    )
    spec = run.spec
    assert (spec.edit.k, spec.edit.temperature, spec.edit.top_p) == (7, 0.25, 0.95)
    assert (spec.inner.optimizer.epochs, spec.inner.optimizer.learning_rate) == (3, 1e-3)
    assert run.name == "my-run"


def test_an_override_may_choose_the_profile(config: Path) -> None:
    config.write_text(manifest("rounds: 1"))
    assert load_run(config, {"profile": "published"}).spec.inner.lora.rank == 32
    assert load_run(None, {"profile": "published"}).spec.profile == "published"


@pytest.mark.parametrize("text", ["", "# nothing but a comment\n", "edit:\ninner:\n  optimizer:\n"])
def test_an_empty_file_or_section_changes_nothing(config: Path, text: str) -> None:
    config.write_text(manifest(text))
    assert load_run(config, {}).spec == load_run(None).spec


def test_infinite_numbers_are_refused(config: Path) -> None:
    assert refusal(config, "inner: {lora: {alpha: .inf}}").field == "spec.inner.lora.alpha"


def test_exponents_without_a_dot_are_numbers(config: Path) -> None:
    config.write_text(manifest("inner: {optimizer: {learningRate: 1e-4}}"))
    assert load_run(config, {}).spec.inner.optimizer.learning_rate == 1e-4


@pytest.mark.parametrize("profile", PROFILES)
def test_every_profile_is_valid_names_itself_and_survives_a_round_trip(profile: str) -> None:
    run = load_run(None, {"profile": profile})
    assert run.spec.profile == profile
    assert RestEMRun.model_validate_json(run.model_dump_json()) == run
    assert "trainContexts" in run.model_dump_json()
    assert "train_contexts" not in run.model_dump_json()


def test_the_published_profile_holds_the_numbers_of_the_paper() -> None:
    spec = load_run(None, {"profile": "published"}).spec
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
            "edit: {k: 4}\ninner: {racing: [2]}",
            "spec.inner.racing",
            r"run\.yaml: spec\.inner\.racing: a race to \[2\] has 2 repeats, "
            r"but inner\.repeats is 1",
        ),
        (
            "edit: {k: 4}\ninner: {racing: [4], repeats: 2}",
            "spec.inner.racing",
            "do not become fewer .*; give numbers that fall strictly, from below edit.k = 4",
        ),
        ("inner: {racing: [0], repeats: 2}", "spec.inner.racing", "do not become fewer"),
        (
            "edit: {k: 10}\ninner: {racing: [3, 2], repeats: 3}\n"
            "improve: {credit: edit, keepPerContext: 3}",
            "spec.improve.keepPerContext",
            r"run\.yaml: spec\.improve\.keepPerContext: 3 edits of a context cannot be kept "
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
    assert [load_run(None, {"profile": profile}).spec.inner.racing for profile in PROFILES] == [
        ()
    ] * len(PROFILES)
    config.write_text(
        manifest("profile: published\nedit: {k: 10}\ninner: {racing: [3, 2], racingScore: logprob}")
    )
    inner = load_run(config).spec.inner
    assert (inner.racing, inner.repeats, inner.racing_score) == ((3, 2), 3, "logprob")


@pytest.mark.parametrize(
    ("text", "field", "message", "remedy"),
    [
        ("", "kind", "no `kind`", "kind: RestEMRun"),
        ("rounds: 1", "kind", "no `kind`", "put the settings below `spec`"),
        ("kind: RestEMRun", "apiVersion", "no `apiVersion`", "seal.dev/v1alpha1"),
        (HEAD.replace("RestEMRun", "Job"), "kind", "is a Job of seal.dev/v1alpha1", "RestEMRun"),
        (HEAD.replace("v1alpha1", "v2"), "apiVersion", "of seal.dev/v2", "seal.dev/v1alpha1"),
        (HEAD + "---\n" + HEAD, "", "2 YAML documents", "a file of its own"),
        (
            HEAD.replace("my-run", "My_Run"),
            "metadata.name",
            "'My_Run' has not the form",
            "at most 40 lower-case",
        ),
        (HEAD.replace("name", "nmae"), "metadata.name", "it is missing", "add `metadata.name`"),
        (HEAD + "rounds: 1", "rounds", "no such field", "did you mean spec.rounds?"),
        (HEAD + "spec: {seed: 2020-99-99}", "", "no valid YAML", "correct that line"),
        (HEAD + f"spec: {{seed: {'9' * 5000}}}", "", "no valid YAML", "correct that line"),
    ],
)
def test_a_file_that_is_no_manifest_of_a_run_is_refused_by_what_it_lacks(
    config: Path, text: str, field: str, message: str, remedy: str
) -> None:
    error = refused_file(config, text)
    assert error.field == field
    assert message in error.message
    assert remedy in error.remedy


def test_what_kubectl_keeps_beside_a_run_is_accepted(config: Path) -> None:
    config.write_text(
        """
        apiVersion: seal.dev/v1alpha1
        kind: RestEMRun
        metadata:
          name: my-run
          namespace: team
          uid: 0a-1b
          generation: 3
          labels: {team: a}
          annotations: {note: b}
        spec: {rounds: 1}
        status: {phase: Running}
        """
    )
    run = load_run(config)
    assert (run.name, run.metadata.namespace, run.metadata.labels) == (
        "my-run",
        "team",
        {"team": "a"},
    )


def test_a_manifest_is_read_from_standard_input(monkeypatch: pytest.MonkeyPatch) -> None:
    text = manifest("rounds: 7").encode()
    monkeypatch.setattr(sys, "stdin", io.TextIOWrapper(io.BytesIO(text)))
    assert load_run(Path("-")).spec.rounds == 7
    monkeypatch.setattr(sys, "stdin", io.TextIOWrapper(io.BytesIO(b"")))
    with pytest.raises(InvalidInput, match="standard input is no manifest"):
        load_run(Path("-"))


@pytest.mark.parametrize(
    "spec",
    [
        "edit: {k: 99999999999999999999}",
        "edit: {maxTokens: 100000000}",
        "inner: {lora: {rank: 100000}}",
        "seed: 99999999999999999999",
        "rounds: 100000000000",
        "shards: 100000000000",
    ],
)
def test_every_whole_number_has_an_upper_bound(config: Path, spec: str) -> None:
    assert "must be at most" in refusal(config, spec).message


def test_no_integer_of_the_schema_is_without_bounds() -> None:
    def integers(node: object, path: str) -> Iterator[tuple[str, dict[str, object]]]:
        if isinstance(node, dict):
            if node.get("type") == "integer":
                yield path, node
            for key, value in node.items():
                yield from integers(value, f"{path}.{key}")

    found = dict(integers(RestEMRun.model_json_schema(), ""))
    found |= dict(integers(EngineSettings.model_json_schema(), ""))
    del found[".$defs.InnerLoopSettings.properties.racing.items"]  # bounded by edit.k
    assert len(found) > 20
    assert [path for path, node in found.items() if "maximum" not in node] == []


def test_the_engine_takes_what_its_profile_says_unless_it_is_told_otherwise() -> None:
    assert (
        load_engine_settings("embedded").slots,
        load_engine_settings("embedded").evaluation_rows,
    ) == (16, 96)
    assert load_engine_settings("published").device == "cuda"
    engine = load_engine_settings("published", {"device": "cpu", "maxRowTokens": 512})
    assert (engine.device, engine.dtype, engine.max_row_tokens) == ("cpu", "bfloat16", 512)
    with pytest.raises(InvalidInput, match="--engine: max_rank: there is no such") as caught:
        load_engine_settings("embedded", {"max_rank": 3})
    assert caught.value.remedy == "did you mean maxRank?"


def test_variables_of_the_services_set_the_engine_below_what_the_command_says(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setenv("SEAL_SLOTS", "5")
    monkeypatch.setenv("SEAL_MAX_RANK", "64")
    engine = load_engine_settings("embedded", {"maxRank": 32})
    assert (engine.slots, engine.max_rank, engine.evaluation_rows) == (5, 32, 96)
    monkeypatch.setenv("SEAL_SLOTS", "")
    assert load_engine_settings("embedded").slots == 16
    monkeypatch.setenv("SEAL_SLOTS", "many")
    with pytest.raises(InvalidInput, match=r"environment: slots: .*a whole number, got 'many'"):
        load_engine_settings("embedded")


def test_what_only_a_cluster_has_is_checked_and_said_to_be_ignored(config: Path) -> None:
    config.write_text(manifest("  rounds: 1\n  queueName: gpus\n  suspend: true\n"))
    with structlog.testing.capture_logs() as logs:
        run = load_run(config)
    assert run.spec == load_run(None, {"spec.rounds": 1}).spec
    (said,) = logs
    assert (said["log_level"], said["fields"]) == ("warning", ["spec.queueName", "spec.suspend"])


def test_a_wrong_field_of_a_cluster_is_refused_by_its_name(config: Path) -> None:
    config.write_text(manifest("  jobTemplate: {resources: {limits: {cpu: many}}}\n"))
    with pytest.raises(InvalidInput) as refused:
        load_run(config)
    assert refused.value.field == "spec.jobTemplate.resources.limits.cpu"
    assert str(config) in refused.value.message


def test_an_object_of_a_cluster_is_the_run_that_its_file_is(config: Path) -> None:
    config.write_text(manifest("  rounds: 1\n  edit: {k: 2}\n  suspend: true\n"))
    values = yaml.safe_load(config.read_text()) | {"status": {"phase": "Pending"}}
    values["metadata"] |= {"uid": "1", "resourceVersion": "2"}
    run, cluster = run_of_object(values)
    assert run.spec == load_run(config).spec
    assert cluster.suspend and not cluster.queue_name


def test_an_object_is_read_by_a_model_that_is_made_once(config: Path) -> None:
    config.write_text(manifest("  queueName: team\n"))
    run_of_object(yaml.safe_load(config.read_text()))
    made = [weakref.ref(model) for model in _ClusterPart.__subclasses__()]
    gc.collect()
    assert made and all(model() is not None for model in made), "it takes milliseconds"
