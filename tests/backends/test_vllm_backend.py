"""The vLLM backend over a decoder that stands in the place of vLLM."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from fake_vllm import FakeDecoder, byte_tokens, fake_backend, random_adapter, tiny_outline
from metric_growth import Growth

from seal.engine import EvaluationRequest, GenerationRequest, ModelOutline
from seal.errors import Exhausted, InvalidInput, SealError, Transient, UnfitItem
from seal.outcomes import Outcome
from seal.vllm.asks import Ask, DecoderDeadError, Told
from seal.vllm.backend import VllmBackend
from seal.vllm.shared_time import SharedTime
from seal.vllm.work import NOISE

WAIT_SECONDS = 20.0
GENERATION = GenerationRequest(
    run="run", policy=None, prompts=("What?",), seeds=((1, 2),), temperature=0.7, top_p=0.9,
    max_tokens=32,
)  # fmt: skip
EVALUATION = EvaluationRequest(
    run="run", policy=None, adapter=None, prompts=("Who?", "Where to?"), golds=(" A.", " B."),
    max_tokens=16,
)  # fmt: skip


@pytest.fixture(scope="module")
def outline(tmp_path_factory: pytest.TempPathFactory) -> ModelOutline:
    return tiny_outline(tmp_path_factory.mktemp("model"))


@pytest.fixture
def decoder() -> FakeDecoder:
    return FakeDecoder()


@pytest.fixture
def make(
    decoder: FakeDecoder, outline: ModelOutline, tmp_path: Path
) -> Iterator[Callable[..., VllmBackend]]:
    made: list[VllmBackend] = []

    def backend(**settings: object) -> VllmBackend:
        made.append(fake_backend(decoder, outline, tmp_path, **settings))
        return made[-1]

    yield backend
    for one in made:
        one.close()


def ended(task: Any) -> Any:
    return task.future.result(timeout=WAIT_SECONDS)


def failed(task: Any) -> BaseException:
    error = task.future.exception(timeout=WAIT_SECONDS)
    assert error is not None
    return error


def until(true: Callable[[], bool]) -> None:
    deadline = time.monotonic() + WAIT_SECONDS
    while not true():
        assert time.monotonic() < deadline
        time.sleep(0.01)


def test_samples_come_in_the_order_of_prompts_and_seeds(make, decoder: FakeDecoder) -> None:
    request = replace(GENERATION, prompts=("One", "Two"), seeds=((5, 6), (7,)), stop=(".",))
    news: list[tuple[int, int]] = []
    result = ended(make().generate(request, lambda *one: news.append(one)))
    assert [[sample.seed for sample in samples] for samples in result.samples] == [[5, 6], [7]]
    sample = result.samples[0][0]
    assert (sample.text, sample.truncated, sample.logprob) == ("a river", False, -0.5)
    assert sample.tokens == len("a river.")
    assert news[-1] == (3, 3 * len("a river."))
    asked = decoder.asked[-1]
    assert (asked.temperature, asked.top_p, asked.seed) == (0.7, 0.9, 7)
    assert 2 in asked.stop_tokens and asked.adapter is None


def test_requests_tokens_seconds_and_waits_are_counted(make) -> None:
    grown, backend = Growth(), make(device="cpu")
    written, answered = ended(backend.generate(GENERATION)), ended(backend.evaluate(EVALUATION))
    tokens = sum(sample.tokens for sample in written.samples[0]) + answered.tokens
    assert grown("seal_generated_tokens_total") == tokens > 0
    for kind in ("generate", "evaluate"):
        until(lambda: grown("seal_engine_requests_total", kind=kind, outcome="ok") == 1)  # noqa: B023 - called at once
        assert grown("seal_engine_queue_wait_seconds_count", kind=kind) == 1
        assert grown("seal_engine_busy_seconds_total", kind=kind, device="cpu") > 0


def test_a_sample_that_max_tokens_cuts_off_says_so(make) -> None:
    result = ended(make().generate(replace(GENERATION, max_tokens=3)))
    assert [(one.text, one.truncated) for one in result.samples[0]] == [("a r", True)] * 2


def test_a_schema_goes_to_the_decoder(make, decoder: FakeDecoder) -> None:
    ended(make().generate(replace(GENERATION, json_schema='{"type": "object"}')))
    assert {ask.json_schema for ask in decoder.asked} == {'{"type": "object"}'}


def test_a_score_is_the_mean_log_p_of_the_gold_completion_alone(make) -> None:
    result = ended(make().evaluate(EVALUATION))
    golds = list(map(byte_tokens, EVALUATION.golds))
    wanted = [sum(-(token % 5) for token in gold) / len(gold) for gold in golds]
    assert result.logprobs == pytest.approx(wanted)
    assert result.answers == ("a river.", "a river.")
    assert result.tokens == 2 * len("a river.")
    assert result.max_logit_difference == 0.0


def test_an_adapter_on_a_policy_is_asked_for_as_one_and_proven_against_the_policy(
    make, decoder: FakeDecoder, outline: ModelOutline
) -> None:
    policy, adapter = random_adapter(outline, seed=1), random_adapter(outline, seed=2)
    result = ended(make().evaluate(replace(EVALUATION, policy=policy, adapter=adapter)))
    names = [ask.adapter.name for ask in decoder.asked if ask.adapter is not None]
    assert len(names) == len(decoder.asked) == 6
    assert sorted(names.count(name) for name in set(names)) == [2, 4]
    assert result.max_logit_difference > NOISE["float32"]


def test_an_adapter_that_the_server_leaves_out_is_no_difference(
    make, decoder: FakeDecoder, outline: ModelOutline
) -> None:
    decoder.ignores_adapters, decoder.noise = True, 1e-3
    request = replace(EVALUATION, adapter=random_adapter(outline, seed=2))
    assert ended(make().evaluate(request)).max_logit_difference == 0.0


def test_an_adapter_of_zeros_is_no_difference_whatever_rounding_does(
    make, outline: ModelOutline
) -> None:
    request = replace(EVALUATION, adapter=random_adapter(outline, seed=2, scale=0.0))
    assert ended(make().evaluate(request)).max_logit_difference == 0.0


def test_log_probabilities_that_are_nan_are_an_outcome(
    make, decoder: FakeDecoder, outline: ModelOutline, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def tell(ask: Ask, on_tokens: Callable[[Sequence[int]], None]) -> Told:
        return Told((5,), (float("nan"),), False, (float("nan"),) * (len(ask.prompt) - 1))

    monkeypatch.setattr(decoder, "tell", tell)
    backend = make()
    for task in (
        backend.generate(GENERATION),
        backend.evaluate(replace(EVALUATION, adapter=random_adapter(outline, seed=1))),
    ):
        error = failed(task)
        assert isinstance(error, UnfitItem) and error.outcome is Outcome.DIVERGED


def test_who_diverges_alone_is_the_cause_and_whom_it_spoilt_gets_its_answer(
    make, decoder: FakeDecoder, outline: ModelOutline
) -> None:
    backend, broken = make(), random_adapter(outline, seed=1)
    ended(backend.evaluate(replace(EVALUATION, adapter=broken)))
    decoder.poison = decoder.loaded[-1].name
    decoder.gate.clear()
    tasks = [
        backend.evaluate(replace(EVALUATION, adapter=adapter))
        for adapter in (broken, random_adapter(outline, seed=2), None)
    ]
    until(lambda: len(decoder.at_work) == 3)
    later = backend.generate(GENERATION)
    backend._call(decoder.gate.set)
    error = failed(tasks[0])
    assert isinstance(error, UnfitItem) and error.outcome is Outcome.DIVERGED
    assert all(ended(task).answers[0] == "a river." for task in tasks[1:])
    assert ended(later).samples[0][0].text == "a river."
    assert decoder.forgot >= 2


@pytest.mark.parametrize("leaves", [False, True], ids=["comes", "leaves"])
def test_who_is_written_again_alone_gets_no_company(
    leaves: bool, make, decoder: FakeDecoder, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def forget() -> None:
        decoder.poisoned = False
        decoder.gate.clear()

    monkeypatch.setattr(decoder, "forget", forget)
    backend, decoder.poisoned = make(), True
    suspect = backend.generate(GENERATION)
    until(lambda: suspect in backend._tried and suspect in backend._at_work)
    until(lambda: bool(decoder.at_work))
    later, another = backend.generate(GENERATION), backend.generate(GENERATION)
    if leaves:
        another.cancel()
    time.sleep(0.1)
    assert list(backend._at_work) == [suspect]
    backend._call(decoder.gate.set)
    assert ended(suspect).samples and ended(later).samples


def test_a_text_is_told_while_it_is_written(make, decoder: FakeDecoder) -> None:
    decoder.written = byte_tokens("a €. Q: x"), 2
    telling: list[str] = []
    single = replace(GENERATION, seeds=((1,),), stop=("Q:",))
    result = ended(make().generate(single, on_text=telling.append))
    assert telling == ["a €.", "a €. "]
    assert result.samples[0][0].text == telling[-1]
    assert failed_at_once(lambda: make().generate(GENERATION, on_text=telling.append)) == "seeds"


def failed_at_once(start: Callable[[], object]) -> str:
    with pytest.raises(InvalidInput) as refused:
        start()
    return refused.value.field


def test_never_more_adapters_are_at_work_than_a_batch_holds_and_all_get_their_turn(
    make, decoder: FakeDecoder, outline: ModelOutline
) -> None:
    backend = make(max_adapters=2)
    decoder.gate.clear()
    tasks = [
        backend.evaluate(replace(EVALUATION, adapter=random_adapter(outline, seed=seed)))
        for seed in range(6)
    ]
    until(lambda: len(decoder.at_work - {""}) == 2)
    backend._call(decoder.gate.set)
    assert all(ended(task).max_logit_difference > 0 for task in tasks)
    assert decoder.most_adapters == 2


def test_an_evaluation_that_needs_more_adapters_than_a_batch_holds_runs_alone(
    make, outline: ModelOutline
) -> None:
    policy, adapter = random_adapter(outline, seed=1), random_adapter(outline, seed=2)
    request = replace(EVALUATION, policy=policy, adapter=adapter)
    assert ended(make(max_adapters=1).evaluate(request)).max_logit_difference > 0


def test_an_adapter_that_cannot_be_loaded_ends_its_own_request_alone(
    make, decoder: FakeDecoder, outline: ModelOutline
) -> None:
    def refuse(adapter: object) -> None:
        raise UnfitItem("vLLM cannot load it", outcome=Outcome.REFUSED)

    backend, decoder.load_fault = make(), refuse
    adapted = backend.evaluate(replace(EVALUATION, adapter=random_adapter(outline, seed=1)))
    assert isinstance(failed(adapted), UnfitItem)
    assert ended(backend.evaluate(EVALUATION)).answers
    assert backend.broken is None


@pytest.mark.parametrize(
    ("policy", "adapter", "field"),
    [
        (None, {"targets": ("q_proj", "up_proj")}, "adapter"),
        ({"targets": ("down_proj",)}, None, "policy"),
        (None, {"rank": 9}, "adapter"),
        ({"rank": 5}, {"rank": 4}, "adapter"),
        ({"rank": 9}, None, "policy"),
    ],
)
def test_an_adapter_that_vllm_would_not_apply_is_refused_at_the_door(
    make, outline: ModelOutline, policy: Any, adapter: Any, field: str
) -> None:
    adapters = [
        None if one is None else random_adapter(outline, seed=1, **one) for one in (policy, adapter)
    ]
    with pytest.raises(InvalidInput) as refused:
        make().evaluate(replace(EVALUATION, policy=adapters[0], adapter=adapters[1]))
    assert refused.value.field == field
    assert refused.value.remedy


def test_the_rank_that_it_says_it_takes_is_the_largest_that_its_door_lets_in(
    make, outline: ModelOutline
) -> None:
    backend = make()
    held = backend.max_lora_rank
    policy, adapter = (random_adapter(outline, seed=1, rank=rank) for rank in (held - 2, 2))
    ended(backend.evaluate(replace(EVALUATION, policy=policy, adapter=adapter)))
    with pytest.raises(InvalidInput, match=f"this server takes {held}"):
        backend.evaluate(
            replace(EVALUATION, policy=random_adapter(outline, seed=1, rank=held), adapter=adapter)
        )


def test_prompts_that_are_too_long_are_named_by_their_places(make) -> None:
    request = replace(GENERATION, prompts=("a", "b" * 5000, "c", "d" * 5000), seeds=((1,),) * 4)
    with pytest.raises(UnfitItem) as refused:
        make().generate(request)
    assert (refused.value.outcome, list(refused.value.places)) == (Outcome.TOO_LONG, [1, 3])
    with pytest.raises(UnfitItem, match="positions"):
        make().evaluate(replace(EVALUATION, prompts=("x" * 4090, "y")))


def test_a_gold_completion_without_tokens_is_refused(make) -> None:
    with pytest.raises(InvalidInput) as refused:
        make().evaluate(replace(EVALUATION, golds=(" A.", "")))
    assert refused.value.field == "golds[1]"


def test_a_full_queue_refuses(make, decoder: FakeDecoder) -> None:
    backend = make(max_queue=1, generation_rows=1, evaluation_rows=1)
    decoder.gate.clear()
    backend.generate(GENERATION)
    until(lambda: bool(decoder.asked))
    backend.generate(GENERATION)
    with pytest.raises(Exhausted):
        backend.generate(GENERATION)
    backend._call(decoder.gate.set)


def test_cancelling_stops_the_texts_and_the_next_request_gets_their_place(
    make, decoder: FakeDecoder
) -> None:
    backend = make(generation_rows=1, evaluation_rows=1)
    decoder.gate.clear()
    running, waiting = backend.generate(GENERATION), backend.generate(GENERATION)
    until(lambda: len(decoder.asked) == 2)
    running.cancel()
    assert isinstance(failed(running), Transient)
    assert decoder.dropped == 2
    until(lambda: len(decoder.asked) == 4)
    backend._call(decoder.gate.set)
    assert ended(waiting).samples


def test_a_cancelled_request_leaves_the_queue_at_once(make, decoder: FakeDecoder) -> None:
    backend = make(max_queue=1, generation_rows=1, evaluation_rows=1)
    decoder.gate.clear()
    running = backend.generate(GENERATION)
    until(lambda: len(decoder.asked) == 2)
    waiting = backend.generate(GENERATION)
    waiting.cancel()
    assert isinstance(failed(waiting), Transient)
    another = backend.generate(GENERATION)
    backend._call(decoder.gate.set)
    assert ended(running).samples and ended(another).samples


def test_a_request_that_is_cancelled_as_it_is_let_in_ends(make, decoder: FakeDecoder) -> None:
    backend = make(generation_rows=1, evaluation_rows=1)
    decoder.gate.clear()
    running = backend.generate(GENERATION)
    until(lambda: len(decoder.asked) == 2)
    waiting = backend.generate(GENERATION)

    def let_in_and_drop() -> None:
        task = next(iter(backend._queues["generate"]))
        backend._queues["generate"].take()
        backend._enter(task)
        task.cancel()
        backend._drop(task)

    backend._call(let_in_and_drop)
    assert isinstance(failed(waiting), Transient)
    backend._call(decoder.gate.set)
    assert ended(running).samples


def test_nothing_is_kept_of_a_suspect_that_is_cancelled(
    make, decoder: FakeDecoder, monkeypatch: pytest.MonkeyPatch
) -> None:
    emptied = asyncio.Event()

    async def forget() -> None:
        await emptied.wait()
        decoder.poisoned = False

    monkeypatch.setattr(decoder, "forget", forget)
    backend, decoder.poisoned = make(), True
    suspect = backend.generate(GENERATION)
    until(lambda: bool(backend._suspects))
    suspect.cancel()
    assert isinstance(failed(suspect), Transient)
    backend._call(emptied.set)
    assert ended(backend.generate(GENERATION)).samples
    assert not backend._tried and not backend._suspects


def test_when_the_workers_have_ended_everybody_hears_it_and_it_counts_as_broken(
    make, decoder: FakeDecoder
) -> None:
    def die(ask: Ask) -> None:
        raise DecoderDeadError("the core has ended")

    backend = make(generation_rows=1, evaluation_rows=1)
    assert backend.broken is None
    decoder.gate.clear()
    tasks = [backend.generate(GENERATION) for _ in range(3)]
    decoder.fault = die
    backend._call(decoder.gate.set)
    assert all(isinstance(failed(task), Transient) for task in tasks)
    assert "the core has ended" in (backend.broken or "")
    with pytest.raises(Transient):
        backend.generate(GENERATION)


def test_a_silence_while_work_waits_counts_as_broken(make, decoder: FakeDecoder) -> None:
    backend = make(stall_seconds=0.2)
    ended(backend.generate(GENERATION))
    until(lambda: backend.heartbeat_seconds == 0.0)
    decoder.gate.clear()
    task = backend.generate(GENERATION)
    assert isinstance(failed(task), Transient)
    assert "0 s" in (backend.broken or "")


def test_closing_ends_what_is_unfinished_and_removes_the_adapters(
    make, decoder: FakeDecoder, outline: ModelOutline, tmp_path: Path
) -> None:
    backend = make()
    decoder.gate.clear()
    task = backend.evaluate(replace(EVALUATION, adapter=random_adapter(outline, seed=1)))
    until(lambda: bool(decoder.asked))
    backend.close()
    assert isinstance(failed(task), Transient)
    assert decoder.closed and list(tmp_path.iterdir()) == []
    with pytest.raises(Transient):
        backend.generate(GENERATION)


def test_what_fails_at_the_start_comes_out_of_the_constructor(
    outline: ModelOutline, tmp_path: Path, decoder: FakeDecoder
) -> None:
    async def start() -> FakeDecoder:
        raise InvalidInput("vLLM is too old")

    backend = fake_backend(decoder, outline, tmp_path)
    with pytest.raises(SealError, match="too old"):
        VllmBackend(start, backend._model, backend.settings, backend._files)
    backend.close()


def test_shares_of_time_sum_to_the_time_that_rows_were_at_work() -> None:
    now = [0.0]
    shared = SharedTime(lambda: now[0])
    now[0] = 5.0  # nobody is at work
    with shared.row() as first:
        now[0] = 6.0
        with shared.row() as second:
            now[0] = 8.0
        now[0] = 9.0
    assert (first.seconds, second.seconds) == (3.0, 1.0)
