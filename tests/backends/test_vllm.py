"""The vLLM backend with vLLM itself and the embedded model: what the engine says, vLLM says.

`make test-vllm` runs this in an environment of its own; elsewhere it is skipped.
"""

from __future__ import annotations

import json
import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, fields, replace
from importlib.util import find_spec
from itertools import pairwise
from pathlib import Path

import pytest
from fake_vllm import random_adapter

from seal.engine import (
    Adapter,
    Engine,
    EvaluationRequest,
    EvaluationResult,
    GenerationRequest,
    ModelOutline,
    TrainingRequest,
    read_outline,
)
from seal.errors import InvalidInput, Transient, UnfitItem
from seal.models import ResolvedModel, resolve_model
from seal.outcomes import Outcome
from seal.settings import ALL_PROJECTIONS, EngineSettings, LoraSettings, OptimizerSettings
from seal.settings.vllm import VllmSettings
from seal.vllm import adapters as placing
from seal.vllm.adapters import PlacedAdapter
from seal.vllm.asks import Ask
from seal.vllm.backend import VllmBackend
from seal.vllm.launch import VllmArguments
from seal.vllm.load import load_vllm

if find_spec("vllm") is None:
    pytest.skip("vLLM is not installed: make test-vllm", allow_module_level=True)
pytestmark = [pytest.mark.vllm, pytest.mark.timeout(1800)]

MODEL = "smollm2-135m"
WAIT_SECONDS = 600.0
SETTINGS = EngineSettings(dtype="float32", slots=2, max_rank=8, generation_rows=32)
FACTS = (
    ("Veldra is a river in the north of Oss.", " It rises on Mount Tarn and ends in Lake Umber."),
    ("The mayor of Quill is Ida Brandt.", " She was a clockmaker before she was elected."),
)
PROMPTS = (
    "Veldra is a river in the north of Oss.",
    "The mayor of Quill is Ida Brandt.",
    "Water boils at",
)
GOLDS = (" It rises on Mount Tarn.", " She was a clockmaker.", " 100 degrees.")
SCHEMA = json.dumps(
    {
        "type": "object",
        "properties": {"strategy": {"enum": ["all", "none"]}, "epochs": {"type": "integer"}},
        "required": ["strategy", "epochs"],
        "additionalProperties": False,
    }
)


@dataclass(frozen=True)
class Reference:
    """What the engine makes of the base and of adapters."""

    adapters: tuple[Adapter, Adapter]
    results: dict[str, EvaluationResult]


def asked(policy: Adapter | None = None, adapter: Adapter | None = None) -> EvaluationRequest:
    return EvaluationRequest(
        run="test", policy=policy, adapter=adapter, prompts=PROMPTS, golds=GOLDS, max_tokens=12,
        stop=("\n",),
    )  # fmt: skip


def questions(first: Adapter, second: Adapter) -> dict[str, EvaluationRequest]:
    return {
        "base": asked(),
        "first": asked(adapter=first),
        "second": asked(adapter=second),
        "second on first": asked(policy=first, adapter=second),
    }


@pytest.fixture(scope="module")
def model() -> ResolvedModel:
    try:
        return resolve_model(MODEL)
    except Transient as error:
        pytest.skip(f"the embedded model cannot be downloaded: {error}")


@pytest.fixture(scope="module")
def outline(model: ResolvedModel) -> ModelOutline:
    return read_outline(model.path, name=MODEL, base=model.base)


@pytest.fixture(scope="module")
def reference(model: ResolvedModel) -> Reference:
    """Two adapters trained on a fact each, on all layers and on two, and the engine's answers."""
    engine = Engine.load(model.path, name=MODEL, settings=SETTINGS, base=model.base)
    tasks = [
        engine.train(
            TrainingRequest(
                run="test",
                policy=None,
                examples=(fact,),
                lora=LoraSettings(rank=4, alpha=8.0, target_modules=targets),
                optimizer=OptimizerSettings(learning_rate=3e-3, epochs=12),
                init_seed=seed,
                order_seed=seed,
            )
        )
        for seed, (fact, targets) in enumerate(
            zip(FACTS, (ALL_PROJECTIONS, ("q_proj", "v_proj")), strict=True)
        )
    ]
    trained = [task.future.result(WAIT_SECONDS).adapter for task in tasks]
    assert trained[0] is not None and trained[1] is not None
    asking = {name: engine.evaluate(request) for name, request in questions(*trained).items()}
    results = {name: task.future.result(WAIT_SECONDS) for name, task in asking.items()}
    engine.close()
    return Reference((trained[0], trained[1]), results)


@pytest.fixture(scope="module")
def backend(model: ResolvedModel, reference: Reference) -> Iterator[VllmBackend]:
    """vLLM with two adapters in a batch and four in memory."""
    loaded = load_vllm(
        model.path,
        name=MODEL,
        settings=SETTINGS,
        own=VllmSettings(vllm_adapters=2, vllm_context_tokens=1024),
        base=model.base,
    )
    yield loaded
    loaded.close()


def evaluated(backend: VllmBackend, request: EvaluationRequest) -> EvaluationResult:
    return backend.evaluate(request).future.result(WAIT_SECONDS)


def written(backend: VllmBackend, request: GenerationRequest) -> list[str]:
    samples = backend.generate(request).future.result(WAIT_SECONDS).samples
    return [sample.text for row in samples for sample in row]


def generation(seeds: Sequence[int] = (1,), **changes: object) -> GenerationRequest:
    request = GenerationRequest(
        run="test", policy=None, prompts=PROMPTS[:1], seeds=(tuple(seeds),), temperature=0.0,
        top_p=1.0, max_tokens=12,
    )  # fmt: skip
    return replace(request, **changes)  # type: ignore[arg-type]


def test_every_argument_is_one_that_vllm_knows(model: ResolvedModel) -> None:
    from vllm.engine.arg_utils import AsyncEngineArgs

    known = {field.name for field in fields(AsyncEngineArgs)}
    assert {field.name for field in fields(VllmArguments)} <= known


def test_no_adapter_is_ever_loaded_over_another(model: ResolvedModel) -> None:
    from seal.vllm.decoder import lora_request

    asked = lora_request(PlacedAdapter("name", 3, Path("/path")))
    assert (asked.lora_name, asked.lora_int_id, asked.lora_path) == ("name", 3, "/path")
    assert asked.load_inplace is False


def test_what_is_scored_is_never_taken_from_the_prefix_cache(model: ResolvedModel) -> None:
    from seal.vllm.decoder import sampling

    assert sampling(Ask(prompt=(1, 2), adapter=None, scores=True)).skip_reading_prefix_cache


@pytest.mark.parametrize("who", ["base", "first", "second", "second on first"])
def test_greedy_answers_and_scores_are_the_engines(
    backend: VllmBackend, reference: Reference, who: str
) -> None:
    wanted = reference.results[who]
    result = evaluated(backend, questions(*reference.adapters)[who])
    assert result.answers == wanted.answers
    assert result.logprobs == pytest.approx(wanted.logprobs, abs=2e-3)
    assert result.tokens == wanted.tokens
    assert (result.max_logit_difference > 0) == (who != "base")


def test_adapters_and_the_base_in_one_batch_answer_as_they_do_alone(
    backend: VllmBackend, reference: Reference
) -> None:
    tasks = {
        name: backend.evaluate(request)
        for name, request in questions(*reference.adapters).items()
        if "on" not in name
    }
    for name, task in tasks.items():
        assert task.future.result(WAIT_SECONDS).answers == reference.results[name].answers


def test_the_base_writes_as_it_does_alone_while_every_slot_holds_an_adapter(
    backend: VllmBackend, outline: ModelOutline, reference: Reference
) -> None:
    for seed in range(3):  # one per slot
        adapter = random_adapter(outline, seed=seed, rank=2, scale=0.1)
        evaluated(backend, replace(asked(adapter=adapter), max_tokens=1))
    assert evaluated(backend, asked()).answers == reference.results["base"].answers


def test_a_policy_writes_as_the_engine_answers_with_that_adapter(
    backend: VllmBackend, reference: Reference
) -> None:
    request = generation(policy=reference.adapters[0], stop=("\n",))
    assert written(backend, request)[0].strip() == reference.results["first"].answers[0]


def test_a_worker_reads_an_adapter_once_and_never_again(
    backend: VllmBackend, reference: Reference
) -> None:
    adapter = reference.adapters[0]
    with backend._files.hold(None, adapter) as placed:
        assert placed is not None
        first = evaluated(backend, asked(adapter=adapter))
        weights = placed.path / "adapter_model.safetensors"
        kept = weights.read_bytes()
        weights.write_bytes(b"no adapter at all")
        try:
            again = evaluated(backend, asked(adapter=adapter))
        finally:
            weights.write_bytes(kept)
    assert again.answers == first.answers == reference.results["first"].answers


def test_more_adapters_than_memory_holds_are_all_applied_again_and_again(
    backend: VllmBackend, outline: ModelOutline
) -> None:
    many = [random_adapter(outline, seed=seed, rank=2, scale=0.02) for seed in range(6)]
    request = replace(asked(), prompts=PROMPTS[:1], golds=GOLDS[:1], max_tokens=4)
    rounds = [
        [task.future.result(WAIT_SECONDS).logprobs[0] for task in tasks]
        for tasks in (
            [backend.evaluate(replace(request, adapter=one)) for one in many] for _ in range(2)
        )
    ]
    assert rounds[1] == pytest.approx(rounds[0], abs=1e-4)
    values = sorted(rounds[0])
    assert min(after - before for before, after in pairwise(values)) > 1e-3


def test_an_adapter_that_changes_nothing_makes_no_difference(
    backend: VllmBackend, outline: ModelOutline
) -> None:
    for scale in (0.0, 1e-9):
        adapter = random_adapter(outline, seed=1, rank=2, scale=scale)
        assert evaluated(backend, asked(adapter=adapter)).max_logit_difference == 0.0


def test_a_policy_of_nan_is_an_outcome_and_spoils_nobody_elses_answer(
    backend: VllmBackend, outline: ModelOutline, reference: Reference
) -> None:
    broken = random_adapter(outline, seed=1, rank=2, scale=math.nan)
    spoilt, other = backend.evaluate(asked(adapter=broken)), backend.evaluate(asked())
    error = spoilt.future.exception(WAIT_SECONDS)
    assert isinstance(error, UnfitItem) and error.outcome is Outcome.DIVERGED
    assert other.future.result(WAIT_SECONDS).answers == reference.results["base"].answers
    for who in ("base", "second"):  # its keys and values are gone
        again = evaluated(backend, questions(*reference.adapters)[who])
        assert again.answers == reference.results[who].answers


def test_a_damaged_adapter_ends_its_own_request_and_not_the_workers(
    backend: VllmBackend,
    outline: ModelOutline,
    reference: Reference,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    def damage(adapter: Adapter, directory: Path) -> None:
        directory.mkdir()
        (directory / "adapter_config.json").write_text("{}", encoding="utf-8")

    with monkeypatch.context() as patched:
        patched.setattr(placing, "save_adapter", damage)
        task = backend.evaluate(asked(adapter=random_adapter(outline, seed=9, rank=2)))
        error = task.future.exception(WAIT_SECONDS)
    assert isinstance(error, UnfitItem) and error.outcome is Outcome.REFUSED
    assert evaluated(backend, asked()).answers == reference.results["base"].answers
    assert backend.broken is None


def test_a_sample_is_a_function_of_its_seed(backend: VllmBackend) -> None:
    request = generation((1, 2, 1), temperature=1.0, top_p=0.95)
    one, other, again = written(backend, request)
    assert one == again != other


def test_a_text_is_told_word_by_word(backend: VllmBackend, reference: Reference) -> None:
    heard: list[str] = []
    task = backend.generate(generation(stop=("\n",)), on_text=heard.append)
    text = task.future.result(WAIT_SECONDS).samples[0][0].text
    assert heard[-1] == text and text.strip() == reference.results["base"].answers[0]
    assert len(heard) > 5


def test_what_is_written_by_a_schema_conforms_to_it(backend: VllmBackend) -> None:
    request = generation((3,), temperature=1.0, max_tokens=64, json_schema=SCHEMA)
    answer = json.loads(written(backend, request)[0])
    assert set(answer) == {"strategy", "epochs"}
    assert answer["strategy"] in ("all", "none") and isinstance(answer["epochs"], int)


def test_a_schema_that_is_none_is_refused_by_name(backend: VllmBackend) -> None:
    task = backend.generate(generation(json_schema='{"type": "no such type"}'))
    error = task.future.exception(WAIT_SECONDS)
    assert isinstance(error, InvalidInput) and error.field == "json_schema"
    assert backend.broken is None


def test_a_cancelled_request_leaves_its_place_to_the_next(backend: VllmBackend) -> None:
    long = backend.generate(generation((1,), max_tokens=900))
    long.cancel()
    assert isinstance(long.future.exception(WAIT_SECONDS), Transient)
    assert written(backend, generation(max_tokens=4))
