"""What is knowable is refused before the machine is measured or a model loaded."""

from __future__ import annotations

import errno
import json
import os
import time
from pathlib import Path

import pytest
from command import RUN, one_line, seal
from fake_services import Fakes
from tiny_model import save_tiny_model

import controller_svc.cli.execute as execute
import controller_svc.cli.machine as machine
from controller_svc.cli.preflight import check_model, check_settings, model_shape
from seal.config import load_run
from seal.errors import InvalidInput
from seal.settings import EngineSettings

POSITIONS = 128


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A tiny Llama of few positions."""
    directory = save_tiny_model(tmp_path_factory.mktemp("tiny") / "model")
    config = json.loads((directory / "config.json").read_text())
    (directory / "config.json").write_text(
        json.dumps(config | {"max_position_embeddings": POSITIONS})
    )
    return directory


@pytest.fixture
def nothing_costly(monkeypatch: pytest.MonkeyPatch) -> None:
    """No benchmark, no service."""

    def forbidden(*arguments: object, **options: object) -> None:
        raise AssertionError("something costly was begun")

    monkeypatch.setattr(machine, "gemm_peak", forbidden)
    monkeypatch.setattr(execute, "_services", forbidden)


@pytest.mark.parametrize(
    ("arguments", "field", "message"),
    [
        (["--set", "inner.lora.rank=100000"], "spec.inner.lora.rank", "must be at most"),
        (
            ["--set", "improve.lora.rank=200"],
            "spec.improve.lora.rank",
            "200 is larger than the trainer takes, 128",
        ),
        (["--set", "edit.maxTokens=100000000"], "spec.edit.maxTokens", "must be at most"),
        (["--set", f"edit.k={'9' * 20}"], "spec.edit.k", "must be at most"),
        (
            ["--set", "inner.lora.targetModules=[q_proj, wq]"],
            "spec.inner.lora.targetModules",
            "no layer 'wq'",
        ),
        (
            ["--set", "inner.examples.maxCharacters=65537"],
            "spec.inner.examples.maxCharacters",
            "must be at most 65536",
        ),
        (["--engine", "slots=-1"], "slots", "must be at least"),
        (["--engine", "slots=0"], "slots", "an engine of 0 slots trains nothing"),
        (["--engine", "slots=0", "--plan"], "slots", "an engine of 0 slots trains nothing"),
        (["--model", "/no/such/directory"], "model", "neither an embedded model nor a directory"),
        (["--model", "smollm2", "--plan"], "model", "neither an embedded model nor a directory"),
    ],
)
@pytest.mark.usefixtures("here", "nothing_costly")
def test_a_bad_setting_is_refused_at_once_by_its_field(
    capsys: pytest.CaptureFixture[str], arguments: list[str], field: str, message: str
) -> None:
    started = time.monotonic()
    assert seal(*RUN, *arguments, "-o", "json") == 2
    assert time.monotonic() - started < 5
    error = json.loads(capsys.readouterr().out)["error"]
    assert error["field"] == field
    assert message in error["message"]
    assert error["remedy"]


@pytest.mark.parametrize(
    ("change", "field"),
    [
        ({"edit.maxTokens": POSITIONS}, "spec.edit.maxTokens"),
        ({"evaluation.maxTokens": 1000}, "spec.evaluation.maxTokens"),
        ({"inner.optimizer.padToTokens": 2048}, "spec.inner.optimizer.padToTokens"),
    ],
)
def test_lengths_beyond_the_models_positions_are_refused_from_its_configuration(
    model: Path, change: dict[str, int], field: str
) -> None:
    spec = load_run(None, {"edit.maxTokens": 64} | change).spec
    with pytest.raises(InvalidInput, match=r"positions|longer than the trainer takes") as caught:
        check_model(spec, EngineSettings(max_row_tokens=512), model_shape("my-model", model))
    assert caught.value.field == field
    assert caught.value.remedy


@pytest.mark.parametrize(
    ("change", "field"),
    [
        ({"edit.format": "chat"}, "spec.edit.format"),
        ({"evaluation.questionFormat": "chat"}, "spec.evaluation.questionFormat"),
    ],
)
def test_a_chat_is_refused_where_the_model_has_no_template(
    tmp_path: Path, change: dict[str, str], field: str
) -> None:
    model = save_tiny_model(tmp_path)
    lengths = {"edit.maxTokens": 64, "evaluation.maxTokens": 16, "edit.format": "base"}
    spec = load_run(None, lengths | change).spec
    engine = EngineSettings(max_row_tokens=512)
    check_model(spec, engine, model_shape("my-model", model))
    for name in ("chat_template.jinja", "tokenizer_config.json"):
        (model / name).unlink(missing_ok=True)
    with pytest.raises(InvalidInput, match="no chat template") as caught:
        check_model(spec, engine, model_shape("my-model", model))
    assert caught.value.field == field


@pytest.mark.parametrize("kind", ["gpt2", "opt"])
@pytest.mark.usefixtures("nothing_costly")
def test_a_model_that_the_engine_does_not_take_is_refused_by_name_before_it_is_loaded(
    here: Path, capsys: pytest.CaptureFixture[str], kind: str
) -> None:
    from transformers import AutoConfig

    directory = save_tiny_model(here / f"my-{kind}")
    AutoConfig.for_model(kind).save_pretrained(directory)
    assert seal(*RUN, "--model", str(directory)) == 2
    error = one_line(capsys.readouterr().err)
    assert f"({kind})" in error
    assert "which the engine does not support" in error


@pytest.mark.usefixtures("nothing_costly")
def test_a_directory_is_refused_for_its_architecture_before_it_is_for_what_it_lacks(
    here: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (here / "mine").mkdir()
    (here / "mine" / "config.json").write_text('{"model_type": "gpt2"}')
    assert seal(*RUN, "--model", "./mine") == 2
    error = one_line(capsys.readouterr().err)
    assert "(gpt2)" in error and "which the engine does not support" in error
    (here / "mine" / "config.json").write_text('{"auto_map": {"AutoConfig": "mine.Config"}}')
    assert seal(*RUN, "--model", "./mine") == 2
    assert "code of its own" in one_line(capsys.readouterr().err)


@pytest.mark.parametrize("given", ["train", "validation"])
def test_a_file_to_measure_on_needs_one_to_learn_from_and_the_other_way_round(given: str) -> None:
    missing = {"train": "validation", "validation": "train"}[given]
    spec = load_run(None, {f"data.{given}": "mine.json"}).spec
    with pytest.raises(InvalidInput, match=r"a file of yours, but there is no") as caught:
        check_settings(spec, EngineSettings())
    assert caught.value.field == f"spec.data.{missing}"


def test_the_base_model_alone_is_measured_without_a_file_to_learn_from() -> None:
    spec = load_run(None, {"data.validation": "mine.json", "rounds": 0}).spec
    check_settings(spec, EngineSettings())


def test_files_are_looked_at_before_the_model(
    here: Path, fakes: Fakes, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(execute, "_model_directory", lambda *a, **b: pytest.fail("too early"))
    assert seal(*RUN, "--dataset", "nowhere.jsonl") == 2
    assert "nowhere.jsonl" in capsys.readouterr().err


@pytest.mark.parametrize("more", [[], ["--plan"]])
@pytest.mark.usefixtures("nothing_costly")
def test_a_root_that_cannot_be_used_is_refused_by_name(
    here: Path,
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
    more: list[str],
) -> None:
    (here / "taken").write_text("a file")
    for root, why in (("taken", "taken is a file"), ("taken/below", "taken is a file")):
        assert seal(*RUN, "--root", root, *more) == 2
        error = one_line(capsys.readouterr().err)
        assert f"the directory {here / root} cannot be used" in error and why in error
        assert "name a directory that this user can write" in error
        assert "probe" not in error
    monkeypatch.setattr(os, "access", lambda _, mode, **__: not mode & os.W_OK)
    assert seal(*RUN, "--root", "denied", *more) == 2
    assert "may not write into" in one_line(capsys.readouterr().err)


@pytest.mark.usefixtures("nothing_costly")
def test_a_root_that_cannot_be_made_is_refused_by_name(
    here: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    def denied(*_: object, **__: object) -> None:
        raise PermissionError(errno.EACCES, "Permission denied")

    monkeypatch.setattr(Path, "mkdir", denied)
    assert seal(*RUN, "--root", "no/place") == 2
    error = one_line(capsys.readouterr().err)
    assert f"{here}/no/place cannot be used: it cannot be made: Permission denied" in error


@pytest.mark.usefixtures("nothing_costly")
def test_a_run_that_is_refused_for_its_model_leaves_nothing_behind(
    here: Path, model: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert seal(*RUN, "--model", str(model), "--set", f"edit.maxTokens={POSITIONS}") == 2
    assert "positions" in capsys.readouterr().err
    assert not (here / "seal-runs").exists()
