"""The fakes of `fake_services` without a wire, and a store, whose every side effect is numbered.

What lives on when a controller or a worker dies is the `Bureau` (the services) and the store. A
side effect has three moments: before it, when it is done but its caller has not heard of it
("during"), and after.
"""

from __future__ import annotations

import asyncio
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from types import TracebackType
from typing import Self

import fake_services
from resume_harness import Effects, When

from seal.artifacts import ArtifactStore, Model
from seal.outcomes import Outcome
from seal.records import AdapterReference, EvaluationRecord, ModelDescription, TrainingRecord
from seal.rpc.convert import OUTCOME_TO_WIRE, evaluation_record, training_record
from seal.settings import LoraSettings
from seal.v1 import common_pb2, evaluator_pb2, generator_pb2, trainer_pb2

MOMENTS: tuple[When, When, When] = ("before", "during", "after")


@dataclass
class Bureau:
    """The services' memory."""

    trained: Counter[str] = field(default_factory=Counter)
    """How often each training was executed."""
    results: dict[str, trainer_pb2.TrainingResult] = field(default_factory=dict)
    store: ArtifactStore | None = None
    """Where adapters are published."""

    def train(self, request: trainer_pb2.TrainAdapterRequest) -> trainer_pb2.TrainingResult:
        """As the trainer: the same request again finds its result."""
        if request.request_id not in self.results:
            self.trained[request.request_id] += 1
            steps = request.optimizer.epochs * len(request.examples)
            result = fake_services._training(request, steps)
            if self.store is not None:
                fake_services._publish(self.store, request, result)
            self.results[request.request_id] = result
        return self.results[request.request_id]


class DirectClients:
    """Interface of `ServiceClients`, and of each client in it."""

    max_request_bytes = 4 * 1024 * 1024
    writer_trainer = None
    has_endpoint = False

    def __init__(self, bureau: Bureau, effects: Effects) -> None:
        self._bureau, self._effects = bureau, effects
        self.generator = self.trainer = self.evaluator = self.policy_trainer = self

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        return None

    async def describe(
        self, policy: common_pb2.PolicyRef, loras: Sequence[LoraSettings] = ()
    ) -> ModelDescription:
        """The fakes' model."""
        return fake_services.MODEL.model_copy(update={"base_model": policy.base_model})

    async def max_rank(self, policy: common_pb2.PolicyRef) -> int:
        """Any."""
        return 0

    async def count_tokens(self, examples: Sequence[trainer_pb2.TrainingExample]) -> list[int]:
        """A token is a word."""
        return [len(f"{row.prompt} {row.completion}".split()) + 1 for row in examples]

    async def generate(
        self,
        request: generator_pb2.GenerateEditsRequest,
        on_progress: Callable[[int, int], None],
        *,
        by_endpoint: bool = False,
    ) -> tuple[generator_pb2.ContextEdits, ...]:
        """Edits by hash."""
        self._effects.at("generate", request.request_id, "before")
        await asyncio.sleep(0)
        written = tuple(fake_services.context_edits(request, item) for item in request.contexts)
        self._effects.at("generate", request.request_id, "during")
        self._effects.at("generate", request.request_id, "after")
        return written

    async def train(
        self,
        request: trainer_pb2.TrainAdapterRequest,
        on_progress: Callable[[int, int], None],
        on_resumed: Callable[[int], None] | None = None,
    ) -> TrainingRecord:
        """A training by hash."""
        self._effects.at("train", request.request_id, "before")
        await asyncio.sleep(0)
        result = self._bureau.train(request)
        self._effects.at("train", request.request_id, "during")
        self._effects.at("train", request.request_id, "after")
        return training_record(result)

    async def evaluate(
        self, request: evaluator_pb2.EvaluateRequest, on_progress: Callable[[int], None]
    ) -> EvaluationRecord:
        """Grades by hash."""
        self._effects.at("evaluate", request.request_id, "before")
        await asyncio.sleep(0)
        answers = [fake_services._answer(request, query) for query in request.queries]
        scores = [answer.score for answer in answers if answer.outcome == common_pb2.OUTCOME_OK]
        result = evaluator_pb2.EvaluationResult(
            outcome=OUTCOME_TO_WIRE[Outcome.OK if scores else Outcome.UNGRADED],
            reward=sum(scores) / len(scores) if scores else 0.0,
            answers=answers,
            ungraded=len(answers) - len(scores),
            max_logit_difference=1.0,
            tokens=4 * len(answers),
            engine_seconds=0.02,
        )
        self._effects.at("evaluate", request.request_id, "during")
        self._effects.at("evaluate", request.request_id, "after")
        return evaluation_record(request, result)


class NumberedStore(ArtifactStore):
    """A store whose writes and deletions are side effects."""

    effects: Effects

    @classmethod
    def at(cls, root: str, effects: Effects) -> NumberedStore:
        """The store at a root."""
        store = cls(root)
        store.effects = effects
        return store

    def write_bytes(self, path: str, content: bytes) -> None:
        self.effects.at("write", path, "before")
        super().write_bytes(path, content)
        self.effects.at("write", path, "after")

    def create_bytes(self, path: str, content: bytes) -> bytes:
        self.effects.at("create", path, "before")
        counts = super().create_bytes(path, content)
        self.effects.at("create", path, "after")
        return counts

    def create_json(self, path: str, model: Model) -> Model:
        self.effects.at("create", path, "before")
        counts = super().create_json(path, model)
        self.effects.at("create", path, "after")
        return counts

    def remove(self, path: str) -> None:
        self.effects.at("remove", path, "before")
        super().remove(path)
        self.effects.at("remove", path, "after")

    def remove_directory(self, reference: AdapterReference) -> None:
        self.effects.at("remove", reference.path, "before")
        super().remove_directory(reference)
        self.effects.at("remove", reference.path, "after")
