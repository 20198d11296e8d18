"""The first stage: what is refused before anything costly, what is pinned, and to what."""

from __future__ import annotations

import asyncio
import json
from pathlib import Path
from typing import Literal

import pytest
from controller_harness import IMPATIENT, RUN, small_spec, workplace
from fake_services import MODEL, Fakes, serve_fakes
from few_shot import few_shot_spec

from controller_svc.core import Phase, RunStatus
from controller_svc.local.world import run_local
from controller_svc.worker.clients import ServiceClients
from controller_svc.worker.prepare import load_data, prepare
from controller_svc.worker.ranks import policy_rank
from seal.artifacts import ArtifactStore
from seal.domains import get_domain
from seal.errors import Conflict, Internal, InvalidInput, NotFound, SealError
from seal.limits import MAX_ASKS
from seal.outcomes import Outcome
from seal.records import PreparedRecord, Stage
from seal.resources import RestEMRun
from seal.runs.store import contexts_path, pin, pinned, read_contexts
from seal.settings import (
    EditSettings,
    ExampleSettings,
    ImproveSettings,
    InnerLoopSettings,
    LoraSettings,
    OptimizerSettings,
    PromptFamily,
    RunSpec,
)


async def run(
    spec: RunSpec, directory: Path, fakes: Fakes | None = None, *, resume: bool = False
) -> RunStatus:
    async with serve_fakes(fakes or Fakes()) as addresses:
        return await run_local(
            RestEMRun.of(RUN, spec),
            root=directory / "artifacts",
            services=addresses,
            resume=resume,
            settings=IMPATIENT,
        )


def in_bucket(spec: RunSpec, root: str) -> RunSpec:
    """The same run with its data below a root of an object store."""
    store, data, uris = ArtifactStore(root), spec.data, {}
    for name in ("train", "validation", "retained"):
        source = Path(getattr(data, name))
        store.write_bytes(f"data/{source.name}", source.read_bytes())
        uris[name] = f"{root}/data/{source.name}"
    return spec.model_copy(update={"data": data.model_copy(update=uris)})


async def test_data_in_a_bucket_are_those_of_files_and_pinned_once(
    tmp_path: Path, s3_root: str
) -> None:
    spec = small_spec(tmp_path)
    there = in_bucket(spec, s3_root)
    assert load_data(there) == load_data(spec)
    async with workplace(tmp_path, spec=there) as place:
        record = await pinned(place.store, RUN)
        ArtifactStore(s3_root).remove("data/train.jsonl")
        again = await prepare(RUN, spec=there, store=place.store, clients=place.clients)
        assert again == record
        contexts = await read_contexts(place.store, RUN, "train")
    assert tuple(contexts) == load_data(spec)["train"]


async def test_an_object_that_is_not_there_is_named_before_the_first_costly_step(
    tmp_path: Path, s3_root: str
) -> None:
    spec, fakes = in_bucket(small_spec(tmp_path), s3_root), Fakes()
    ArtifactStore(s3_root).remove("data/validation.jsonl")
    store = ArtifactStore(str(tmp_path / "artifacts"))
    async with (
        serve_fakes(fakes) as addresses,
        ServiceClients(addresses, IMPATIENT) as clients,
    ):
        with pytest.raises(NotFound, match=rf"{s3_root}/data/validation\.jsonl does not exist"):
            await prepare(RUN, spec=spec, store=store, clients=clients)
    assert fakes.calls == {}
    assert store.list() == ()


def lengthen(data: str, text: str) -> None:
    """Much more of a passage."""
    path = Path(data)
    path.write_text(path.read_text().replace(text, "holds " + "more " * 90))


REFUSED = {
    "spec.inner.lora.rank": {"inner": InnerLoopSettings(lora=LoraSettings(rank=129))},
    "spec.improve.lora.rank": {"improve": ImproveSettings(lora=LoraSettings(rank=1024))},
    "spec.inner.lora.targetModules": {
        "inner": InnerLoopSettings(lora=LoraSettings(target_modules=("q_proi",)))
    },
    "spec.inner.optimizer.padToTokens": {
        "inner": InnerLoopSettings(optimizer=OptimizerSettings(pad_to_tokens=32_768))
    },
    "spec.edit.maxTokens": {"edit": EditSettings(k=3, max_tokens=2048)},
}


@pytest.mark.parametrize("field", REFUSED)
async def test_what_the_model_can_never_take_is_refused_before_the_first_costly_step_and_can_be_mended(  # noqa: E501
    tmp_path: Path, field: str
) -> None:
    spec, fakes = small_spec(tmp_path, rounds=1), Fakes()
    wrong = spec.model_copy(update=REFUSED[field])
    status = await run(wrong, tmp_path, fakes)
    condition = status.condition("Failed")
    assert status.phase is Phase.FAILED and status.stage is Stage.PREPARE
    assert condition is not None and condition.reason == "InvalidInput"
    assert fakes.calls == {}
    assert (await run(spec, tmp_path, resume=True)).phase is Phase.COMPLETE


@pytest.mark.parametrize(
    ("says", "message"),
    [
        ({"lora_refusals": ("no room", "")}, "spec.inner.lora: no room"),
        ({"lora_refusals": ("", "no room")}, "spec.improve.lora: no room"),
        ({"max_message_bytes": 1_000_000}, "the trainer takes requests of 1000000 bytes"),
    ],
)
async def test_what_the_trainer_has_no_room_for_is_refused_before_the_first_costly_step(
    tmp_path: Path, says: dict[str, object], message: str
) -> None:
    spec, fakes = small_spec(tmp_path, rounds=1), Fakes(model=MODEL.model_copy(update=says))
    status = await run(spec, tmp_path, fakes)
    condition = status.condition("Failed")
    assert status.stage is Stage.PREPARE
    assert condition is not None and condition.reason == "InvalidInput"
    assert message in condition.message
    assert fakes.calls == {}


GROWS = LoraSettings(rank=8)
OUTGROWN: dict[str, tuple[str, int, Literal["policy", "base"], str]] = {
    # 2 rounds x 8, and a warm start, are 24; an inner loop of 4 on the policy makes 28
    "the policy alone, at the generator": ("generator", 23, "policy", "spec.improve.lora.rank"),
    "an inner loop on it": ("evaluator", 27, "policy", "spec.improve.lora.rank"),
    "the policy alone, on retained questions": ("evaluator", 23, "base", "spec.improve.lora.rank"),
    "the inner loop alone": ("evaluator", 3, "policy", "spec.inner.lora.rank"),
}


def grows(directory: Path, student: Literal["policy", "base"], **improve: object) -> RunSpec:
    """A policy of rank 24 at its end, and inner loops of rank 4."""
    return small_spec(
        directory,
        rounds=2,
        edit=EditSettings(k=3, family="self-qa"),
        inner=InnerLoopSettings(student=student, lora=LoraSettings(rank=4)),
        improve=ImproveSettings.model_validate({"lora": GROWS, "warm_start": "gold"} | improve),
    )


@pytest.mark.parametrize("case", OUTGROWN)
async def test_a_policy_that_outgrows_a_service_is_refused_before_the_first_round(
    tmp_path: Path, case: str
) -> None:
    service, held, student, field = OUTGROWN[case]
    spec = grows(tmp_path, student)
    fakes = Fakes(max_lora_rank={service: held})
    async with (
        serve_fakes(fakes) as addresses,
        ServiceClients(addresses, IMPATIENT) as clients,
    ):
        store = ArtifactStore(str(tmp_path / "artifacts"))
        with pytest.raises(InvalidInput) as refused:
            await prepare(RUN, spec=spec, store=store, clients=clients)
        error = refused.value
        assert error.field == field and f"the {service} holds LoRAs of up to" in error.message
        assert f"rank {held}" in error.message and "--max-rank" in error.remedy
        assert ("spec.improve.start" in error.remedy) is (field == "spec.improve.lora.rank")
        fakes.max_lora_rank = {service: 28}
        assert await prepare(RUN, spec=spec, store=store, clients=clients)
    assert fakes.calls == {}


async def test_a_policy_that_begins_anew_each_round_does_not_grow(tmp_path: Path) -> None:
    spec = grows(tmp_path, "policy", start="base")
    assert policy_rank(spec) == 8
    fakes = Fakes(max_lora_rank={"generator": 8, "evaluator": 12})
    async with (
        serve_fakes(fakes) as addresses,
        ServiceClients(addresses, IMPATIENT) as clients,
    ):
        store = ArtifactStore(str(tmp_path / "artifacts"))
        assert await prepare(RUN, spec=spec, store=store, clients=clients)


TOO_LARGE = {
    "spec.inner.optimizer.epochs": {
        "inner": InnerLoopSettings(
            examples=ExampleSettings(max_examples=200), optimizer=OptimizerSettings(epochs=1000)
        )
    },
    "spec.data.trainContexts": {
        "edit": EditSettings(k=1024),
        "improve": ImproveSettings(keep_per_context=1024),
    },
    "spec.improve.optimizer.epochs": {
        "edit": EditSettings(k=300),
        "improve": ImproveSettings(
            keep_per_context=300, optimizer=OptimizerSettings(epochs=1000, batch_size=1)
        ),
    },
}


def test_more_ways_to_ask_a_task_than_an_evaluation_takes_are_refused(tmp_path: Path) -> None:
    spec = few_shot_spec(tmp_path)
    path = Path(spec.data.validation)
    row = json.loads(path.read_text().splitlines()[0])
    row["test"] *= MAX_ASKS // 64 + 1
    path.write_text(json.dumps(row))

    def asked_in(votes: int) -> RunSpec:
        evaluation = spec.evaluation.model_copy(update={"votes": votes})
        return spec.model_copy(update={"evaluation": evaluation})

    assert len(load_data(asked_in(63))["validation"]) == 1
    with pytest.raises(InvalidInput) as refused:
        load_data(asked_in(64))
    assert refused.value.field == "spec.evaluation.votes" and refused.value.remedy.endswith(
        "give 63 or less"
    )


@pytest.mark.parametrize("field", TOO_LARGE)
async def test_trainings_that_could_grow_beyond_what_a_trainer_takes_are_refused_at_once(
    tmp_path: Path, field: str
) -> None:
    spec, fakes = small_spec(tmp_path, passages=(21, 2, 2), **TOO_LARGE[field]), Fakes()
    with pytest.raises(InvalidInput, match="the trainer takes 20000") as caught:
        await run(spec, tmp_path, fakes)
    assert caught.value.field == field
    assert fakes.calls == {}


async def test_a_passage_that_the_model_cannot_take_is_named_and_the_others_are_learnt(
    tmp_path: Path,
) -> None:
    spec = small_spec(tmp_path, edit=EditSettings(k=3, family="implications-long"))
    lengthen(spec.data.train, "holds nine Tower 1 lamps")
    fakes = Fakes(model=MODEL.model_copy(update={"max_row_tokens": 60}))
    fakes.outcome = lambda kind, name: (
        Outcome.TOO_LONG if kind == "train" and "/tower-1-" in name else None
    )
    async with workplace(tmp_path, fakes=fakes, spec=spec) as place:
        (row,) = (await pinned(place.store, RUN)).too_long
        summary = await place.run(Stage.ROLLOUT, round=1)
    assert (row.data, row.number, row.title, row.what) == ("train", 2, "Tower 1", "passage")
    assert row.tokens > row.limit == 60
    assert summary.outcomes["ok"] > 0
    assert 0 < summary.outcomes["too_long"] + summary.outcomes.get("invalid", 0) <= 9


async def test_the_longest_part_prompt_of_a_passage_has_to_fit(tmp_path: Path) -> None:
    edit = EditSettings(family="self-qa-by-sentence", k=2, max_tokens=24)
    spec = small_spec(tmp_path, edit=edit)
    lengthen(spec.data.train, "holds nine Tower 1 lamps")
    prompts = get_domain("knowledge").edit_prompts(
        "Tower 0", "It is short.", "self-qa-by-sentence", "base"
    )
    room = len(prompts[0].prompt.text.split()) + 50
    fakes = Fakes(model=MODEL.model_copy(update={"max_positions": room + 24}))
    async with workplace(tmp_path, fakes=fakes, spec=spec) as place:
        (row,) = (await pinned(place.store, RUN)).too_long
    assert (row.data, row.number, row.what, row.limit) == ("train", 2, "edit prompt", room)


async def test_more_candidates_than_a_request_has_room_for_their_parts_are_refused(
    tmp_path: Path,
) -> None:
    edit = EditSettings(family="self-qa-by-sentence", k=600, max_tokens=24)
    improve = ImproveSettings(keep_per_context=1)
    with pytest.raises(InvalidInput, match="600 edits of up to 14 parts") as caught:
        await run(small_spec(tmp_path, edit=edit, improve=improve), tmp_path, Fakes())
    assert caught.value.field == "spec.edit.k"
    assert caught.value.remedy == "give 585 or less"


@pytest.mark.parametrize(
    ("family", "trained_prompt", "field"),
    [
        ("self-qa-by-sentence", "worked", "spec.edit.trainedPrompt"),
        ("self-qa-by-sentence", "short", ""),
        ("self-qa", "worked", "spec.edit.family"),
    ],
)
async def test_prompts_that_leave_the_m_step_no_room_in_a_row_are_refused_before_a_rollout(
    tmp_path: Path, family: PromptFamily, trained_prompt: Literal["worked", "short"], field: str
) -> None:
    edit = EditSettings(k=2, family=family, trained_prompt=trained_prompt)
    fakes = Fakes(model=MODEL.model_copy(update={"max_row_tokens": 60}))
    status = await run(small_spec(tmp_path, edit=edit, rounds=1), tmp_path, fakes)
    assert (status.phase is Phase.FAILED) is bool(field)
    if field:
        condition = status.condition("Failed")
        assert status.stage is Stage.PREPARE and condition is not None
        assert "the policy could learn no edit" in condition.message
        assert ("set it to short" in condition.message) is (field == "spec.edit.trainedPrompt")
        assert fakes.calls == {}


async def test_data_of_which_nothing_fits_are_refused(tmp_path: Path) -> None:
    fakes = Fakes(model=MODEL.model_copy(update={"max_row_tokens": 5}))
    status = await run(small_spec(tmp_path), tmp_path, fakes)
    condition = status.condition("Failed")
    assert condition is not None and condition.reason == "InvalidInput"
    assert "every passage is too long for the model: the first, 'Tower 0'" in condition.message


async def test_a_resume_on_other_weights_is_refused_by_both_digests_and_changes_nothing(
    tmp_path: Path,
) -> None:
    spec = small_spec(tmp_path, rounds=1)
    await run(spec, tmp_path)
    more = spec.model_copy(update={"rounds": 2})
    other = Fakes(model=MODEL.model_copy(update={"base_sha256": "c" * 64}))
    with pytest.raises(Conflict, match=f"{'b' * 64}.*{'c' * 64}"):
        await run(more, tmp_path, other, resume=True)
    assert other.calls == {}
    assert (await run(more, tmp_path, resume=True)).phase is Phase.COMPLETE


@pytest.mark.parametrize(
    ("smaller", "error", "remedy"),
    [
        ({"max_row_tokens": 64}, Conflict, "maxRowTokens=2048"),
        ({"max_rank": 8}, InvalidInput, "maxRank"),
    ],
)
async def test_a_resume_on_a_trainer_that_takes_less_than_the_run_needs_is_refused(
    tmp_path: Path, smaller: dict[str, int], error: type[SealError], remedy: str
) -> None:
    spec = small_spec(tmp_path, rounds=1)
    await run(spec, tmp_path)
    more = spec.model_copy(update={"rounds": 2})
    other = Fakes(model=MODEL.model_copy(update=smaller))
    with pytest.raises(error, match=remedy):
        await run(more, tmp_path, other, resume=True)
    assert other.calls == {}
    larger = Fakes(model=MODEL.model_copy(update=dict.fromkeys(smaller, 4096)))
    assert (await run(more, tmp_path, larger, resume=True)).phase is Phase.COMPLETE


async def test_every_request_names_the_weights_that_the_run_is_pinned_to(tmp_path: Path) -> None:
    fakes = Fakes()
    assert (await run(small_spec(tmp_path, rounds=1), tmp_path, fakes)).phase is Phase.COMPLETE
    named = {request.policy.base_sha256 for request in fakes.requests.values()}
    assert named == {"b" * 64}


async def test_pinned_passages_that_were_altered_are_never_used(tmp_path: Path) -> None:
    async with workplace(tmp_path) as place:
        digests = (await pinned(place.store, RUN)).contexts_sha256
        path = contexts_path(RUN, "train", digests["train"])
        place.store.write_bytes(path, place.store.read_bytes(path).replace(b"lamps", b"lumps"))
        with pytest.raises(Internal, match="is not the file that the run was pinned to"):
            await place.run(Stage.ROLLOUT, round=1)


async def test_a_preparation_that_died_after_it_had_pinned_reads_no_data_again(
    tmp_path: Path,
) -> None:
    async with workplace(tmp_path) as place:
        before = await pinned(place.store, RUN)
        place.store.remove(f"{place.files(Stage.PREPARE, round=0).path}/summary.json")
        place.fakes.model = MODEL.model_copy(update={"base_sha256": "c" * 64})
        lengthen(place.spec.data.train, "holds nine Tower 1 lamps")
        again = await place.run(Stage.PREPARE, round=0)
        assert await pinned(place.store, RUN) == before
        assert (await place.run(Stage.ROLLOUT, round=1)).outcomes["ok"] > 0
    assert again.result_sha256 == before.sha256


async def test_of_two_preparations_at_once_one_counts(tmp_path: Path) -> None:
    store, spec = ArtifactStore(str(tmp_path / "artifacts")), small_spec(tmp_path)
    other = Fakes(model=MODEL.model_copy(update={"base_sha256": "c" * 64}))

    async def prepare_with(fakes: Fakes) -> PreparedRecord:
        async with (
            serve_fakes(fakes) as addresses,
            ServiceClients(addresses, IMPATIENT) as clients,
        ):
            return await prepare(RUN, spec=spec, store=store, clients=clients)

    one, two = await asyncio.gather(prepare_with(Fakes()), prepare_with(other))
    assert one == two == await pinned(store, RUN)


async def test_of_two_preparations_with_other_data_the_pinned_one_finds_its_own(
    tmp_path_factory: pytest.TempPathFactory, monkeypatch: pytest.MonkeyPatch
) -> None:
    store = ArtifactStore(str(tmp_path_factory.mktemp("artifacts")))
    specs = [
        small_spec(tmp_path_factory.mktemp("data"), passages=(trained, 2, 2)) for trained in (3, 4)
    ]
    both_have_written, pinned_one = asyncio.Event(), asyncio.Event()

    async def pin_in_turn(
        store: ArtifactStore, run: str, prepared: PreparedRecord
    ) -> PreparedRecord:
        """Whoever writes last pins last."""
        if arrived:
            both_have_written.set()
            await pinned_one.wait()
        arrived.append(prepared)
        await both_have_written.wait()
        counts = await pin(store, run, prepared)
        pinned_one.set()
        return counts

    arrived: list[PreparedRecord] = []
    monkeypatch.setattr("seal.runs.store.pin", pin_in_turn)
    async with (
        serve_fakes(Fakes()) as addresses,
        ServiceClients(addresses, IMPATIENT) as clients,
    ):
        made = await asyncio.gather(
            *(prepare(RUN, spec=spec, store=store, clients=clients) for spec in specs)
        )
    assert arrived[0].contexts_sha256["train"] != arrived[1].contexts_sha256["train"]
    assert made == [arrived[0], arrived[0]]
    for name in ("train", "validation", "retained"):
        assert len(await read_contexts(store, RUN, name)) == arrived[0].contexts[name]
    files = {path.rsplit("/", 1)[-1] for path in store.list(f"{RUN}/contexts")}
    digests = arrived[0].contexts_sha256
    assert files == {f"{name}-{sha256}.jsonl" for name, sha256 in digests.items()}
