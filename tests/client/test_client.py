"""The blocking client: what it sends, how it comes back, and what it makes of errors."""

from __future__ import annotations

import threading
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
from fake_adaptations import ADAPTER_SHA256, FILES, FakeAdaptations, ThreadedServer, serve_in_thread

from seal.client import (
    Advanced,
    Client,
    ClientOptions,
    Document,
    Ended,
    Gate,
    Options,
    Question,
    State,
)
from seal.client.to_wire import options_message
from seal.errors import Conflict, Exhausted, Internal, InvalidInput, NotFound, Transient
from seal.records import AdapterReference
from seal.rpc.client import ClientSettings
from seal.settings import LoraSettings
from seal.v1 import adaptation_pb2 as pb

NOTE = Document(name="note.md", content=b"The lighthouse of Veldra was built by Ama Torrin.")
QUESTION = Question(question="Who built it?", answers=("Ama Torrin",), document="note.md")
QUICK = ClientOptions(retry_seconds=5.0, reconnect_seconds=10.0)
ADAPTER = AdapterReference(path=f"adapters/{ADAPTER_SHA256}", sha256=ADAPTER_SHA256)


@pytest.fixture
def fake() -> FakeAdaptations:
    return FakeAdaptations()


@pytest.fixture
def server(fake: FakeAdaptations) -> Iterator[ThreadedServer]:
    with serve_in_thread(fake) as server:
        yield server


@pytest.fixture
def client(server: ThreadedServer) -> Iterator[Client]:
    with Client(server.address, options=QUICK) as client:
        yield client


def kinds(events: Iterator[object]) -> list[str]:
    """Names of the events that are kept."""
    return [type(event.what).__name__ for event in events if not isinstance(event.what, Advanced)]


SELF_MADE = ["Accepted", "Prepared", "Questioned", "Rewarded", "Trained", "Judged", "Ended"]


def test_a_submitted_document_is_watched_to_its_adapter(
    client: Client, fake: FakeAdaptations
) -> None:
    submission = client.submit([NOTE], name="veldra")
    assert submission.created
    assert kinds(client.watch("veldra")) == SELF_MADE
    adaptation = client.get("veldra")
    assert adaptation.state is State.PUBLISHED and adaptation.state.final
    assert adaptation.adapter == ADAPTER
    assert adaptation.gate is not None and adaptation.gate.passed
    assert adaptation.evaluation is not None and adaptation.evaluation.self_made
    score = adaptation.evaluation.score("adapter", "f1")
    assert score is not None and score.mean == pytest.approx(0.603)
    gain = adaptation.evaluation.difference("adapter", "base", "f1")
    assert gain is not None and (gain.low, gain.high) == pytest.approx((0.482, 0.682))
    assert adaptation.evaluation.score("adapter", "logprob") is None
    assert adaptation.counts.rows == {"edit": 40, "passage": 4, "replay": 2}
    assert adaptation.finished_seconds == pytest.approx(time.time(), abs=60)


def test_progress_is_told_between_the_events_that_are_kept(
    client: Client, fake: FakeAdaptations
) -> None:
    fake.delay_seconds = 0.02
    client.submit([NOTE], name="veldra")
    assert any(isinstance(event.what, Advanced) for event in client.watch("veldra"))


def test_options_that_are_not_set_are_left_to_the_server(
    client: Client, fake: FakeAdaptations
) -> None:
    options = Options(seed=0, policy=ADAPTER, lora=LoraSettings(rank=4), gate=Gate(confident=False))
    client.submit([NOTE], name="veldra", questions=[QUESTION], options=options)
    sent = pb.SubmitAdaptationRequest.FromString(fake.jobs["default", "veldra"].body)
    assert {field.name for field, _ in sent.options.ListFields()} == {
        "seed", "policy", "lora", "gate",
    }  # fmt: skip
    assert [field.name for field, _ in sent.options.gate.ListFields()] == ["confident"]
    assert sent.questions[0].document == "note.md"
    assert client.get("veldra").options == options


@pytest.mark.parametrize(
    ("field", "options"),
    [
        ("options.candidates", Options(candidates=-1)),
        ("options.candidates", Options(candidates=2**32)),
        ("options.seed", Options(seed=2**64)),
        ("options.replay_rows", Options(replay_rows=-1)),
    ],
)
def test_a_number_that_no_message_can_hold_is_refused_by_its_field(
    field: str, options: Options
) -> None:
    with pytest.raises(InvalidInput, match="out of bounds") as caught:
        options_message(options)
    assert caught.value.field == field


def test_a_path_is_read_and_named_like_its_file(
    client: Client, fake: FakeAdaptations, tmp_path: Path
) -> None:
    (tmp_path / "a.txt").write_text("Veldra.")
    client.submit([tmp_path / "a.txt"], name="veldra")
    sent = pb.SubmitAdaptationRequest.FromString(fake.jobs["default", "veldra"].body)
    assert (sent.documents[0].name, sent.documents[0].content) == ("a.txt", b"Veldra.")
    with pytest.raises(NotFound, match=r"b\.txt"):
        client.submit([tmp_path / "b.txt"])


def test_what_is_too_large_for_a_message_is_uploaded_and_the_rest_is_not(
    client: Client, fake: FakeAdaptations
) -> None:
    large = Document(name="large.txt", content=b"word " * 1_500_000)
    client.submit([NOTE, large], name="veldra")
    sent = pb.SubmitAdaptationRequest.FromString(fake.jobs["default", "veldra"].body)
    assert sent.documents[0].content == NOTE.content
    assert fake.uploads[sent.documents[1].file.sha256] == large.content


def test_a_document_that_was_deleted_before_its_submit_is_uploaded_again(
    client: Client, fake: FakeAdaptations
) -> None:
    gone = NotFound("documents[0].file: there is no such file", field="documents[0].file.path")
    large = Document(name="large.txt", content=b"word " * 800_000)
    fake.refuse["SubmitAdaptation"] = [gone]
    assert client.submit([large]).created
    assert (fake.calls["UploadDocument"], fake.calls["SubmitAdaptation"]) == (2, 2)
    for documents in ([NOTE], [large]):
        fake.refuse["SubmitAdaptation"] = [gone, gone]
        with pytest.raises(NotFound):
            client.submit(documents)


def test_documents_are_uploaded_where_questions_leave_them_no_room(
    client: Client, fake: FakeAdaptations
) -> None:
    note = Document(name="note.txt", content=b"word " * 400_000)
    questions = [Question(question="Who built it? " * 10, answers=("Ama Torrin",))] * 15_000
    client.submit([note], name="alone")
    client.submit([note], name="beside", questions=questions)
    sent = [fake.jobs["default", name].body for name in ("alone", "beside")]
    assert max(map(len, sent)) < 4 * 1024 * 1024
    alone, beside = map(pb.SubmitAdaptationRequest.FromString, sent)
    assert alone.documents[0].content == note.content
    assert fake.uploads[beside.documents[0].file.sha256] == note.content


def test_questions_that_fit_no_message_are_refused_before_anything_is_sent(
    client: Client, fake: FakeAdaptations
) -> None:
    questions = [Question(question="Who built it? " * 20, answers=("Ama Torrin",))] * 15_000
    with pytest.raises(InvalidInput, match="3500000 fit") as caught:
        client.submit([NOTE], questions=questions)
    assert caught.value.field == "questions"
    assert not fake.calls


def test_a_submit_whose_answer_is_lost_makes_one_adaptation(
    client: Client, fake: FakeAdaptations
) -> None:
    fake.lose["SubmitAdaptation"] = 2
    submission = client.submit([NOTE])
    assert fake.calls["SubmitAdaptation"] == 3
    assert len(fake.jobs) == 1
    assert not submission.created, "the first of the calls had made it"


def test_two_submits_without_a_request_id_are_two_adaptations(
    client: Client, fake: FakeAdaptations
) -> None:
    client.submit([NOTE])
    client.submit([NOTE])
    assert len(fake.jobs) == 2


def test_a_request_id_is_the_callers_own(server: ThreadedServer, fake: FakeAdaptations) -> None:
    for caller in ("ama", "ben", "ama"):
        options = ClientOptions(caller=caller)
        with Client(server.address, options=options) as client:
            client.submit([NOTE], request_id="r-1", name=f"of-{caller}")
    assert fake.callers == ["ama", "ben"]


def test_the_same_request_id_with_another_body_is_refused(client: Client) -> None:
    client.submit([NOTE], request_id="r-1")
    with pytest.raises(Conflict) as refused:
        client.submit([Document(name="note.md", content=b"Another.")], request_id="r-1")
    assert refused.value.field == "request_id"


def test_what_is_wrong_is_refused_at_once_with_field_and_remedy(
    client: Client, fake: FakeAdaptations
) -> None:
    with pytest.raises(InvalidInput) as refused:
        client.submit([])
    assert (refused.value.field, refused.value.remedy) == ("documents", "give at least one")
    assert fake.calls["SubmitAdaptation"] == 1


def test_a_watch_that_loses_its_connection_tells_every_event_once(
    client: Client, fake: FakeAdaptations
) -> None:
    fake.drops = [0, 1, 3, 4]
    fake.delay_seconds = 0.02
    client.submit([NOTE], name="veldra")
    events = list(client.watch("veldra"))
    kept = [event for event in events if not isinstance(event.what, Advanced)]
    assert [event.sequence for event in kept] == [1, 2, 3, 4, 5, 6, 7]
    assert fake.after == sorted(fake.after) and len(fake.after) == 5
    assert fake.after[-1] > 0, "the last connection began where the one before had ended"


def test_a_watch_may_begin_after_an_event(client: Client) -> None:
    client.submit([NOTE], name="veldra")
    client.wait("veldra", timeout_seconds=20)
    assert kinds(client.watch("veldra", after=5)) == ["Judged", "Ended"]


def test_who_knows_the_last_event_hears_at_once_that_nothing_comes_after_it(
    client: Client, fake: FakeAdaptations
) -> None:
    client.submit([NOTE], name="veldra")
    last = client.wait("veldra", timeout_seconds=20).sequence
    watches = fake.calls["WatchAdaptation"]
    assert list(client.watch("veldra", after=last)) == []
    assert client.wait("veldra", after=last).state is State.PUBLISHED
    assert fake.calls["WatchAdaptation"] == watches + 2


def test_a_watch_that_the_server_ends_too_early_goes_on(
    client: Client, fake: FakeAdaptations
) -> None:
    fake.ends_early = 2
    client.submit([NOTE], name="veldra")
    assert kinds(client.watch("veldra")) == SELF_MADE


def test_a_server_that_starts_again_is_found_again(
    client: Client, fake: FakeAdaptations, server: ThreadedServer
) -> None:
    fake.delay_seconds = 0.2
    client.submit([NOTE], name="veldra")
    events, errors = [], []
    watching = Client(
        server.address,
        options=ClientOptions(retry_seconds=0.05, reconnect_seconds=20, on_retry=errors.append),
        channel=ClientSettings(connection_attempts=2),
    )
    with watching:
        for event in watching.watch("veldra"):
            if not events:
                server.restart_after(0.5)
            events.append(event)
    assert kinds(iter(events)) == SELF_MADE
    assert errors and all(isinstance(error, Transient) for error in errors)


def test_a_server_that_is_not_there_is_said_soon(tmp_path: Path) -> None:
    options = ClientOptions(retry_seconds=0.5)
    with Client(
        f"unix:{tmp_path}/none.sock",
        options=options,
        channel=ClientSettings(connection_attempts=2),
    ) as client:
        started = time.monotonic()
        with pytest.raises(Transient) as away:
            next(client.watch("veldra"))
        with pytest.raises(Transient):
            client.get("veldra")
        assert time.monotonic() - started < 10
        assert "check that the service runs" in away.value.remedy


def test_a_full_server_is_asked_again_when_it_said_so(
    client: Client, fake: FakeAdaptations
) -> None:
    fake.refuse["SubmitAdaptation"] = [Exhausted("full", retry_after_seconds=0.6)]
    started = time.monotonic()
    client.submit([NOTE])
    assert time.monotonic() - started >= 0.6


def test_who_waits_gets_the_end_also_from_a_replica_that_hears_of_it_later(
    client: Client, fake: FakeAdaptations
) -> None:
    client.submit([NOTE], name="veldra")
    fake.stale_gets = 2
    assert client.wait("veldra", timeout_seconds=20).state is State.PUBLISHED


def test_a_wait_ends_in_time_and_the_adaptation_goes_on(
    client: Client, fake: FakeAdaptations
) -> None:
    fake.delay_seconds = 0.3
    client.submit([NOTE], name="veldra")
    started = time.monotonic()
    with pytest.raises(Transient, match="has not ended in time"):
        client.wait("veldra", timeout_seconds=0.4)
    assert time.monotonic() - started < 8
    assert client.wait("veldra").state is State.PUBLISHED


def test_a_watch_that_is_left_ends_its_call(client: Client, fake: FakeAdaptations) -> None:
    fake.delay_seconds = 30
    client.submit([NOTE], name="veldra")
    events = client.watch("veldra")
    next(events)
    events.close()
    cancelled = client.cancel("veldra")
    assert cancelled.state is State.CANCELLED
    (last,) = [one for one in client.watch("veldra") if isinstance(one.what, Ended)]
    assert last.what.state is State.CANCELLED
    assert client.cancel("veldra").state is State.CANCELLED, "cancelled twice is cancelled"


def test_a_deletion_whose_answer_is_lost_is_no_error(client: Client, fake: FakeAdaptations) -> None:
    client.submit([NOTE], name="veldra")
    fake.lose["DeleteAdaptation"] = 1
    client.delete("veldra")
    with pytest.raises(NotFound) as missing:
        client.delete("veldra")
    assert missing.value.field == "name"


def test_a_list_goes_over_its_pages(client: Client, fake: FakeAdaptations) -> None:
    names = [f"n-{index}" for index in range(5)]
    for name in names:
        client.submit([NOTE], name=name)
    client.submit([NOTE], name="other")
    assert [one.name for one in client.list(name_prefix="n-")] == names
    assert fake.calls["ListAdaptations"] == 3
    for name in (*names, "other"):
        client.wait(name, timeout_seconds=20)
    assert not list(client.list(states=[State.PENDING, State.RUNNING]))
    assert len(list(client.list(states=[State.PUBLISHED]))) == 6


def test_a_downloaded_adapter_is_whole_or_not_there(
    client: Client, fake: FakeAdaptations, tmp_path: Path
) -> None:
    target = client.download(ADAPTER, tmp_path / "deep" / "adapter")
    assert {path.name: path.read_bytes() for path in target.iterdir()} == FILES
    with pytest.raises(Conflict) as exists:
        client.download(ADAPTER, target)
    assert exists.value.field == "directory"
    fake.damaged = True
    with pytest.raises(Internal, match="did not come whole"):
        client.download(ADAPTER, tmp_path / "damaged")
    assert sorted(path.name for path in tmp_path.iterdir()) == ["deep"]


def test_a_download_of_other_files_than_the_digest_says_is_refused(
    client: Client, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setitem(FILES, "adapter_config.json", b"{}")
    with pytest.raises(Internal, match="are not those of"):
        client.download(ADAPTER, tmp_path / "other")


def test_the_clients_of_many_threads_share_a_connection(
    client: Client, fake: FakeAdaptations
) -> None:
    fake.delay_seconds = 0.05
    ends: list[State] = []

    def adapt(index: int) -> None:
        name = client.submit([NOTE], name=f"n-{index}").adaptation.name
        ends.append(client.wait(name).state)

    threads = [threading.Thread(target=adapt, args=(index,)) for index in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(timeout=30)
    assert ends == [State.PUBLISHED] * 8


def test_the_address_comes_from_the_environment(
    server: ThreadedServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("SEAL_SERVER", server.address)
    with Client() as client:
        assert not list(client.list())
