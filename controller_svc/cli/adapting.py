"""`seal adapt` and `seal watch`: hand in documents, follow what happens, show what came out.

The request id follows from what is handed in, so that the same command again finds the adaptation
that it began, whatever ended it: a lost connection, Ctrl-C, a killed server.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import typer

from controller_svc.cli import STOPPED
from controller_svc.cli.adaptation_progress import EventBars, EventLines, open_event_screen
from controller_svc.cli.adaptation_tables import print_adaptation, refusal_remedy
from controller_svc.cli.ended import ended_here
from controller_svc.cli.exit_codes import failed_code
from controller_svc.cli.messages import (
    INTERRUPTED,
    Failure,
    command,
    complain,
    print_failure,
    program,
)
from controller_svc.cli.serving import LocalServer, ServerGone, View, look, saying_away, working
from controller_svc.cli.stopping import say_stopping, say_the_end
from controller_svc.cli.target import Target
from controller_svc.cli.typed import HANDED_IN, as_typed
from seal.client import Adaptation, Client, Document, Options, Question, State, Submission, to_wire
from seal.errors import (
    ERROR_CLASSES,
    Conflict,
    PreconditionFailed,
)

Screen = EventBars | EventLines
MOST_DELETED = 100
"""So often the same work may be done and deleted."""


@dataclass(frozen=True, kw_only=True)
class Work:
    """What is handed in."""

    documents: Sequence[Document]
    questions: Sequence[Question]
    questions_file: Path | None
    """Where they lie."""
    name: str
    """Empty lets the server choose."""
    options: Options

    def request_id(self, *, model: str, deleted: int = 0) -> str:
        """The same for the same work, so that it is done once.

        `model`: of a local server. `deleted`: how often it was done and deleted, since a request id
        stands for one adaptation, also when that is gone.
        """
        digest = hashlib.sha256()

        def add(part: bytes) -> None:
            digest.update(len(part).to_bytes(8, "big") + part)

        for text in ("1", model, self.name):
            add(text.encode())
        add(to_wire.options_message(self.options).SerializeToString(deterministic=True))
        for question in self.questions:
            add(to_wire.question_message(question).SerializeToString(deterministic=True))
        for document in self.documents:
            for text in (document.name, document.media_type):
                add(text.encode())
            add(hashlib.sha256(document.content).digest())
        again = f"-{deleted}" if deleted else ""
        return f"cli-{digest.hexdigest()[:32]}{again}"

    def request_ids(self, *, model: str) -> Iterator[str]:
        """Those of the same work, one after another deleted."""
        return (self.request_id(model=model, deleted=deleted) for deleted in range(MOST_DELETED))


@dataclass(frozen=True)
class Found:
    """An adaptation that a command has begun, or has found."""

    adaptation: Adaptation
    goes_on: bool
    """Another process works at it, whatever becomes of this one."""


@dataclass(frozen=True, kw_only=True)
class Showing:
    """How a command shows what it does."""

    as_json: bool
    """The result as JSON on stdout."""
    json_lines: bool
    """Progress as JSON lines on stderr."""

    def screen(self) -> Screen:
        """What is shown on stderr."""
        return open_event_screen(bars=not self.as_json, json_lines=self.json_lines)


def adapt(
    work: Work, *, target: Target, local: LocalServer, showing: Showing, detach: bool
) -> None:
    """Hand in documents and follow them to their adapter.

    Raises:
        SealError: what is refused, or what keeps a server of this process from starting.
        typer.Exit: 130 after Ctrl-C, or the code of an end without a published adapter.
    """
    found: list[Found] = []
    try:
        with (
            showing.screen() as screen,
            as_typed(HANDED_IN, documents=work.documents, questions=work.questions_file),
        ):
            adaptation = _until_its_end(
                lambda: _adapt(work, target, local, screen, detach, found.append)
            )
    except KeyboardInterrupt:
        say_the_end()
        raise typer.Exit(_tell_stop(found, target, showing)) from None
    print_adaptation(adaptation, json_output=showing.as_json, reach=target.reach)
    if not detach:
        _end(adaptation, target, showing)


def watch(name: str, *, after: int, target: Target, showing: Showing) -> None:
    """Follow an adaptation to its end.

    Raises:
        NotFound: there is none of this name.
        PreconditionFailed: it has not ended, and nobody works at it.
        typer.Exit: 130 after Ctrl-C, or the code of an end without a published adapter.
    """
    found: list[Found] = []
    try:
        with showing.screen() as screen:

            def follow(view: View) -> Adaptation:
                adaptation = view.client.get(name)
                found.append(Found(adaptation, goes_on=True))
                if not view.at_work and not adaptation.state.final:
                    raise PreconditionFailed(
                        f"nobody works at {name}",
                        remedy=f"go on with all that has not ended:  {target.resume(adaptation)}",
                    )
                return _follow(view.client, adaptation, screen, after=after)

            adaptation = look(target, follow, on_retry=saying_away(screen.say))
    except KeyboardInterrupt:
        say_the_end()
        raise typer.Exit(_tell_stop(found, target, showing)) from None
    print_adaptation(adaptation, json_output=showing.as_json, reach=target.reach)
    _end(adaptation, target, showing)


def _until_its_end(attempt: Callable[[], Adaptation]) -> Adaptation:
    """Where the process that did the work has ended, this one goes on with it."""
    while True:
        try:
            return attempt()
        except ServerGone:
            continue


def _adapt(
    work: Work,
    target: Target,
    local: LocalServer,
    screen: Screen,
    detach: bool,
    on_found: Callable[[Found], None],
) -> Adaptation:
    model = "" if target.server else local.model
    ended = None if target.server else ended_here(work.request_ids(model=model), target)
    if ended is not None:
        screen.say(_found_again(ended, target))
        return ended
    with working(target, local, say=screen.say, on_download=screen.on_download) as worker:
        client = worker.client
        try:
            submission = _submit(client, work, model=model)
            adaptation = submission.adaptation
            on_found(Found(adaptation, goes_on=not worker.is_here))
            if not submission.created:
                screen.say(_found_again(adaptation, target))
            if detach:
                return adaptation
            return _follow(client, adaptation, screen, after=0)
        except KeyboardInterrupt:
            if worker.is_here:
                say_stopping(screen.say)  # before the server is stopped, which may take a while
            raise


def _submit(client: Client, work: Work, *, model: str) -> Submission:
    """Under the first request id whose adaptation is not deleted."""
    for request_id in work.request_ids(model=model):
        try:
            return client.submit(
                work.documents,
                questions=work.questions,
                name=work.name,
                request_id=request_id,
                options=work.options,
            )
        except Conflict as error:
            if error.field != "request_id":
                raise
    raise Conflict(
        f"the same was adapted and deleted {MOST_DELETED} times",
        field="--name",
        remedy="give another --name",
    )


def _follow(client: Client, adaptation: Adaptation, screen: Screen, *, after: int) -> Adaptation:
    """Show what happens until the end."""
    screen.begin(adaptation)
    if adaptation.state.final:
        return adaptation
    return client.wait(adaptation.name, on_event=screen.on_event, after=after)


def _found_again(adaptation: Adaptation, target: Target) -> str:
    """Say that nothing new was begun."""
    name = adaptation.name
    if not adaptation.state.final:
        return f"{name}: going on where it is ({adaptation.state.lower()})"
    at = f" {target.reach}" if target.reach else ""
    return (
        f"{name} has ended; this is its result. For another one give another --name, or delete it "
        f"first:  {program()} delete {name}{at}"
    )


def _tell_stop(found: Sequence[Found], target: Target, showing: Showing) -> int:
    """Say how to come back after Ctrl-C; the exit code."""
    if not found:
        message, remedy = "nothing has begun yet", ""
    elif found[-1].goes_on:
        name, at = found[-1].adaptation.name, f" {target.reach}" if target.reach else ""
        message = f"{name} goes on by itself; stop it with `{program()} cancel {name}{at}`, or"
        message += " come back to it with:"
        remedy = f"{program()} watch {name}{at}"
    else:
        message, remedy = "all that is finished is kept; go on with:", command()
    complain(message, remedy, label="stopped")
    if showing.as_json:
        print_failure(
            Failure(
                reason=INTERRUPTED,
                message="stopped before the end",
                remedy=remedy,
                exit_code=STOPPED,
            )
        )
    return STOPPED


def _end(adaptation: Adaptation, target: Target, showing: Showing) -> None:
    """Nothing after a published adapter; else say why there is none, and end with a code."""
    if adaptation.state is State.PUBLISHED:
        return
    code, message, remedy = _why(adaptation, target)
    if not showing.as_json:
        complain(message, remedy)
    raise typer.Exit(code)


def _why(adaptation: Adaptation, target: Target) -> tuple[int, str, str]:
    name, at = adaptation.name, f" {target.reach}" if target.reach else ""
    if adaptation.state is State.REFUSED and adaptation.gate is not None:
        return (
            ERROR_CLASSES[PreconditionFailed].exit_code,
            f"the gate refused the adapter of {name}: {adaptation.gate.reason}",
            ("it stays readable and is not published; " if adaptation.adapter else "")
            + (refusal_remedy(adaptation) or "another gate may let it pass"),
        )
    if adaptation.state is State.CANCELLED:
        return (
            ERROR_CLASSES[PreconditionFailed].exit_code,
            f"{name} was cancelled",
            f"begin again under another --name, or after:  {program()} delete {name}{at}",
        )
    failed = adaptation.condition("Failed")
    reason = failed.reason if failed else ""
    words = f"{reason}: {failed.message}" if failed else "no reason is known"
    return (
        failed_code(reason),
        f"{name} failed: {words}",
        f"mend the cause, then begin again under another --name, or after:  {program()} delete "
        f"{name}{at}",
    )
