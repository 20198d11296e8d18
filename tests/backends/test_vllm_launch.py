"""How vLLM is started: each of its defaults that is not ours is set."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from tiny_model import save_tiny_model

from seal.errors import InvalidInput
from seal.limits import VLLM_RANKS
from seal.settings import ALL_PROJECTIONS, EngineSettings
from seal.settings.vllm import VllmSettings
from seal.vllm.launch import VllmArguments, arguments, check_version, rank_bucket
from seal.vllm.load import load_vllm


def launched(engine: EngineSettings | None = None, **own: object) -> VllmArguments:
    return arguments(
        Path("/models/tiny"),
        engine or EngineSettings(),
        VllmSettings(**own),
        dtype="float32",
        target_modules=ALL_PROJECTIONS,
    )


@pytest.mark.parametrize(
    ("rank", "bucket"), [(1, 1), (2, 8), (8, 8), (9, 16), (65, 128), (129, 256), (512, 512)]
)
def test_the_largest_rank_is_the_next_that_vllm_has(rank: int, bucket: int) -> None:
    assert rank_bucket(rank) == bucket
    assert launched(EngineSettings(max_rank=rank)).max_lora_rank == bucket


def test_a_rank_above_all_that_vllm_has_is_refused_by_its_setting() -> None:
    with pytest.raises(InvalidInput, match="512") as refused:
        launched(EngineSettings(max_rank=VLLM_RANKS[-1] + 1))
    assert refused.value.field == "engine.maxRank"


@pytest.mark.parametrize("adapters", [1, 2, 8, 100])
def test_more_adapters_stay_loaded_than_are_at_work(adapters: int) -> None:
    launch = launched(vllm_adapters=adapters)
    assert launch.max_loras == adapters + 1  # on a CPU the base model is one that changes nothing
    on_gpu = launched(EngineSettings(device="cuda"), vllm_adapters=adapters)
    assert on_gpu.max_loras == adapters
    assert launch.max_cpu_loras >= launch.max_loras + 2


def test_several_adapters_share_a_batch_by_default() -> None:
    assert launched().max_loras > 1


def test_only_the_layers_that_adapters_have_get_room_for_one() -> None:
    assert launched().lora_target_modules == ALL_PROJECTIONS


def test_keys_and_values_do_not_take_a_machine_of_cpus_whole() -> None:
    assert launched().kv_cache_memory_bytes == 1 << 30
    assert launched(EngineSettings(device="cuda:0")).kv_cache_memory_bytes is None
    assert launched(vllm_cache_bytes=5).kv_cache_memory_bytes == 5


def test_sampling_is_the_requests_and_code_of_the_model_is_never_run() -> None:
    launch = launched()
    assert launch.generation_config == "vllm"
    assert launch.logprobs_mode == "raw_logprobs"
    assert launch.trust_remote_code is False


def test_as_many_texts_are_written_at_once_as_the_larger_setting_says() -> None:
    settings = EngineSettings(generation_rows=5, evaluation_rows=7)
    assert launched(settings).max_num_seqs == 7


@pytest.mark.parametrize(
    ("version", "device"), [("0.32.0", "cpu"), ("0.33.0", "cuda"), ("0.33.1+cu130", "cuda")]
)
def test_a_vllm_that_is_new_enough_starts(version: str, device: str) -> None:
    check_version(version, device=device)


@pytest.mark.parametrize(
    ("version", "device"),
    [("0.31.9", "cpu"), ("0.32.0", "cuda"), ("dev", "cuda"), ("0.33.0", "tpu")],
)
def test_an_old_vllm_or_one_for_another_device_is_refused(version: str, device: str) -> None:
    with pytest.raises(InvalidInput):
        check_version(version, device=device)


def refused(directory: Path, **own: object) -> InvalidInput:
    with pytest.raises(InvalidInput) as error:
        load_vllm(directory, name="tiny", settings=EngineSettings(), own=VllmSettings(**own))
    return error.value


def test_a_model_of_more_than_text_is_refused_before_vllm_starts(tmp_path: Path) -> None:
    config = save_tiny_model(tmp_path) / "config.json"
    seeing = json.loads(config.read_text(encoding="utf-8")) | {"vision_config": {"size": 1}}
    config.write_text(json.dumps(seeing), encoding="utf-8")
    error = refused(tmp_path)
    assert error.field == "model" and "multimodal" in error.message


def test_layers_that_the_model_does_not_have_are_refused_before_vllm_starts(tmp_path: Path) -> None:
    error = refused(save_tiny_model(tmp_path), vllm_target_modules=("q_proj", "c_attn"))
    assert error.field == "vllm_target_modules"
    assert "c_attn" in error.message and "v_proj" in error.remedy
