"""Every refusal of a request: class, field and remedy, and no text of a document in any of them."""

from __future__ import annotations

import hashlib
from pathlib import Path
from typing import Any

import pytest
from front_door_harness import TEXT, FrontDoor, Work, ended, front_door, publish, request

from controller_svc.api import files, service
from seal.errors import Conflict, InvalidInput, NotFound, SealError
from seal.rpc.client import rpc_errors
from seal.rpc.convert import adapter_message
from seal.v1 import adaptation_pb2, common_pb2, trainer_pb2

SECRET = "Zanzibar-7"
"""A word of the document, which nobody may repeat."""
GOOD = adaptation_pb2.Document(name="a.txt", content=f"{TEXT} {SECRET}".encode())
Options = adaptation_pb2.AdaptationOptions
Question = adaptation_pb2.Question


def document(name: str = "a.txt", **fields: Any) -> adaptation_pb2.Document:
    return adaptation_pb2.Document(name=name, **fields)


def lora(**fields: Any) -> Options:
    values = {"rank": 4, "alpha": 8.0, "target_modules": ["q_proj"]} | fields
    return Options(lora=trainer_pb2.LoraConfig(**values))


def optimizer(**fields: Any) -> Options:
    values: dict[str, Any] = {
        "learning_rate": 1e-3, "epochs": 1, "batch_size": 1, "schedule": "linear",
    }  # fmt: skip
    return Options(optimizer=trainer_pb2.OptimizerConfig(**(values | fields)))


NOWHERE = common_pb2.FileRef(path="adaptations/files/none", sha256="0" * 64)
UP = "adaptations/files/../objects/default/mine.json"
NO_POLICY = common_pb2.AdapterRef(path="run/adapters/none", sha256="0" * 64)

REFUSED: list[tuple[str, type[SealError], dict[str, Any]]] = [
    ("request_id", InvalidInput, {"request_id": ""}),
    ("request_id", InvalidInput, {"request_id": "x" * 257}),
    ("request_id", InvalidInput, {"request_id": "a\nb"}),
    ("namespace", InvalidInput, {"namespace": "No Label"}),
    ("name", InvalidInput, {"name": "../up"}),
    ("name", InvalidInput, {"name": "x" * 41}),
    ("documents", InvalidInput, {"documents": []}),
    ("documents", InvalidInput, {"documents": [GOOD] * 1001}),
    ("documents[0].name", InvalidInput, {"documents": [document("", content=b"two words")]}),
    ("documents[0].name", InvalidInput, {"documents": [document("x" * 256, content=b"a b")]}),
    ("documents[1].name", InvalidInput, {"documents": [GOOD, GOOD]}),
    ("documents[0]", InvalidInput, {"documents": [document()]}),
    ("documents[0].content", InvalidInput, {"documents": [document(content=b"")]}),
    ("documents[0].content", InvalidInput, {"documents": [document(content=b"word")]}),
    ("documents[0].content", InvalidInput, {"documents": [document(content=b"\0\1\2 \3")]}),
    ("documents[0].content", InvalidInput, {"documents": [document(content=b"\xff\xfe\xfd")]}),
    ("documents[0].media_type", InvalidInput, {"documents": [document("a", content=b"a b")]}),
    (
        "documents[0].media_type",
        InvalidInput,
        {"documents": [document(content=b"a b", media_type="image/png")]},
    ),
    ("documents[0].file.path", NotFound, {"documents": [document(file=NOWHERE)]}),
    (
        "documents[0].file.path",
        InvalidInput,
        {"documents": [document(file=common_pb2.FileRef(path="../x", sha256="0" * 64))]},
    ),
    (
        "documents[0].file.path",
        InvalidInput,
        {"documents": [document(file=common_pb2.FileRef(path=UP, sha256="0" * 64))]},
    ),
    (
        "documents[0].file.sha256",
        InvalidInput,
        {"documents": [document(file=common_pb2.FileRef(path=NOWHERE.path, sha256="0"))]},
    ),
    ("questions[0].question", InvalidInput, {"questions": [Question(answers=["a"])]}),
    ("questions[0].question", InvalidInput, {"questions": [Question(question="x" * 4001)]}),
    ("questions[0].answers", InvalidInput, {"questions": [Question(question="Who?")]}),
    (
        "questions[0].answers[0]",
        InvalidInput,
        {"questions": [Question(question="Who?", answers=[" "])]},
    ),
    (
        "questions",
        InvalidInput,
        {"questions": [Question(question=f"{n}?", answers=["lamps"]) for n in range(4097)]},
    ),
    (
        "questions[0].document",
        InvalidInput,
        {"questions": [Question(question="Who?", answers=["a"], document="b.txt")]},
    ),
    (
        "questions[0].answers",
        InvalidInput,
        {"questions": [Question(question="Who?", answers=["stands nowhere"])]},
    ),
    ("options.seed", InvalidInput, {"options": Options(seed=2**63)}),
    ("options.candidates", InvalidInput, {"options": Options(candidates=0)}),
    ("options.candidates", InvalidInput, {"options": Options(candidates=1025)}),
    ("options.passage_tokens", InvalidInput, {"options": Options(passage_tokens=15)}),
    ("options.replay_rows", InvalidInput, {"options": Options(replay_rows=20_001)}),
    ("options.held_out_share", InvalidInput, {"options": Options(held_out_share=1.0)}),
    ("options.held_out_share", InvalidInput, {"options": Options(held_out_share=float("nan"))}),
    ("options.policy", NotFound, {"options": Options(policy=NO_POLICY)}),
    (
        "options.policy.sha256",
        InvalidInput,
        {"options": Options(policy=common_pb2.AdapterRef(path="x"))},
    ),
    (
        "options.policy.path",
        InvalidInput,
        {"options": Options(policy=common_pb2.AdapterRef(path="../x", sha256="0" * 64))},
    ),
    (
        "options.policy.path",
        InvalidInput,
        {"options": Options(policy=common_pb2.AdapterRef(path="/etc", sha256="0" * 64))},
    ),
    ("options.lora.rank", InvalidInput, {"options": lora(rank=0)}),
    ("options.lora.alpha", InvalidInput, {"options": lora(alpha=float("inf"))}),
    ("options.lora.target_modules", InvalidInput, {"options": lora(target_modules=[])}),
    (
        "options.lora.target_modules[1]",
        InvalidInput,
        {"options": lora(target_modules=["q_proj", "q_proj"])},
    ),
    ("options.optimizer.epochs", InvalidInput, {"options": optimizer(epochs=0)}),
    ("options.optimizer.schedule", InvalidInput, {"options": optimizer(schedule="steps")}),
    (
        "options.gate.min_gain",
        InvalidInput,
        {"options": Options(gate=adaptation_pb2.GateOptions(min_gain=2.0))},
    ),
    (
        "options.gate.max_regression",
        InvalidInput,
        {"options": Options(gate=adaptation_pb2.GateOptions(max_regression=-0.1))},
    ),
]


async def refusal(door: FrontDoor, message: Any, **metadata: str) -> SealError:
    call = {
        adaptation_pb2.SubmitAdaptationRequest: door.stub.SubmitAdaptation,
        adaptation_pb2.GetAdaptationRequest: door.stub.GetAdaptation,
        adaptation_pb2.ListAdaptationsRequest: door.stub.ListAdaptations,
        adaptation_pb2.CancelAdaptationRequest: door.stub.CancelAdaptation,
        adaptation_pb2.DeleteAdaptationRequest: door.stub.DeleteAdaptation,
    }[type(message)]
    pairs = [(name.replace("_", "-"), value) for name, value in metadata.items()]
    with pytest.raises(SealError) as refused, rpc_errors():
        await call(message, metadata=pairs)
    assert refused.value.remedy
    return refused.value


async def test_each_wrong_request_is_refused_by_class_field_and_remedy_and_accepts_nothing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    async with front_door(tmp_path, Work(), monkeypatch) as door:
        for field, kind, changes in REFUSED:
            error = await refusal(door, request(**({"documents": [GOOD]} | changes)))
            assert (type(error), error.field) == (kind, field), (field, str(error))
            assert SECRET not in str(error)
        error = await refusal(door, request(), x_seal_caller="x" * 300)
        assert (type(error), error.field) == (InvalidInput, "x-seal-caller")
        assert not door.store.list("adaptations/objects")
        assert not door.store.list("adaptations/requests")
    assert SECRET not in "".join(capfd.readouterr())


async def test_each_call_on_what_is_not_there_is_refused_by_its_name(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    async with front_door(tmp_path, Work(), monkeypatch) as door:
        for kind in (
            adaptation_pb2.GetAdaptationRequest,
            adaptation_pb2.CancelAdaptationRequest,
            adaptation_pb2.DeleteAdaptationRequest,
        ):
            missing = await refusal(door, kind(name="nobody"))
            assert (type(missing), missing.field) == (NotFound, "name")
            for field, fields in (
                ("name", {"name": "No!"}),
                ("name", {}),
                ("namespace", {"namespace": "-"}),
            ):
                wrong = await refusal(door, kind(**fields))
                assert (type(wrong), wrong.field) == (InvalidInput, field)
        wrong = await refusal(door, adaptation_pb2.DeleteAdaptationRequest(name="a", uid="\n"))
        assert (type(wrong), wrong.field) == (InvalidInput, "uid")


async def test_a_page_is_asked_for_in_bounds(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    async with front_door(tmp_path, Work(), monkeypatch) as door:
        for field, fields in (
            ("page_size", {"page_size": 501}),
            ("page_token", {"page_token": "No!"}),
            ("name_prefix", {"name_prefix": "-"}),
            ("states[1]", {"states": [1, 99]}),
            ("states[0]", {"states": [0]}),
            ("namespace", {"namespace": "No!"}),
        ):
            error = await refusal(door, adaptation_pb2.ListAdaptationsRequest(**fields))  # type: ignore[arg-type]
            assert (type(error), error.field) == (InvalidInput, field)


async def test_pages_hold_each_adaptation_once_by_name_prefix_and_state(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    async with front_door(tmp_path, Work(hold=lambda task: "b-" in task.run), monkeypatch) as door:
        names = [f"{letter}-{n}" for letter in "ab" for n in range(5)]
        for name in reversed(names):
            await door.stub.SubmitAdaptation(request(name, name=name))
        found, token = [], ""
        while True:
            page = await door.stub.ListAdaptations(
                adaptation_pb2.ListAdaptationsRequest(page_size=3, page_token=token)
            )
            found += [one.name for one in page.adaptations]
            token = page.next_page_token
            if not token:
                break
        assert found == names

        async def listed(**fields: Any) -> list[str]:
            message = adaptation_pb2.ListAdaptationsRequest(**fields)
            return [one.name for one in (await door.stub.ListAdaptations(message)).adaptations]

        assert await listed(name_prefix="a-") == names[:5]
        assert await listed(namespace="elsewhere") == []
        await door.stub.CancelAdaptation(adaptation_pb2.CancelAdaptationRequest(name="b-3"))
        await ended(door, "b-3")
        assert await listed(states=[adaptation_pb2.ADAPTATION_STATE_CANCELLED]) == ["b-3"]


async def test_a_page_ends_before_it_is_larger_than_a_client_takes(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(service, "MAX_PAGE_BYTES", 1)
    async with front_door(tmp_path, Work(hold=lambda task: True), monkeypatch) as door:
        for name in ("a", "b", "c"):
            await door.stub.SubmitAdaptation(request(name, name=name))
        tokens = [""]
        for name in ("a", "b", "c"):
            page = await door.stub.ListAdaptations(
                adaptation_pb2.ListAdaptationsRequest(page_token=tokens[-1])
            )
            assert [one.name for one in page.adaptations] == [name]
            tokens.append(page.next_page_token)
        assert tokens == ["", "a", "b", ""]


async def test_a_document_that_was_altered_in_the_store_is_refused(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    async with front_door(tmp_path, Work(), monkeypatch) as door:
        door.store.write_bytes(NOWHERE.path, b"other words")
        error = await refusal(door, request(documents=[document(file=NOWHERE)]))
        assert (type(error), error.field) == (InvalidInput, "documents[0].file.sha256")


async def test_what_was_not_uploaded_is_no_document_also_with_its_digest(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    async with front_door(tmp_path, Work(), monkeypatch) as door:
        text = b"Somebody else's record of a run."
        door.store.write_bytes("run/records/r.jsonl", text)
        sha256 = hashlib.sha256(text).hexdigest()
        file = common_pb2.FileRef(path="run/records/r.jsonl", sha256=sha256)
        error = await refusal(door, request(documents=[document(file=file)]))
        assert (type(error), error.field) == (InvalidInput, "documents[0].file.path")
        assert "UploadDocument" in error.remedy


async def test_a_file_that_is_larger_than_a_document_is_refused_before_it_is_read(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    async with front_door(tmp_path, Work(), monkeypatch) as door:
        door.store.write_bytes(NOWHERE.path, b"more words than fit")
        monkeypatch.setattr(files, "MAX_DOCUMENT_BYTES", 10)
        reads: list[str] = []
        read = door.store.read_bytes
        monkeypatch.setattr(door.store, "read_bytes", lambda path: reads.append(path) or read(path))
        error = await refusal(door, request(documents=[document(file=NOWHERE)]))
        assert (type(error), error.field) == (InvalidInput, "documents[0].file.path")
        assert "19 bytes are more than a document may have, 10" in error.message
        assert NOWHERE.path not in reads


async def test_a_policy_of_the_store_is_taken_and_one_with_another_digest_is_not(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    async with front_door(tmp_path, Work(), monkeypatch) as door:
        policy = adapter_message(publish(door.store, "run", "policy"))
        answer = await door.stub.SubmitAdaptation(request(options=Options(policy=policy)))
        assert answer.adaptation.options.policy == policy
        wrong = common_pb2.AdapterRef(path=policy.path, sha256="0" * 64)
        error = await refusal(door, request("two", options=Options(policy=wrong)))
        assert (type(error), error.field) == (InvalidInput, "options.policy.sha256")


async def test_a_path_that_is_none_is_told_as_it_was_given(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    async with front_door(tmp_path, Work(), monkeypatch) as door:
        policy = common_pb2.AdapterRef(path="/etc", sha256="0" * 64)
        error = await refusal(door, request(options=Options(policy=policy)))
        assert error.message == "'/etc' is not relative"


async def test_passages_longer_than_the_model_are_refused_where_its_positions_are_known(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    long = request(options=Options(passage_tokens=2049))
    async with front_door(tmp_path, Work(), monkeypatch, max_positions=2048) as door:
        error = await refusal(door, long)
        assert (type(error), error.field) == (InvalidInput, "options.passage_tokens")
        assert "2049 tokens do not fit into the model's 2048 positions" in error.message
        assert not door.store.list("adaptations/objects")
        await door.stub.SubmitAdaptation(request(options=Options(passage_tokens=2048)))


async def test_conflicts_name_the_field_that_must_change(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    async with front_door(tmp_path, Work(), monkeypatch) as door:
        await door.stub.SubmitAdaptation(request("one", name="veldra"))
        for field, message in (
            ("request_id", request("one", name="another")),
            ("name", request("two", name="veldra")),
            ("uid", adaptation_pb2.DeleteAdaptationRequest(name="veldra", uid="other")),
        ):
            error = await refusal(door, message)
            assert (type(error), error.field) == (Conflict, field)
