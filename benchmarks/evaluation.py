"""P6: evaluation of many adapters at once against one adapter after another.

The engine trains the adapters first, which is not counted. *engine*: one evaluation request per
adapter, all queued before the engine takes the first (as they pile up behind trainings): greedy
answers of at most `answer_tokens` tokens to the passage's questions, log p of every gold answer,
and one more pass per adapter without it, the proof that it was applied. *reference*: transformers
`generate` + PEFT, see `benchmarks.reference`; adapters are loaded beforehand and then take turns:
`set_adapter`, one batch of the adapter's questions with the same end token, stop strings and bound,
and one forward pass that scores the gold answers. The reference's time is a sum over adapters, so a
round takes only a few of them, the same in every round, and seconds per adapter are compared.
"""

from __future__ import annotations

import time
from collections.abc import Collection, Sequence
from dataclasses import dataclass, field
from statistics import median

from benchmarks.common import (
    Setting,
    Timing,
    engine_on,
    held,
    interleave,
    load_model,
    make_figure,
    ratios,
    train_all,
    training_request,
)
from benchmarks.data import EditCase
from benchmarks.figures import Figures, Side
from benchmarks.reference import ReferenceAnswers, ReferenceEvaluator
from seal.domains import get_domain
from seal.engine import Adapter, Engine, EvaluationRequest, EvaluationResult, TrainingRequest
from seal.engine.model import FrozenModel
from seal.engine.threads import in_parallel
from seal.errors import Internal
from seal.settings import QuestionFormat

KEYS = ("P6",)
QUESTION_FORMAT: QuestionFormat = "plain"
"""As published: the bare question, without its passage and without worked examples."""


def evaluation_request(
    engine: Engine, case: EditCase, adapter: Adapter | None, *, queries: int, max_tokens: int
) -> EvaluationRequest:
    """An adapter asked its context's first questions."""
    domain = get_domain("knowledge")
    asked = case.context.queries[:queries]
    prompts = [domain.question_prompt(query, QUESTION_FORMAT) for query in asked]
    return EvaluationRequest(
        run="benchmark",
        policy=None,
        adapter=adapter,
        prompts=tuple(prompts),
        golds=tuple(domain.answer_completion(query.answers[0], QUESTION_FORMAT) for query in asked),
        max_tokens=max_tokens,
        stop=tuple(dict.fromkeys(stop for prompt in prompts for stop in prompt.stop)),
    )


def evaluate_all(
    engine: Engine, requests: Sequence[EvaluationRequest], *, hold: TrainingRequest
) -> tuple[list[EvaluationResult], float]:
    """Evaluate requests that wait together.

    Gives the results in order, and the seconds from the moment the engine may begin.
    """
    with held(engine, hold):
        tasks = [engine.evaluate(request) for request in requests]
        started = time.perf_counter()
    results = [task.future.result() for task in tasks]
    return results, time.perf_counter() - started


@dataclass
class _Sides:
    """Both sides, and what they answered last."""

    model: FrozenModel
    rows: int
    """Largest batch of the engine."""
    reference: ReferenceEvaluator
    requests: Sequence[EvaluationRequest]
    hold: TrainingRequest
    turn: int
    """Adapters of one round of the reference."""
    answers: list[EvaluationResult] = field(default_factory=list)
    reference_answers: dict[int, ReferenceAnswers] = field(default_factory=dict)

    def run_engine(self, number: int) -> Timing:
        """All adapters."""
        with engine_on(self.model, slots=1, evaluation_rows=self.rows) as engine:
            self.answers, seconds = evaluate_all(engine, self.requests, hold=self.hold)
        return Timing(seconds, len(self.requests), sum(result.tokens for result in self.answers))

    def run_reference(self, number: int) -> Timing:
        """The same few adapters in every round, spread over all."""
        turn = [place * len(self.requests) // self.turn for place in range(self.turn)]
        answers = {index: self.reference.evaluate(index, self.requests[index]) for index in turn}
        self.reference_answers |= answers
        return Timing(
            sum(one.seconds for one in answers.values()),
            len(turn),
            sum(one.tokens for one in answers.values()),
        )


def measure(setting: Setting, wanted: Collection[str]) -> Figures:
    """Train the adapters, then let both sides evaluate them in turn."""
    sizes = setting.sizes
    cases = setting.cases.take(sizes.evaluation_adapters, queries=sizes.evaluation_queries)
    rows = sizes.evaluation_adapters * sizes.evaluation_queries
    model = load_model(setting)
    setting.report("P6 evaluation: training the adapters", 0, 1)
    trainings = [
        training_request(case, epochs=sizes.evaluation_epochs, seed=index)
        for index, case in enumerate(cases)
    ]
    with engine_on(model, slots=sizes.slots) as engine:
        adapters = [_adapter(result.adapter) for result in train_all(engine, trainings)]
        requests = [
            evaluation_request(
                engine,
                case,
                adapter,
                queries=sizes.evaluation_queries,
                max_tokens=sizes.answer_tokens,
            )
            for case, adapter in zip(cases, adapters, strict=True)
        ]
    turn = min(sizes.evaluation_reference_adapters, len(requests))
    sides = _Sides(
        model,
        max(rows, 192),
        ReferenceEvaluator(setting.directory, adapters, dtype=setting.dtype),
        requests,
        trainings[0],
        turn,
    )
    sides.run_engine(0)
    in_parallel(lambda: sides.reference.evaluate(0, requests[0]))
    timings = interleave(
        {"reference": sides.run_reference, "engine": sides.run_engine},
        rounds=sizes.samples,
        report=lambda done, total: setting.report("P6 evaluation", done, total),
    )
    return {
        "P6": make_figure(
            setting,
            "P6",
            ratios(timings["reference"], timings["engine"]),
            sides=(
                Side(
                    name="transformers generate + PEFT",
                    unit="s per adapter",
                    samples=tuple(t.each for t in timings["reference"]),
                ),
                Side(
                    name="engine, one batch",
                    unit="s per adapter",
                    samples=tuple(t.each for t in timings["engine"]),
                ),
            ),
            details=_details(sides, timings),
            sizes=(
                "samples",
                "slots",
                "evaluation_adapters",
                "evaluation_reference_adapters",
                "evaluation_queries",
                "answer_tokens",
                "evaluation_epochs",
            ),
        )
    }


def _details(sides: _Sides, timings: dict[str, tuple[Timing, ...]]) -> dict[str, str]:
    """Beside the ratio: how much of it is answers, and whether both sides answer alike."""
    theirs = sides.reference_answers
    generate = sum(one.generate_seconds for one in theirs.values()) / sum(
        one.seconds for one in theirs.values()
    )
    logprob = max(
        abs(ours - other)
        for index, one in theirs.items()
        for ours, other in zip(sides.answers[index].logprobs, one.logprobs, strict=True)
    )
    scored = sum(len(one.logprobs) for one in theirs.values())
    unscored = generate * median(ratios(timings["reference"], timings["engine"]))
    return {
        "ratio with the reference's scoring left out": f"{unscored:.1f}x",
        "tokens generated per adapter": ", ".join(
            f"{median(t.tokens / t.count for t in timings[name]):.0f} ({name})" for name in timings
        ),
        "largest difference of a mean log p between the sides": f"{logprob:.3f} of {scored} gold "
        "answers",
    }


def _adapter(adapter: Adapter | None) -> Adapter:
    if adapter is None:
        raise Internal("a training that ended well left no adapter")
    return adapter
