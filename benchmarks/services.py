"""P8: what gRPC and the artifact store add to an inner loop.

Both sides train one adapter per edit and evaluate it as soon as it is there, on the same engine
with the same examples, seeds, questions and bounds; only seeds differ from round to round, so that
no adapter is in the store already. *services*: the worker's own client, the three services on a
Unix socket, adapters written to and read back from an artifact store on disk, answers graded.
*direct*: `Engine.train` and `Engine.evaluate`, adapters handed over in memory, answers not graded.
"""

from __future__ import annotations

import asyncio
import tempfile
import time
from collections.abc import Awaitable, Callable, Collection, Sequence
from dataclasses import dataclass
from statistics import mean

from benchmarks.common import (
    Setting,
    Timing,
    engine_on,
    load_model,
    make_figure,
    ratios,
    train_all,
    training_request,
)
from benchmarks.data import EditCase
from benchmarks.evaluation import QUESTION_FORMAT, evaluation_request
from benchmarks.figures import Figures, Side
from controller_svc.local.services import serve_engine
from controller_svc.worker.clients import ServiceClients
from controller_svc.worker.requests import LoopKey, Requests
from controller_svc.worker.settings import WorkerSettings
from seal.config import load_run
from seal.domains.base import Example
from seal.engine import Engine, TrainingRequest
from seal.errors import Internal
from seal.outcomes import Outcome
from seal.records import Stage
from seal.resources import RestEMRun

KEYS = ("P8",)


def measure(setting: Setting, wanted: Collection[str]) -> Figures:
    """Run both sides in turn on one engine."""
    sizes = setting.sizes
    cases = setting.cases.take(sizes.service_adapters, queries=sizes.evaluation_queries)
    with (
        engine_on(load_model(setting), slots=sizes.slots) as engine,
        tempfile.TemporaryDirectory(prefix="seal-") as root,
    ):
        train_all(engine, [training_request(cases[0], epochs=1, seed=0)])
        timings = asyncio.run(_measure(setting, engine, cases, root))
    services, direct = timings["services"], timings["direct"]
    added = mean(1e3 * (one.each - other.each) for one, other in zip(services, direct, strict=True))
    figure = make_figure(
        setting,
        "P8",
        ratios(services, direct),
        sides=tuple(
            Side(name=name, unit="s per inner loop", samples=tuple(t.each for t in timings[name]))
            for name in timings
        ),
        details={"added to an inner loop": f"{added:.0f} ms on average"},
        sizes=(
            "samples",
            "slots",
            "service_adapters",
            "service_epochs",
            "evaluation_queries",
            "answer_tokens",
        ),
    )
    return {"P8": figure}


async def _measure(
    setting: Setting, engine: Engine, cases: Sequence[EditCase], root: str
) -> dict[str, tuple[Timing, ...]]:
    """Rounds in turn forwards and backwards.

    As `benchmarks.common.interleave` does for sides that are no coroutines.
    """
    timings: dict[str, list[Timing]] = {"services": [], "direct": []}
    async with (
        serve_engine(engine, root=root) as addresses,
        ServiceClients(addresses, WorkerSettings()) as clients,
    ):
        await _Round(setting, engine, clients, cases[:1], number=-1).run("services")
        for number in range(setting.sizes.samples):
            one = _Round(setting, engine, clients, cases, number=number)
            for name in list(timings) if number % 2 == 0 else list(timings)[::-1]:
                setting.report(
                    "P8 services", sum(map(len, timings.values())), 2 * setting.sizes.samples
                )
                timings[name].append(await one.run(name))
    setting.report("P8 services", 2 * setting.sizes.samples, 2 * setting.sizes.samples)
    return {name: tuple(each) for name, each in timings.items()}


@dataclass(frozen=True)
class _Round:
    """The inner loops of one round; both sides make their requests from the same messages."""

    setting: Setting
    engine: Engine
    clients: ServiceClients
    cases: Sequence[EditCase]
    number: int

    async def run(self, name: str) -> Timing:
        """All inner loops of one side at once."""
        loops: dict[str, Callable[[Requests, int, EditCase], Awaitable[None]]] = {
            "services": self._through_services,
            "direct": self._direct,
        }
        manifest = self._manifest()
        requests = Requests(
            run=manifest.name, spec=manifest.spec, stage=Stage.ROLLOUT, round=1, policy=None
        )
        started = time.perf_counter()
        await asyncio.gather(
            *(loops[name](requests, index, case) for index, case in enumerate(self.cases))
        )
        return Timing(time.perf_counter() - started, len(self.cases))

    def _manifest(self) -> RestEMRun:
        """The published inner loop under a name of this round's own.

        So no request is answered from an earlier one.
        """
        sizes = self.setting.sizes
        return load_run(
            None,
            {
                "profile": "published",
                "metadata.name": f"round-{self.number + 1}",
                "seed": self.number + 1,
                "model": self.setting.model,
                "inner.optimizer.epochs": sizes.service_epochs,
                "evaluation.maxTokens": sizes.answer_tokens,
                "evaluation.questionFormat": QUESTION_FORMAT,
            },
        )

    async def _through_services(self, requests: Requests, index: int, case: EditCase) -> None:
        key = _key(index, case)
        trained = await self.clients.trainer.train(
            requests.train(key, _examples(case)), lambda step, total: None
        )
        if trained.adapter is None:
            raise Internal(
                f"the training of {case.case_id} ended as {trained.outcome}",
                remedy="use a lower learning rate",
            )
        queries = case.context.queries[: self.setting.sizes.evaluation_queries]
        await self.clients.evaluator.evaluate(
            requests.evaluate(key, trained.adapter, queries), lambda done: None
        )

    async def _direct(self, requests: Requests, index: int, case: EditCase) -> None:
        message = requests.train(_key(index, case), _examples(case))
        inner, sizes = requests.spec.inner, self.setting.sizes
        training = TrainingRequest(
            run=message.run,
            policy=None,
            examples=tuple((example.prompt, example.completion) for example in message.examples),
            lora=inner.lora,
            optimizer=inner.optimizer,
            init_seed=message.init_seed,
            order_seed=message.order_seed,
        )
        trained = await asyncio.wrap_future(self.engine.train(training).future)
        if trained.outcome is not Outcome.OK:
            raise Internal(
                f"the training of {case.case_id} ended as {trained.outcome}",
                remedy="use a lower learning rate",
            )
        asked = evaluation_request(
            self.engine,
            case,
            trained.adapter,
            queries=sizes.evaluation_queries,
            max_tokens=sizes.answer_tokens,
        )
        await asyncio.wrap_future(self.engine.evaluate(asked).future)


def _key(index: int, case: EditCase) -> LoopKey:
    return LoopKey(kind="edit", context_id=case.context.context_id, candidate=index, repeat=0)


def _examples(case: EditCase) -> list[Example]:
    return [Example(prompt, completion) for prompt, completion in case.examples]
