"""The compute type: bfloat16 only where it is multiplied in hardware."""

from __future__ import annotations

from pathlib import Path

import pytest
import structlog
import torch
from tiny_model import save_tiny_model

from seal.engine import Engine
from seal.engine.peak import measure_gemm_peak
from seal.engine.precision import compute_dtype, multiplies_bfloat16
from seal.settings import ComputeType, EngineSettings

AVX2 = {
    "architecture": "x86_64",
    "avx2": True,
    "avx512_bf16": False,
    "amx_bf16": False,
    "l2_cache_size": 524288,
}
ZEN4 = AVX2 | {"avx512_bf16": True}
ARM = {"architecture": "aarch64", "neon": True, "bf16": True}


@pytest.mark.parametrize(
    ("capabilities", "hardware"),
    [(AVX2, False), (ZEN4, True), (AVX2 | {"amx_bf16": True}, True), (ARM, True)],
)
def test_auto_is_bfloat16_where_the_processor_multiplies_it(
    capabilities: dict[str, object], hardware: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(torch.cpu, "get_capabilities", lambda: capabilities)
    assert multiplies_bfloat16(torch.device("cpu")) == hardware
    assert compute_dtype("auto", "cpu") == (torch.bfloat16 if hardware else torch.float32)


def test_the_types_of_this_processor_are_told_by_the_names_that_torch_uses() -> None:
    assert {"avx512_bf16", "amx_bf16"} <= set(torch.cpu.get_capabilities()) or "x86" not in str(
        torch.cpu.get_capabilities()["architecture"]
    )


@pytest.mark.parametrize(
    ("capabilities", "asked", "dtype", "warned"),
    [
        (AVX2, "auto", torch.float32, False),
        (AVX2, "bfloat16", torch.bfloat16, True),
        (ZEN4, "auto", torch.bfloat16, False),
        (ZEN4, "float32", torch.float32, False),
    ],
)
def test_an_engine_computes_in_its_machines_type_or_the_asked_and_says_if_bfloat16_is_slow(
    capabilities: dict[str, object],
    asked: ComputeType,
    dtype: torch.dtype,
    warned: bool,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    directory = save_tiny_model(tmp_path / "model")
    monkeypatch.setattr(torch.cpu, "get_capabilities", lambda: capabilities)
    with structlog.testing.capture_logs() as logs:
        engine = Engine.load(
            directory,
            name="tiny",
            settings=EngineSettings(dtype=asked, slots=1, max_rank=4, threads=1),
        )
    try:
        assert engine._model.dtype == dtype
    finally:
        engine.close()
    assert [line["remedy"] for line in logs if line["log_level"] == "warning"] == [
        "set dtype of the engine to auto (--engine dtype=auto, a service: --dtype auto)"
    ] * warned


def test_the_peak_is_measured_in_the_asked_type_and_within_seconds(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    assert measure_gemm_peak(dtype=torch.float32, size=64, repeats=2) > 0
    products: list[torch.dtype] = []
    multiply = torch.Tensor.__matmul__
    monkeypatch.setattr("seal.engine.peak.MAX_SECONDS", 0.0)
    monkeypatch.setattr(
        torch.Tensor,
        "__matmul__",
        lambda left, right: products.append(left.dtype) or multiply(left, right),
    )
    measure_gemm_peak(dtype=torch.bfloat16, size=8, repeats=10)
    assert products == [torch.bfloat16]
