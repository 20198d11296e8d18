"""`--backend vllm` of the services: what it says without vLLM, and what it serves with it."""

from __future__ import annotations

import asyncio
import json
import os
import runpy
import signal
import sys
from importlib.util import find_spec
from pathlib import Path

import pytest
from fake_vllm import random_adapter
from grpc_health.v1 import health_pb2, health_pb2_grpc
from service_harness import evaluation_request, policy, read_all
from tiny_model import save_tiny_model

from seal.artifacts import ArtifactStore
from seal.engine import read_outline, save_adapter
from seal.models import resolve_model
from seal.rpc.client import open_channel
from seal.rpc.convert import adapter_message
from seal.v1 import common_pb2, evaluator_pb2_grpc

ROOT = Path(__file__).parents[2]
MODEL = "smollm2-135m"
START_SECONDS = 900.0
CALL_SECONDS = 300.0


@pytest.mark.skipif(find_spec("vllm") is not None, reason="vLLM is installed")
@pytest.mark.parametrize("service", ["generator_svc", "evaluator_svc"])
def test_without_vllm_the_process_ends_with_2_and_says_what_to_install(
    service: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr("seal.serving.configure_logging", lambda *_: None)
    options = {
        "--backend": "vllm",
        "--model": str(save_tiny_model(tmp_path / "model")),
        "--artifacts": str(tmp_path / "artifacts"),
        "--address": f"unix:{tmp_path}/s",
        "--metrics-port": "0",
        "--vllm-adapter-directory": str(tmp_path / "adapters"),
    }
    monkeypatch.setattr(
        sys, "argv", [service, *(word for pair in options.items() for word in pair)]
    )
    with pytest.raises(SystemExit) as ended:
        runpy.run_module(service, run_name="__main__")
    assert ended.value.code == 2
    assert "pip install 'seal-kubernetes[vllm]'" in capfd.readouterr().err
    assert list((tmp_path / "adapters").iterdir()) == []


@pytest.mark.vllm
@pytest.mark.timeout(START_SECONDS + CALL_SECONDS)
@pytest.mark.skipif(find_spec("vllm") is None, reason="vLLM is not installed: make test-vllm")
async def test_an_evaluator_with_vllm_serves_an_adapter_of_the_store_and_ends_with_0(
    tmp_path: Path,
) -> None:
    store, model = ArtifactStore(str(tmp_path / "artifacts")), resolve_model(MODEL)
    outline = read_outline(model.path, name=MODEL, base=model.base)
    save_adapter(random_adapter(outline, seed=1, rank=2, scale=0.05), tmp_path / "adapter")
    reference = store.publish_directory(tmp_path / "adapter", "run/adapters")
    process = await asyncio.create_subprocess_exec(
        *(sys.executable, "-m", "evaluator_svc", "--backend", "vllm", "--model", MODEL),
        *("--artifacts", str(tmp_path / "artifacts"), "--address", f"unix:{tmp_path}/s"),
        *("--metrics-port", "0", "--unready-seconds", "0", "--log-format", "json"),
        *("--dtype", "float32", "--max-rank", "8", "--vllm-adapters", "2"),
        *("--vllm-context-tokens", "1024"),
        cwd=ROOT,
        env=os.environ | {"PYTHONPATH": str(ROOT)},
        stderr=asyncio.subprocess.PIPE,
    )
    reading = asyncio.create_task(process.stderr.read() if process.stderr else asyncio.sleep(0))
    try:
        async with open_channel(f"unix:{tmp_path}/s") as channel:
            ready = health_pb2.HealthCheckRequest(service="seal.v1.EvaluatorService")
            health = health_pb2_grpc.HealthStub(channel)
            answer = await health.Check(ready, timeout=START_SECONDS, wait_for_ready=True)
            assert answer.status == health_pb2.HealthCheckResponse.SERVING
            request = evaluation_request(
                policy=policy(base_model=MODEL), adapter=adapter_message(reference)
            )
            stub = evaluator_pb2_grpc.EvaluatorServiceStub(channel)
            result = (await read_all(stub.Evaluate(request, timeout=CALL_SECONDS)))[-1].result
        assert result.outcome == common_pb2.OUTCOME_OK
        assert len(result.answers) == 2 and result.max_logit_difference > 0
        assert result.engine_seconds > 0
        process.send_signal(signal.SIGTERM)
        assert await process.wait() == 0
    finally:
        if process.returncode is None:
            process.kill()
    lines = (await reading or b"").decode().splitlines()
    assert any(json.loads(line)["event"] == "server stopped" for line in lines if line[:1] == "{")
