"""One task on fake services: what it asks, what it commits, and what it does not do twice."""

from __future__ import annotations

import asyncio
import json
from pathlib import Path

import grpc
import pytest
from controller_harness import IMPATIENT, POLICY, RUN, small_spec, workplace
from fake_services import Fakes

from controller_svc.worker.calls import Calls
from controller_svc.worker.progress import TaskProgress
from seal.artifacts import ArtifactStore
from seal.errors import (
    Internal,
    InvalidInput,
    NotFound,
    PreconditionFailed,
    SealError,
    Transient,
    principal_error,
)
from seal.outcomes import Outcome
from seal.records import Stage, edit_text
from seal.settings import EditSettings, InnerLoopSettings, RunSpec, ValidationSettings
from seal.v1 import evaluator_pb2, generator_pb2, trainer_pb2

QUESTION = [{"question": "What is the tome about?", "answer": "the past"}]


def add_passage(spec: RunSpec, title: str, text: str) -> None:
    """One more training passage."""
    row = {"title": title, "context": text, "questions": QUESTION}
    with Path(spec.data.train).open("a") as data:
        data.write(json.dumps(row) + "\n")


def failing(kind: str, part: str, code: grpc.StatusCode, *, calls: int = 10**9) -> Fakes:
    """Fakes whose first `calls` calls of that kind and id fail."""
    return Fakes(
        fail=lambda what, name, call: (
            code if what == kind and part in name and call < calls else None
        )
    )


async def test_a_permanent_error_is_passed_up_at_once_and_what_is_committed_stays(
    tmp_path: Path,
) -> None:
    fakes = failing("evaluate", "/edit/tower-1", grpc.StatusCode.FAILED_PRECONDITION)
    async with workplace(tmp_path, fakes=fakes) as place:
        with pytest.raises(PreconditionFailed, match="as the test wants it"):
            await place.run(Stage.ROLLOUT, round=1)
        refused = [
            name for kind, name in fakes.calls if kind == "evaluate" and "/edit/tower-1" in name
        ]
        assert {fakes.calls[("evaluate", name)] for name in refused} == {1}
        committed = await place.files(Stage.ROLLOUT, round=1).inner_loops()
        fakes.fail = lambda kind, name, call: None
        summary = await place.run(Stage.ROLLOUT, round=1)
        assert [place.fakes.calls[("generate", name)] for name in place.asked("generate")] == [1], (
            "written edits are not written again"
        )
    assert summary.inner_loops_resumed == len(committed)
    assert summary.inner_loops_run + summary.inner_loops_resumed == 3 * 3 * 2


@pytest.mark.parametrize("kind", ["generate", "train", "evaluate"])
async def test_a_transient_error_is_tried_again_with_the_same_request(
    tmp_path: Path, kind: str
) -> None:
    async with workplace(
        tmp_path, fakes=failing(kind, "", grpc.StatusCode.UNAVAILABLE, calls=2)
    ) as place:
        summary = await place.run(Stage.ROLLOUT, round=1)
        assert {place.fakes.calls[(kind, name)] for name in place.asked(kind)} == {3}
        assert sum(summary.outcomes.values()) == 18


async def test_a_service_that_stays_away_longer_than_patience_is_a_transient_error_of_the_task(
    tmp_path: Path,
) -> None:
    most = 0
    for patience_seconds in (0.05, 1.0, 20.0):  # a loaded machine calls less often in the same time
        settings = IMPATIENT.model_copy(update={"patience_seconds": patience_seconds})
        fakes = failing("generate", "", grpc.StatusCode.UNAVAILABLE)
        directory = tmp_path / str(patience_seconds)
        directory.mkdir()
        async with workplace(directory, fakes=fakes, settings=settings) as place:
            with pytest.raises(Transient):
                await place.run(Stage.ROLLOUT, round=1)
        most = max(calls for (kind, _), calls in fakes.calls.items() if kind == "generate")
        if most > 3:
            break
    assert most > 3


class Tries:
    """A call whose tries take so many seconds and fail, before one is answered."""

    def __init__(self, *seconds: float) -> None:
        self.seconds, self.now, self.number = seconds, 1000.0, 0

    async def __call__(self) -> str:
        if self.number == len(self.seconds):
            return "answered"
        self.now += self.seconds[self.number]
        self.number += 1
        raise Transient("cut")


@pytest.mark.parametrize(
    ("seconds", "answered", "tries"),
    [
        # Of 300 s may say nothing who has said something, and a deadline is 4000 s
        pytest.param([3000, 3000, 3000], True, 3, id="streams that went well and were cut"),
        pytest.param([3000, 0, 700, 0, 3000], True, 5, id="a new outage after each"),
        pytest.param([3000, *[500] * 10], False, 5, id="silent from then on"),
        pytest.param([500] * 10, False, 5, id="silent from the beginning"),
        pytest.param([4000, 0], False, 1, id="nothing has worked until the deadline"),
        pytest.param([0, 4000, 0], False, 2, id="nor at the second try"),
    ],
)
async def test_patience_counts_from_the_first_failure_after_which_nothing_worked(
    monkeypatch: pytest.MonkeyPatch, seconds: list[float], answered: bool, tries: int
) -> None:
    call = Tries(*seconds)
    monkeypatch.setattr("controller_svc.worker.calls.monotonic", lambda: call.now)
    calls = Calls(
        IMPATIENT.model_copy(
            update={
                "patience_seconds": 2000.0,
                "silence_timeout_seconds": 300.0,
                "call_timeout_seconds": 4000.0,
            }
        )
    )
    if answered:
        assert await calls.retried(call) == "answered"
    else:
        with pytest.raises(Transient, match="cut"):
            await calls.retried(call)
    assert call.number == tries


@pytest.mark.parametrize("code", [grpc.StatusCode.RESOURCE_EXHAUSTED, grpc.StatusCode.UNAVAILABLE])
async def test_a_full_queue_or_an_absent_service_is_waited_for_and_costs_no_attempt(
    tmp_path: Path, code: grpc.StatusCode
) -> None:
    async with workplace(tmp_path, fakes=failing("train", "", code, calls=12)) as place:
        summary = await place.run(Stage.ROLLOUT, round=1)
        assert {place.fakes.calls[("train", name)] for name in place.asked("train")} == {13}
    assert sum(summary.outcomes.values()) == 18


@pytest.mark.parametrize(("stored", "expected"), [(False, Transient), (True, NotFound)])
async def test_an_adapter_that_goes_before_it_is_evaluated_costs_an_attempt_and_not_the_run(
    tmp_path: Path, stored: bool, expected: type[SealError]
) -> None:
    fakes = failing("evaluate", "/edit/", grpc.StatusCode.NOT_FOUND)
    if stored:
        fakes.store = ArtifactStore(str(tmp_path / "artifacts"))
    async with workplace(tmp_path, fakes=fakes) as place:
        with pytest.raises(expected, match="as the test wants it"):
            await place.run(Stage.ROLLOUT, round=1)


async def test_of_several_errors_the_permanent_one_decides() -> None:
    inner: ExceptionGroup[Exception] = ExceptionGroup(
        "", [Transient("later"), InvalidInput("never")]
    )
    assert str(principal_error(ExceptionGroup("", [Transient("later"), inner]))) == "never"


async def test_a_silent_stream_is_given_up_as_transient(tmp_path: Path) -> None:
    settings = IMPATIENT.model_copy(
        update={"silence_timeout_seconds": 0.05, "patience_seconds": 0.01}
    )
    async with workplace(tmp_path, fakes=Fakes(delay_seconds=5), settings=settings) as place:
        with pytest.raises(Transient, match=r"said nothing for 0\.05 s"):
            await place.run(Stage.ROLLOUT, round=1)


@pytest.mark.parametrize("whose", ["the worker's limit", "the service's limit"])
async def test_a_passage_too_large_for_a_request_is_too_long_and_the_others_go_on(
    tmp_path: Path, whose: str
) -> None:
    spec = small_spec(tmp_path)
    add_passage(spec, "Tome", "Long ago. " * 400)
    settings, fakes = IMPATIENT, Fakes()
    if whose == "the worker's limit":
        settings = IMPATIENT.model_copy(update={"max_request_bytes": 3000})
    else:
        fakes.max_request_bytes = 3000
    async with workplace(tmp_path, fakes=fakes, settings=settings, spec=spec) as place:
        summary = await place.run(Stage.ROLLOUT, round=1)
        records = {record.title: record for record in await place.records(Stage.ROLLOUT, round=1)}
    tome = records.pop("Tome")
    assert {loop.outcome for loop in tome.inner_loops} == {Outcome.TOO_LONG}
    assert len(tome.edits) == 3 and tome.baseline.reward is not None
    assert summary.outcomes["too_long"] == 6
    others = {loop.outcome for record in records.values() for loop in record.inner_loops}
    assert Outcome.OK in others and Outcome.TOO_LONG not in others


async def test_so_many_edits_are_asked_for_at_once_as_a_request_may_ask_for(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("controller_svc.worker.edits.MAX_EDITS", 7)
    settings = IMPATIENT.model_copy(update={"contexts_per_request": 16})
    async with workplace(tmp_path, settings=settings) as place:
        summary = await place.run(Stage.ROLLOUT, round=1)
        asked = [
            sum(len(context.seeds) for context in place.fakes.requests[f"generate {name}"].contexts)
            for name in place.asked("generate")
        ]
    assert sorted(asked) == [3, 6]
    assert sum(summary.outcomes.values()) == 18


async def test_a_passage_that_the_generator_finds_at_fault_has_its_outcome_and_its_edits_have_not(
    tmp_path: Path,
) -> None:
    fakes = Fakes(
        outcome=lambda kind, name: (
            Outcome.TOO_LONG if kind == "generate" and name == "Tower 1" else None
        )
    )
    async with workplace(tmp_path, fakes=fakes) as place:
        summary = await place.run(Stage.ROLLOUT, round=1)
        records = {record.title: record for record in await place.records(Stage.ROLLOUT, round=1)}
        trained = {name.split("/")[4].rsplit("-", 1)[0] for name in place.asked("train")}
    (candidates,) = {len(record.edits) for record in records.values()}
    assert candidates == 3
    assert [loop.outcome for loop in records["Tower 1"].inner_loops] == [Outcome.TOO_LONG] * 6
    assert summary.outcomes["too_long"] == 6
    assert trained == {"tower-0", "tower-2"}


@pytest.mark.parametrize("outcome", [Outcome.TOO_LONG, Outcome.REFUSED, Outcome.INERT])
async def test_a_training_at_fault_is_that_inner_loops_outcome_and_is_not_evaluated(
    tmp_path: Path, outcome: Outcome
) -> None:
    fakes = Fakes(outcome=lambda kind, name: outcome if kind == "train" else None)
    async with workplace(tmp_path, fakes=fakes) as place:
        summary = await place.run(Stage.VALIDATE, round=0)
        assert not [name for name in place.asked("evaluate") if "/passage/" in name]
    assert summary.outcomes[outcome] >= 4
    assert set(summary.outcomes) <= {outcome, "invalid"}
    assert "passage" not in summary.scores


@pytest.mark.parametrize("outcome", [Outcome.INERT, Outcome.DIVERGED, Outcome.TOO_LONG])
async def test_an_evaluation_at_fault_is_that_inner_loops_outcome_and_in_no_mean(
    tmp_path: Path, outcome: Outcome
) -> None:
    fakes = Fakes(
        outcome=lambda kind, name: outcome if kind == "evaluate" and "/edit/" in name else None
    )
    async with workplace(tmp_path, fakes=fakes) as place:
        summary = await place.run(Stage.VALIDATE, round=0)
    assert summary.outcomes[outcome] > 0
    assert "edit" not in summary.scores and "passage" in summary.scores


async def test_a_generator_that_mixes_up_seeds_is_a_defect_and_nothing_is_trained(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    import fake_services

    honest = fake_services._edit
    monkeypatch.setattr(
        fake_services, "_edit", lambda request, item, seed: honest(request, item, seed + 1)
    )
    async with workplace(tmp_path) as place:
        with pytest.raises(Internal, match="other contexts or seeds"):
            await place.run(Stage.ROLLOUT, round=1)
        assert place.asked("train") == []


async def test_an_edit_that_parses_to_nothing_is_invalid_and_neither_trained_nor_averaged(
    tmp_path: Path,
) -> None:
    async with workplace(tmp_path, spec=small_spec(tmp_path, passages=(8, 2, 2))) as place:
        summary = await place.run(Stage.ROLLOUT, round=1)
        records = await place.records(Stage.ROLLOUT, round=1)
    empty = [
        (record, edit.candidate) for record in records for edit in record.edits if not edit.examples
    ]
    assert empty and summary.outcomes["invalid"] == 2 * len(empty)
    for record, candidate in empty:
        loops = [loop for loop in record.inner_loops if loop.candidate == candidate]
        assert [(loop.outcome, loop.training, loop.evaluation) for loop in loops] == [
            (Outcome.INVALID, None, None)
        ] * 2
    assert len(place.asked("train")) == 18 / 3 * 8 - summary.outcomes["invalid"]


async def test_a_diverged_training_is_recorded_and_not_evaluated(tmp_path: Path) -> None:
    async with workplace(tmp_path, spec=small_spec(tmp_path, passages=(8, 2, 2))) as place:
        summary = await place.run(Stage.ROLLOUT, round=1)
        records = await place.records(Stage.ROLLOUT, round=1)
        diverged = [
            loop
            for record in records
            for loop in record.inner_loops
            if loop.outcome is Outcome.DIVERGED
        ]
        assert len(diverged) == summary.outcomes["diverged"] > 0
        assert all(
            loop.evaluation is None and loop.training is not None and loop.training.adapter is None
            for loop in diverged
        )
        loops = [name for name in place.asked("evaluate") if "/edit/" in name]
        assert len(loops) == summary.outcomes["ok"] + summary.outcomes.get("ungraded", 0)


async def test_a_missing_score_is_missing_and_never_zero(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("fake_services.SHARE_UNGRADED", 1.0)
    async with workplace(tmp_path) as place:
        summary = await place.run(Stage.ROLLOUT, round=1)
        records = await place.records(Stage.ROLLOUT, round=1)
    assert summary.scores == {}
    assert records[0].baseline.outcome is Outcome.UNGRADED and records[0].baseline.reward is None
    assert records[0].baseline.answers[0].score is None
    assert summary.outcomes["ungraded"] > 0 and "ok" not in summary.outcomes


async def test_examples_that_no_trainer_takes_are_too_long_and_a_refused_setting_is_an_error(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(field: str) -> None:
        monkeypatch.setattr(
            "seal.rpc.client.from_rpc_error", lambda error: InvalidInput("too long", field=field)
        )

    async with workplace(
        tmp_path, fakes=failing("train", "", grpc.StatusCode.INVALID_ARGUMENT)
    ) as place:
        refuse("lora.rank")
        with pytest.raises(InvalidInput):
            await place.run(Stage.ROLLOUT, round=1)
        refuse("examples[3]")
        summary = await place.run(Stage.ROLLOUT, round=1)
        assert summary.outcomes == {"too_long": 18}
        bounds = await place.run(Stage.VALIDATE, round=0)
        assert bounds.outcomes["too_long"] >= 4


async def test_a_finished_shard_is_not_touched_again(tmp_path: Path) -> None:
    async with workplace(tmp_path) as place:
        first = await place.run(Stage.ROLLOUT, round=1)
        calls = place.fakes.calls.copy()
        assert await place.run(Stage.ROLLOUT, round=1) == first
        assert place.fakes.calls == calls


async def test_edits_are_asked_for_again_as_the_same_group_and_committed_ones_stay(
    tmp_path: Path,
) -> None:
    async with workplace(tmp_path) as place:
        await place.run(Stage.ROLLOUT, round=1)
        folder = (
            Path(place.store.root_uri.removeprefix("file://"))
            / place.files(Stage.ROLLOUT, round=1).path
        )
        (folder / "summary.json").unlink()
        first, *rest = sorted((folder / "edits").iterdir())
        kept = rest[0].read_bytes()
        first.unlink()
        summary = await place.run(Stage.ROLLOUT, round=1)
        (name,) = place.asked("generate")
        assert place.fakes.calls[("generate", name)] == 2
        assert rest[0].read_bytes() == kept and first.exists()
    assert (summary.inner_loops_run, summary.inner_loops_resumed) == (0, 18)


async def test_committed_edits_are_learnt_even_if_the_generator_would_now_write_others(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    import fake_services

    async with workplace(tmp_path, fakes=failing("train", "", grpc.StatusCode.INTERNAL)) as place:
        with pytest.raises(SealError):
            await place.run(Stage.ROLLOUT, round=1)
        written = await place.files(Stage.ROLLOUT, round=1).edits()
        lost = sorted(written)[0]
        folder = (
            Path(place.store.root_uri.removeprefix("file://"))
            / place.files(Stage.ROLLOUT, round=1).path
        )
        (folder / "edits" / f"{lost}.json").unlink()
        monkeypatch.setattr(
            fake_services,
            "_edit",
            lambda request, item, seed: generator_pb2.Edit(
                seed=seed, parts=[generator_pb2.EditPart(text="Others.", tokens=1)]
            ),
        )
        place.fakes.fail = lambda kind, name, call: None
        await place.run(Stage.ROLLOUT, round=1)
        records = await place.records(Stage.ROLLOUT, round=1)
    for record in records:
        texts = [edit_text(record.parts, edit) for edit in record.edits]
        assert texts == (
            ["Others."] * 3
            if record.context_id == lost
            else [edit_text(record.parts, edit) for edit in written[record.context_id].edits]
        )


async def test_a_cancelled_task_leaves_nothing_running_and_goes_on_later(tmp_path: Path) -> None:
    async with workplace(tmp_path, fakes=Fakes(delay_seconds=0.05)) as place:
        training = asyncio.Event()
        place.fakes.fail = lambda kind, name, call: training.set() if kind == "train" else None
        task = asyncio.create_task(place.run(Stage.ROLLOUT, round=1))
        await asyncio.wait_for(training.wait(), 20)
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task
        assert {
            other for other in asyncio.all_tasks() if "run_inner_loop" in str(other.get_coro())
        } == set()
        summary = await place.run(Stage.ROLLOUT, round=1)
    assert summary.inner_loops_run + summary.inner_loops_resumed == 18


async def test_no_more_inner_loops_are_outstanding_than_allowed(tmp_path: Path) -> None:
    settings = IMPATIENT.model_copy(update={"concurrency": 3})
    async with workplace(tmp_path, settings=settings, fakes=Fakes(delay_seconds=0.005)) as place:
        await place.run(Stage.ROLLOUT, round=1)
        assert place.fakes.most_running == 3


async def test_no_more_calls_for_edits_are_outstanding_than_allowed(tmp_path: Path) -> None:
    settings = IMPATIENT.model_copy(update={"generate_concurrency": 2, "contexts_per_request": 1})
    async with workplace(tmp_path, settings=settings, fakes=Fakes(delay_seconds=0.005)) as place:
        await place.run(Stage.ROLLOUT, round=1)
        assert place.fakes.most_writing == 2


async def test_candidates_rounds_and_bounds_of_a_context_share_their_init_and_order_seeds(
    tmp_path: Path,
) -> None:
    async with workplace(tmp_path) as place:
        for round in (0, 1):
            await place.run(Stage.VALIDATE, round=round)
        seeds: dict[tuple[str, str], set[tuple[int, int]]] = {}
        for name, request in place.fakes.requests.items():
            if isinstance(request, trainer_pb2.TrainAdapterRequest):
                *_, context_id, _, repeat = name.split("/")
                seeds.setdefault((context_id, repeat), set()).add(
                    (request.init_seed, request.order_seed)
                )
    assert len(seeds) == 2 * 2
    assert all(len(pairs) == 1 for pairs in seeds.values())
    assert len({pair for pairs in seeds.values() for pair in pairs}) == 4


async def test_every_edit_has_its_own_seed_and_the_same_one_in_every_process(
    tmp_path: Path,
) -> None:
    async with workplace(tmp_path) as place:
        await place.run(Stage.ROLLOUT, round=1)
        await place.run(Stage.ROLLOUT, round=2, policy=POLICY)
        await place.run(Stage.VALIDATE, round=1)
        records = [
            *await place.records(Stage.ROLLOUT, round=1),
            *await place.records(Stage.ROLLOUT, round=2),
            *await place.records(Stage.VALIDATE, round=1),
        ]
    seeds = [edit.seed for record in records for edit in record.edits]
    assert len(seeds) == len(set(seeds)) == 3 * 3 + 3 * 3 + 2 * 2


async def test_every_call_of_a_stage_runs_on_its_policy(tmp_path: Path) -> None:
    async with workplace(tmp_path) as place:
        await place.run(Stage.VALIDATE, round=1, policy=POLICY)
        policies = {request.policy.adapter.sha256 for request in place.fakes.requests.values()}  # type: ignore[attr-defined]
        bases = {request.policy.base_model for request in place.fakes.requests.values()}  # type: ignore[attr-defined]
    assert policies == {POLICY.sha256}
    assert bases == {place.spec.model}


async def test_bounds_are_trained_in_round_zero_only_and_gold_only_if_asked_for(
    tmp_path: Path,
) -> None:
    gold = small_spec(tmp_path).model_copy(
        update={"validation": ValidationSettings(gold_bound=True)}
    )
    async with workplace(tmp_path, spec=gold) as place:
        zero = await place.run(Stage.VALIDATE, round=0)
        one = await place.run(Stage.VALIDATE, round=1)
        kinds = {
            loop.kind
            for record in await place.records(Stage.VALIDATE, round=0)
            for loop in record.inner_loops
        }
        golden = place.fakes.requests[
            next(f"train {name}" for name in place.asked("train") if "/gold/" in name)
        ]
    assert kinds == {"edit", "passage", "gold"}
    assert zero.scores.keys() - one.scores.keys() == {"passage", "gold"}
    assert (
        isinstance(golden, trainer_pb2.TrainAdapterRequest)
        and "lamp 0" in golden.examples[0].completion
    )
    (tmp_path / "plain").mkdir()
    async with workplace(tmp_path / "plain") as place:
        plain = await place.run(Stage.VALIDATE, round=0)
    assert "gold" not in plain.scores and plain.scores["passage"].n == 2


async def test_a_family_without_edits_measures_the_passage_and_asks_for_no_edit(
    tmp_path: Path,
) -> None:
    async with workplace(
        tmp_path, spec=small_spec(tmp_path, edit=EditSettings(family="none"))
    ) as place:
        summary = await place.run(Stage.VALIDATE, round=0)
        assert place.asked("generate") == []
    assert summary.scores.keys() >= {"baseline", "passage"} and "edit" not in summary.scores


async def test_the_passage_bound_is_trained_even_where_edits_go_without_the_passage(
    tmp_path: Path,
) -> None:
    inner = InnerLoopSettings.model_validate({"examples": {"passage_repeats": 0}, "repeats": 1})
    async with workplace(tmp_path, spec=small_spec(tmp_path, inner=inner)) as place:
        summary = await place.run(Stage.VALIDATE, round=0)
    assert summary.scores["passage"].n == 2


def retained_questions(fakes: Fakes, round: int) -> dict[str, list[str]]:
    """Retained questions by adapted model (without run and round), of one round."""
    prefix = f"evaluate {RUN}/r{round}/validate/"
    return {
        name.removeprefix(prefix): [query.query_id for query in request.queries]
        for name, request in fakes.requests.items()
        if name.startswith(prefix)
        and name.endswith("/retained")
        and isinstance(request, evaluator_pb2.EvaluateRequest)
    }


async def test_retained_questions_rotate_over_the_adapted_models_and_are_the_same_in_every_round(
    tmp_path: Path,
) -> None:
    async with workplace(tmp_path) as place:
        for round in (0, 1):
            await place.run(Stage.VALIDATE, round=round)
        zero, one = (retained_questions(place.fakes, round) for round in (0, 1))
        shown = [
            request for name, request in place.fakes.requests.items() if name.endswith("/retained")
        ]
    both = zero.keys() & one.keys()
    assert len(both) >= 4 and {name: zero[name] for name in both} == {
        name: one[name] for name in both
    }
    assert all(len(asked) == 2 for asked in zero.values())
    assert len({query for asked in one.values() for query in asked}) == 6
    assert all(
        zero[name] == one[name.replace("passage/", "edit/")]
        for name in zero
        if name.replace("passage/", "edit/") in one
    )
    assert all(query.context for request in shown for query in request.queries)  # type: ignore[attr-defined]


async def test_the_policy_alone_is_asked_the_whole_retained_set_once_by_one_shard(
    tmp_path: Path,
) -> None:
    settings = IMPATIENT.model_copy(update={"queries_per_request": 4})
    async with workplace(tmp_path, spec=small_spec(tmp_path, shards=2), settings=settings) as place:
        summaries = [await place.run(Stage.VALIDATE, round=1, shard=shard) for shard in (0, 1)]
        asked = sorted(name for name in place.asked("evaluate") if "/retained/" in name)
        record = await place.files(Stage.VALIDATE, round=1).retained("policy")
    assert asked == ["demo/r1/validate/retained/0", "demo/r1/validate/retained/1"]
    assert record is not None and len(record.answers) == 6
    assert ["retained_policy" in summary.scores for summary in summaries] == [True, False]


async def test_a_rollout_asks_no_retained_questions_and_a_run_may_have_none(tmp_path: Path) -> None:
    async with workplace(tmp_path, spec=small_spec(tmp_path, passages=(3, 2, 0))) as place:
        await place.run(Stage.ROLLOUT, round=1)
        summary = await place.run(Stage.VALIDATE, round=1)
        assert [name for name in place.asked("evaluate") if "retained" in name] == []
    assert "retained" not in summary.scores


async def test_shards_share_out_the_contexts_and_one_may_be_empty(tmp_path: Path) -> None:
    async with workplace(
        tmp_path, spec=small_spec(tmp_path, passages=(3, 2, 2), shards=4)
    ) as place:
        for shard in range(4):
            await place.run(Stage.ROLLOUT, round=1, shard=shard)
        parts = [
            [
                record.context_id
                for record in await place.records(Stage.ROLLOUT, round=1, shard=shard)
            ]
            for shard in range(4)
        ]
    assert [len(part) for part in parts] == [1, 1, 1, 0]
    assert len({name for part in parts for name in part}) == 3


async def test_progress_counts_what_an_earlier_attempt_did_and_ends_complete(
    tmp_path: Path,
) -> None:
    told: list[TaskProgress] = []
    async with workplace(
        tmp_path, fakes=failing("train", "/edit/tower-1", grpc.StatusCode.INTERNAL)
    ) as place:
        with pytest.raises(SealError):
            await place.run(Stage.ROLLOUT, round=1)
        done = len(await place.files(Stage.ROLLOUT, round=1).inner_loops())
        place.fakes.fail = lambda kind, name, call: None
        await place.run(Stage.ROLLOUT, round=1, tell=told.append)
    first, last = told[0], told[-1]
    assert (first.inner_loops_done, first.inner_loops_resumed, first.inner_loops_total) == (
        done,
        done,
        18,
    )
    assert (
        last.inner_loops_done,
        last.edits_done,
        last.trainings_done,
        last.training_fraction,
    ) == (18, 9, 18, 1.0)
    assert last.evaluated_queries == last.queries_total == 3 * 3 + 18 * 3
    assert last.eta_seconds == pytest.approx(0.0)
