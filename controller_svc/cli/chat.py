"""`seal chat`: ask a base model and its adapted self the same, and read both answers."""

from __future__ import annotations

import asyncio
import json
import sys
from collections.abc import Iterator, Mapping
from contextlib import AbstractAsyncContextManager, AsyncExitStack, contextmanager, nullcontext
from dataclasses import dataclass

from rich.console import Console

from controller_svc.cli.chat_answers import ANSWER_TOKENS, Answer, Chat, Manner, Speaker
from controller_svc.cli.chat_partners import OnDownload, Partners, partners_here, partners_on
from controller_svc.cli.chat_screen import ChatScreen
from controller_svc.cli.messages import complain
from controller_svc.cli.references import parse_reference
from controller_svc.cli.target import Target
from seal.errors import InvalidInput, SealError
from seal.outcomes import Outcome
from seal.settings import EngineSettings, QuestionFormat

PROMPT = "you> "


@dataclass(frozen=True, kw_only=True)
class Options:
    """How a chat is held, as its command line says."""

    adapter: str
    """REF."""
    message: str | None
    """The only question; None: as many as are typed."""
    target: Target
    """Where the models are; no server: this process."""
    model: str
    """Base model; empty: the adapter's own."""
    engine: EngineSettings
    offline: bool
    format: QuestionFormat | None
    """None: as an adaptation of this machine was evaluated, else few-shot."""
    max_tokens: int | None
    """None: `ANSWER_TOKENS`."""
    temperature: float
    seed: int
    as_json: bool

    def manner(self, format: QuestionFormat) -> Manner:
        """How both are asked; `format` is theirs, where nobody says otherwise."""
        chosen = self.format or format
        return Manner(
            format=chosen,
            max_tokens=self.max_tokens or ANSWER_TOKENS[chosen],
            temperature=self.temperature,
            seed=self.seed,
        )


def hold_chat(options: Options) -> None:
    """Ask what there is to ask, and show the answers.

    Raises:
        InvalidInput: JSON is wanted without a message, or the adapter is none.
        SealError: what keeps the models from answering the only question.

    """
    if options.as_json and options.message is None:
        raise InvalidInput(
            "--output json needs the message",
            field="--message",
            remedy="add --message TEXT, or leave out --output json",
        )
    if options.message is not None and not options.message.strip():
        raise InvalidInput("--message is empty", field="--message", remedy="ask something")
    with asyncio.Runner() as runner:
        stack = AsyncExitStack()
        try:
            with _loading() as on_download:
                partners = runner.run(stack.enter_async_context(_partners(options, on_download)))
            chat = Chat(partners.generator, partners.adapter, options.manner(partners.format))
            if options.message is not None:
                _ask_once(runner, chat, options.message, as_json=options.as_json)
            else:
                _ask_on(runner, chat)
        finally:
            runner.run(stack.aclose())


def _partners(options: Options, on_download: OnDownload) -> AbstractAsyncContextManager[Partners]:
    reference = parse_reference(options.adapter, option="--adapter")
    if options.target.server:
        return partners_on(options.target, reference)
    return partners_here(
        options.target,
        reference,
        model=options.model,
        engine=options.engine,
        offline=options.offline,
        on_download=on_download,
    )


@contextmanager
def _loading() -> Iterator[OnDownload]:
    """Say on a terminal that the models come, and how much of a download is there."""
    console = Console(stderr=True)
    with console.status("loading ...") if console.is_terminal else nullcontext() as status:

        def on_download(what: str, done_bytes: int, total_bytes: int) -> None:
            share = f" {100 * done_bytes // total_bytes} %" if total_bytes else ""
            if status is not None:
                status.update(f"{what}{share} ...")

        yield on_download


def _ask_once(runner: asyncio.Runner, chat: Chat, message: str, *, as_json: bool) -> None:
    if not as_json:
        _answer(runner, chat, message)
        return
    answers = runner.run(chat.ask(message, lambda _: None))
    found: dict[str, object] = {"message": message, **_facts(chat)}
    found |= {speaker: _told(answer) for speaker, answer in answers.items()}
    sys.stdout.write(json.dumps(found, indent=2, ensure_ascii=False) + "\n")


def _facts(chat: Chat) -> Mapping[str, object]:
    return {
        "format": chat.manner.format,
        "adapter": {"path": chat.adapter.path, "sha256": chat.adapter.sha256},
    }


def _told(answer: Answer) -> Mapping[str, object]:
    """An answer for programs: one that is missing is null."""
    ok = answer.outcome is Outcome.OK
    return {
        "text": answer.text.strip() if ok else None,
        "outcome": str(answer.outcome),
        "tokens": answer.tokens,
        "truncated": answer.truncated,
        "engine_seconds": round(answer.engine_seconds, 4),
    }


def _ask_on(runner: asyncio.Runner, chat: Chat) -> None:
    """Every line is a message, until Ctrl-D; Ctrl-C stops an answer, and at the prompt the chat."""
    typed = sys.stdin.isatty()
    if typed:
        import readline  # noqa: F401 - gives input() its editing and its history

        sys.stderr.write("Ask something; Ctrl-D ends the chat.\n")
    while True:
        try:
            line = input(PROMPT if typed else "")
        except (EOFError, KeyboardInterrupt):
            if typed:
                sys.stdout.write("\n")
            return
        if not (message := line.strip()):
            continue
        try:
            _answer(runner, chat, message)
        except KeyboardInterrupt:
            if not typed:
                raise
            complain("this answer was not finished", "", label="stopped")
        except SealError as error:
            if not typed:
                raise
            complain(error.message, error.remedy)


def _answer(runner: asyncio.Runner, chat: Chat, message: str) -> Mapping[Speaker, Answer]:
    with ChatScreen(Console(highlight=False)).answering() as screen:

        async def ask() -> Mapping[Speaker, Answer]:
            return await chat.ask(message, screen.show)

        return runner.run(ask())
