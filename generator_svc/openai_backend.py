"""Edits by a model that others serve, behind the same protocol as the engine's.

A prompt with a seed is one request to the endpoint. What is written is kept for a while: a call
that is made again, because a part of it failed, pays for that part alone. A seed is passed on, but
few endpoints hold on to it: a run keeps what was written first. An edit has a log-probability only
if the endpoint gives one.
"""

from __future__ import annotations

import asyncio
import concurrent.futures
import threading
from collections.abc import Callable
from dataclasses import dataclass, replace

from pydantic import SecretStr

from seal.bases import BaseReference
from seal.domains.base import ABSTAIN
from seal.domains.by_sentence import STARTS
from seal.endpoints import Completion, Endpoint, Sampling, Shared
from seal.engine import GenerationRequest, GenerationResult, Sample
from seal.errors import InvalidInput, UnfitItem, principal_error
from seal.prompts import Message, Prompt
from seal.settings import EditGenerator, EndpointLimits, EngineSettings

KEPT_TEXTS = 10_000
"""Texts that are kept in memory; the oldest leave first."""
CLOSE_SECONDS = 10.0
_GO_ON = (
    "You are given the beginning of a text. Write what follows, from the very next word on, in the "
    "form that it has so far. Do not repeat the beginning, and add nothing before or after."
)


@dataclass(frozen=True)
class Writing:
    """One generation on its way."""

    future: concurrent.futures.Future[GenerationResult]

    def cancel(self) -> None:
        """Drop what is not yet written."""
        self.future.cancel()


class OpenAIWriter:
    """Writes texts (`seal.backends.Writer`); it has an event loop and a thread of its own."""

    broken: str | None = None
    """An endpoint that is away comes back: nothing here breaks for good."""
    heartbeat_seconds = 0.0
    max_lora_rank = 0
    """It takes no adapter at all, whatever its rank: `generate` refuses a policy."""

    def __init__(
        self,
        generator: EditGenerator,
        *,
        key: SecretStr | None,
        limits: EndpointLimits,
        settings: EngineSettings,
    ) -> None:
        self.settings = settings
        self.base = BaseReference(generator.model)
        """Its model, by the name that it has at the endpoint; of its weights nothing is known."""
        self._api = generator.api
        self.holds_to_schema = generator.api == "chat"
        """Where texts are continued, endpoints have no such option in common."""
        self._endpoint = Endpoint(generator, key=key, limits=limits)
        self._texts: Shared[_Key, Completion] = Shared(capacity=KEPT_TEXTS)
        self._loop = asyncio.new_event_loop()
        self._thread = threading.Thread(target=self._loop.run_forever, name="endpoint", daemon=True)
        self._thread.start()

    def generate(
        self,
        request: GenerationRequest,
        on_progress: Callable[[int, int], None] | None = None,
        on_text: Callable[[str], None] | None = None,
    ) -> Writing:
        """Ask for every text of a request; `on_text` gets one in one piece.

        Raises InvalidInput for what this backend can never do: a policy, or a chat where texts are
        continued. The future ends with UnfitItem naming the prompts that the endpoint refuses, once
        all others are written.
        """
        if request.policy is not None:
            raise InvalidInput(
                "policy.adapter: a model at an endpoint takes no adapter",
                field="policy.adapter",
                remedy="ask for the model alone, or a generator that has loaded the base model",
            )
        prompts = [Prompt(one) if isinstance(one, str) else one for one in request.prompts]
        if self._api == "completions" and any(prompt.messages for prompt in prompts):
            raise InvalidInput(
                "prompt.format: texts are continued here, and the prompt is a chat",
                field="prompt.format",
                remedy="ask in format base, or set the generator's api to chat",
            )
        work = self._write(
            request,
            prompts,
            on_progress or (lambda done, tokens: None),
            on_text or (lambda text: None),
        )
        return Writing(asyncio.run_coroutine_threadsafe(work, self._loop))

    def close(self) -> None:
        """Drop what is unfinished, and end the thread."""
        if self._loop.is_closed():
            return
        asyncio.run_coroutine_threadsafe(self._end(), self._loop).result(CLOSE_SECONDS)
        self._loop.call_soon_threadsafe(self._loop.stop)
        self._thread.join(CLOSE_SECONDS)
        self._loop.close()

    async def _end(self) -> None:
        own = asyncio.current_task()
        others = [task for task in asyncio.all_tasks() if task is not own]
        for task in others:
            task.cancel()
        await asyncio.gather(*others, return_exceptions=True)
        await self._endpoint.close()

    async def _write(
        self,
        request: GenerationRequest,
        prompts: list[Prompt],
        on_progress: Callable[[int, int], None],
        on_text: Callable[[str], None],
    ) -> GenerationResult:
        done = tokens = 0
        unfit: dict[int, UnfitItem] = {}

        async def write(place: int, seed: int) -> Sample | None:
            """One text; None if its prompt is at fault."""
            nonlocal done, tokens
            try:
                completion = await self._complete(request, prompts[place], seed)
            except UnfitItem as error:
                unfit.setdefault(place, error)
                return None
            done, tokens = done + 1, tokens + completion.tokens
            on_progress(done, tokens)
            on_text(completion.text)  # of a request of one sample
            return Sample(
                text=completion.text,
                seed=seed,
                tokens=completion.tokens,
                truncated=completion.truncated,
                logprob=completion.logprob,
            )

        try:
            async with asyncio.TaskGroup() as group:
                asked = [
                    [group.create_task(write(place, seed)) for seed in seeds]
                    for place, seeds in enumerate(request.seeds)
                ]
        except BaseExceptionGroup as errors:
            raise principal_error(errors) from None
        if unfit:
            first = unfit[min(unfit)]
            alike = [place for place, error in unfit.items() if error.outcome is first.outcome]
            raise UnfitItem(
                first.message, outcome=first.outcome, remedy=first.remedy, places=sorted(alike)
            )
        samples = [[task.result() for task in tasks] for tasks in asked]
        return GenerationResult(
            samples=tuple(tuple(filter(None, of_prompt)) for of_prompt in samples),
            engine_seconds=(0.0,) * len(samples),
        )

    async def _complete(self, request: GenerationRequest, prompt: Prompt, seed: int) -> Completion:
        sampling = Sampling(
            temperature=request.temperature,
            top_p=request.top_p,
            max_tokens=request.max_tokens,
            seed=seed,
            stop=request.stop,
            json_schema=request.json_schema,
        )
        completion = await self._texts.get(
            _Key(prompt, sampling), lambda: self._ask(prompt, sampling)
        )
        text = completion.text if self._api == "completions" else _after(prompt, completion.text)
        ended = _before_stop(text, request.stop)
        # One that a stop text ends is whole, even where the endpoint went on up to its bound
        return replace(completion, text=ended, truncated=completion.truncated and ended == text)

    async def _ask(self, prompt: Prompt, sampling: Sampling) -> Completion:
        if self._api == "completions":
            return await self._endpoint.complete(prompt.text, sampling)
        return await self._endpoint.chat(turns(prompt), sampling)


@dataclass(frozen=True)
class _Key:
    """What a text is kept by."""

    prompt: Prompt
    sampling: Sampling


def turns(prompt: Prompt) -> tuple[Message, ...]:
    """A prompt as a chat that ends with a turn of the user's.

    Endpoints do not let a client begin the model's turn, so that its start is asked for in words.
    """
    if not prompt.messages:
        return (Message("system", _GO_ON), Message("user", prompt.text))
    if not prompt.text:
        return prompt.messages
    *before, last = prompt.messages
    begin = f"\n\nBegin your answer with: {prompt.text}"
    return (*before, replace(last, content=last.content + begin))


def _after(prompt: Prompt, text: str) -> str:
    """What follows the beginning that the model was given, whether it repeats it or not.

    Without a repetition it is a word of its own. Where it begins a question of its own behind the
    start of another, the part has no fitting one.
    """
    given = prompt.text if prompt.messages else prompt.text.rpartition("\n")[2]
    start, written = given.strip(), text.lstrip()
    if start and written[: len(start)].lower() == start.lower():
        return written[len(start) :]
    first = text[:1]
    if not given[-1:].isalnum() or not (first.isdigit() or first.isupper() or first.islower()):
        return text  # no word, or one of a script that has no capitals and may have no blanks
    return ABSTAIN if first.isupper() and given in STARTS else f" {text}"


def _before_stop(text: str, stops: tuple[str, ...]) -> str:
    """An endpoint takes few stop texts, and some take none."""
    return text[: min((place for stop in stops if (place := text.find(stop)) >= 0), default=None)]
