"""The real 135M model.

It downloads, loads, answers, and learns the corpus' facts from their gold question-answer pairs.
"""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from seal.datasets import load_contexts
from seal.domains import get_domain
from seal.engine import Engine, EvaluationRequest, GenerationRequest, TrainingRequest
from seal.errors import Transient
from seal.models import resolve_model
from seal.settings import (
    ALL_PROJECTIONS,
    EngineSettings,
    ExampleSettings,
    LoraSettings,
    OptimizerSettings,
)

pytestmark = pytest.mark.model
MODEL = "smollm2-135m"
KNOWLEDGE = get_domain("knowledge")
EXAMPLES = ExampleSettings(question_answer="prompted")


@pytest.fixture(scope="module")
def engine() -> Iterator[Engine]:
    try:
        resolved = resolve_model(MODEL)
    except Transient as error:
        pytest.skip(f"the embedded model cannot be downloaded: {error}")
    engine = Engine.load(resolved.path, name=MODEL, settings=EngineSettings(slots=2))
    yield engine
    engine.close()


def evaluation(context, adapter=None) -> EvaluationRequest:
    prompts = [KNOWLEDGE.question_prompt(query, "few-shot") for query in context.queries]
    return EvaluationRequest(
        run="test",
        policy=None,
        adapter=adapter,
        prompts=tuple(prompt.text for prompt in prompts),
        golds=tuple(
            KNOWLEDGE.answer_completion(query.answers[0], "few-shot") for query in context.queries
        ),
        max_tokens=16,
        stop=prompts[0].stop,
    )


def accuracy(context, answers) -> float:
    grades = [
        KNOWLEDGE.grade("contains", answer, query.answers, None)
        for answer, query in zip(answers, context.queries, strict=True)
    ]
    return sum(grade or 0.0 for grade in grades) / len(grades)


def test_it_answers_in_the_form_of_the_shots(engine):
    prompt = KNOWLEDGE.question_prompt(
        load_contexts("corpus://train", limit=1)[0].queries[0], "few-shot"
    )
    request = GenerationRequest(
        run="test",
        policy=None,
        prompts=(prompt.text,),
        seeds=((1,),),
        temperature=0.0,
        top_p=1.0,
        max_tokens=24,
        stop=prompt.stop,
    )
    ((sample,),) = engine.generate(request).future.result(120).samples
    assert sample.text.strip()
    assert not sample.truncated


def test_it_does_not_know_a_fictional_passage_and_learns_it_from_gold_pairs_two_at_once(engine):
    contexts = load_contexts("corpus://train", limit=2)
    before = [engine.evaluate(evaluation(context)).future.result(300) for context in contexts]
    trainings = [
        engine.train(
            TrainingRequest(
                run="test",
                policy=None,
                examples=tuple(
                    (e.prompt, e.completion)
                    for e in KNOWLEDGE.gold_examples(context, EXAMPLES, "few-shot")
                ),
                lora=LoraSettings(rank=4, alpha=8, target_modules=ALL_PROJECTIONS),
                optimizer=OptimizerSettings(learning_rate=8e-3, epochs=8, batch_size=3),
                init_seed=1,
                order_seed=1,
            )
        )
        for context in contexts
    ]
    adapters = [training.future.result(300).adapter for training in trainings]
    after = [
        engine.evaluate(evaluation(context, adapter)).future.result(300)
        for context, adapter in zip(contexts, adapters, strict=True)
    ]
    for context, untaught, taught in zip(contexts, before, after, strict=True):
        assert accuracy(context, untaught.answers) <= 0.5
        assert accuracy(context, taught.answers) >= 0.8
        assert taught.max_logit_difference > 0.1
        assert sum(taught.logprobs) > sum(untaught.logprobs)
